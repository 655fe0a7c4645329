"""How long to wait for a chunkserver: as long as it gets anything done for us.

Under load a packet waits behind others, its own or other files', for longer than a dead server may
stop us. So an attempt is given up when its server has been silent for `data_timeout_s`, counted
from the attempt's beginning or from the last thing that the server finished for this client,
whichever is later. The RPC's own timeout (`slow_timeout_s`) bounds an attempt at a server that
answers everything but this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from dfs.client.servers import Servers
from dfs.errors import Code, Failure
from dfs.runtime import Env


@dataclass(slots=True, eq=False)
class _Watched:
    server: int
    began: float
    scope: trio.CancelScope
    expired: bool = False


class Patience:
    """Watches attempts. One task for all, which sleeps until the earliest may be given up."""

    def __init__(self, env: Env, servers: Servers, silence_s: float) -> None:
        self._env, self._servers, self._silence_s = env, servers, silence_s
        self._watched: dict[_Watched, None] = {}
        self._begun = trio.Event()

    @contextmanager
    def watch(self, server: int, about: str) -> Iterator[None]:
        """Run the body; Failure(TIMEOUT) when the server falls silent. `about` names it."""
        with trio.CancelScope() as scope:
            watched = _Watched(server, self._env.clock.monotonic(), scope)
            self._watched[watched] = None
            self._begun.set()
            try:
                yield
            finally:
                del self._watched[watched]
        if watched.expired and scope.cancelled_caught:
            raise Failure(Code.TIMEOUT, f"{about} has been silent for {self._silence_s:g} s")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not self._watched:
                self._begun = trio.Event()
                await self._begun.wait()
            now = self._env.clock.monotonic()
            await self._env.clock.sleep(max(0.0, self._earliest() - now))
            now = self._env.clock.monotonic()
            for watched in self._watched:
                if self._gives_up_at(watched) <= now:
                    watched.expired = True
                    watched.scope.cancel()

    def _earliest(self) -> float:
        return min(
            (self._gives_up_at(w) for w in self._watched if not w.expired),
            default=self._env.clock.monotonic() + self._silence_s,
        )

    def _gives_up_at(self, watched: _Watched) -> float:
        return max(watched.began, self._servers.last_worked(watched.server)) + self._silence_s
