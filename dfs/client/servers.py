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
        self._failed_write_at: dict[int, float] = {}
        self._silent_at: dict[int, float] = {}
        self._read_at: dict[int, float] = {}
        self._wrote_at: dict[int, float] = {}
        self._spread = env.random.randrange(1 << 30)  # clients begin with different replicas

    def failed(self, server: int) -> None:
        """The server gave no answer, or none that was any good."""
        self._failed_at[server] = self._env.clock.monotonic()

    def failed_write(self, server: int, *, silent: bool) -> None:
        """The server could not take a write; `silent` when it did not even say so."""
        self.failed(server)
        self._failed_write_at[server] = self._env.clock.monotonic()
        if silent:
            self._silent_at[server] = self._env.clock.monotonic()

    def answered(self, server: int) -> None:
        """The server is there, whatever else is wrong with it."""
        self._silent_at.pop(server, None)

    def gave_data(self, server: int) -> None:
        """A read from the server succeeded."""
        self._read_at[server] = self._env.clock.monotonic()
        self._failed_at.pop(server, None)
        self.answered(server)

    def took_write(self, server: int) -> None:
        """The server has carried out a write, a sync or a cut."""
        self._wrote_at[server] = self._env.clock.monotonic()
        for failures in (self._failed_at, self._failed_write_at, self._silent_at):
            failures.pop(server, None)

    def last_read(self, server: int) -> float:
        """When it last gave data, on the monotonic clock; 0 for never."""
        return self._read_at.get(server, 0.0)

    def last_write(self, server: int) -> float:
        """When it last took a write, on the monotonic clock; 0 for never."""
        return self._wrote_at.get(server, 0.0)

    def is_suspect(self, server: int) -> bool:
        """Whether it has left a write unanswered a short while ago and said nothing since."""
        return server in self._recent(self._silent_at)

    def to_avoid(self) -> tuple[int, ...]:
        """Servers, rising, that new chunks should not be put on.

        Only what failed a write counts: the fewer servers, the fewer replicas a chunk gets.
        """
        return self._recent(self._failed_write_at)

    def order(self, replicas: tuple[Replica, ...], salt: int) -> list[Replica]:
        """The reachable replicas in the order to be asked; `salt` spreads chunks over servers."""
        reachable = [r for r in replicas if r.address]
        if not reachable:
            return []
        at = (salt + self._spread) % len(reachable)
        rotated = reachable[at:] + reachable[:at]
        failed = self._recent(self._failed_at)
        return sorted(rotated, key=lambda r: r.server in failed)

    def _recent(self, failures: dict[int, float]) -> tuple[int, ...]:
        since = self._env.clock.monotonic() - self._avoid_s
        return tuple(sorted(s for s, at in failures.items() if at > since))
