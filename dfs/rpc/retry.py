"""Backing off: how long to wait before trying again. The one place where that is decided.

Full jitter: each wait is drawn evenly from [half, whole] of a ceiling that doubles, so that
clients that failed together do not come back together.
"""

from __future__ import annotations

from dfs.config import Rpc
from dfs.runtime.env import Env


class Backoff:
    """The waits of one series of attempts.

    `limits` gives the first ceiling and the highest (`retry_first_s`, `retry_max_s`). Bounding
    the number of attempts or the whole time is the caller's business.
    """

    def __init__(self, env: Env, limits: Rpc) -> None:
        self._env = env
        self._limits = limits
        self._ceiling_s = limits.retry_first_s

    def next_s(self) -> float:
        """The next wait in seconds; doubles the ceiling."""
        ceiling = self._ceiling_s
        self._ceiling_s = min(2 * ceiling, self._limits.retry_max_s)
        return self._env.random.uniform(ceiling / 2, ceiling)

    async def wait(self) -> None:
        """Sleep for the next wait."""
        await self._env.clock.sleep(self.next_s())

    def reset(self) -> None:
        """Begin anew after a success."""
        self._ceiling_s = self._limits.retry_first_s
