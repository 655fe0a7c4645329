"""How long to wait for a chunkserver: as long as it gets anything done for us.

Under load a request waits behind others, its own or other files', for longer than a dead server
may stop us. So an attempt is given up when its server has been silent for some time, counted from
the attempt's beginning or from the last request of that kind that the server carried out for this
client, whichever is later. The RPC's own timeout (`slow_timeout_s`) bounds an attempt at a server
that answers everything but this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from dfs.errors import Code, Failure
from dfs.runtime import Env


@dataclass(slots=True, eq=False)
class _Watched:
    server: int
    silence_s: float
    last_done: Callable[[int], float]
    began: float
    scope: trio.CancelScope
    expired: bool = False


class Patience:
    """Watches attempts. One task for all, which sleeps until the earliest may be given up."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._watched: dict[_Watched, None] = {}
        self._earlier = trio.Event()  # set when something may be given up before `_alarm_at`
        self._alarm_at = math.inf

    @contextmanager
    def watch(
        self, server: int, silence_s: float, last_done: Callable[[int], float], about: str
    ) -> Iterator[None]:
        """Run the body; Failure(TIMEOUT) when the server falls silent.

        `last_done` tells when the server last did such a thing (`Servers.last_write` and its
        like), `about` names the server in the error.
        """
        now = self._env.clock.monotonic()
        with trio.CancelScope() as scope:
            watched = _Watched(server, silence_s, last_done, now, scope)
            self._watched[watched] = None
            if now + silence_s < self._alarm_at:
                self._earlier.set()
            try:
                yield
            finally:
                del self._watched[watched]
        if watched.expired and scope.cancelled_caught:
            raise Failure(Code.TIMEOUT, f"{about} has been silent for {silence_s:g} s")

    async def run(self) -> None:
        """Until cancelled."""
        clock = self._env.clock
        while True:
            now = clock.monotonic()
            for watched in self._watched:
                if not watched.expired and _gives_up_at(watched) <= now:
                    watched.expired = True
                    watched.scope.cancel()
            self._earlier = trio.Event()
            alarms = (_gives_up_at(w) for w in self._watched if not w.expired)
            self._alarm_at = min(alarms, default=math.inf)
            if self._alarm_at == math.inf:
                await self._earlier.wait()
            else:
                await clock.wait(self._earlier, self._alarm_at - now)


def _gives_up_at(watched: _Watched) -> float:
    return max(watched.began, watched.last_done(watched.server)) + watched.silence_s
