"""What this client has lately seen of each chunkserver: whom to ask first, whom to avoid.

A hint only; nothing here decides whether data is good.
"""

from __future__ import annotations

from dfs.messages.metadata import Replica
from dfs.runtime import Env


class Servers:
    """The servers' recent failures and successes, by server id."""

    def __init__(self, env: Env, avoid_s: float) -> None:
        self._env, self._avoid_s = env, avoid_s
        self._failed_at: dict[int, float] = {}
        self._worked_at: dict[int, float] = {}
        self._spread = env.random.randrange(1 << 30)  # clients begin with different replicas

    def failed(self, server: int) -> None:
        """The server gave no answer, or none that was any good."""
        self._failed_at[server] = self._env.clock.monotonic()

    def worked(self, server: int) -> None:
        """The server has just done what it was asked."""
        self._worked_at[server] = self._env.clock.monotonic()
        self._failed_at.pop(server, None)

    def worked_within(self, server: int, seconds: float) -> bool:
        """Whether the server has answered in the last seconds."""
        worked_at = self._worked_at.get(server)
        return worked_at is not None and self._env.clock.monotonic() - worked_at < seconds

    def to_avoid(self) -> tuple[int, ...]:
        """Servers that failed a short while ago, rising."""
        since = self._env.clock.monotonic() - self._avoid_s
        return tuple(sorted(s for s, at in self._failed_at.items() if at > since))

    def order(self, replicas: tuple[Replica, ...], salt: int) -> list[Replica]:
        """The reachable replicas in the order to be asked; `salt` spreads chunks over servers."""
        reachable = [r for r in replicas if r.address]
        if not reachable:
            return []
        at = (salt + self._spread) % len(reachable)
        rotated = reachable[at:] + reachable[:at]
        avoid = self.to_avoid()
        return sorted(rotated, key=lambda r: r.server in avoid)
