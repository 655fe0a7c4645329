"""Which replicas are in use, and bringing them to rest: what was written becomes durable in time.

A replica is in use from its first change on, until a sync found that nothing was written since it
began: then its intent is empty, and a stop leaves no doubts about it. What was written a while ago
and is not at rest yet is synced here, one replica after the other, whether anybody asked for it or
not. A sync takes the chunk's turn twice and not in between, so that writes go on meanwhile.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

import trio

from chunkserver.datadir import DataDir
from chunkserver.replica import Replica
from dfs.errors import Failure
from dfs.runtime import Env

if TYPE_CHECKING:
    from chunkserver.store import Entry, Store

log = logging.getLogger(__name__)


class Syncing:
    """The replicas of one store that are not at rest."""

    def __init__(self, env: Env, store: Store, rest_after_s: float) -> None:
        self._env, self._store, self._rest_after_s = env, store, rest_after_s
        self._in_use: OrderedDict[int, float] = OrderedDict()  # handle -> since when
        self._work = trio.Event()

    def __len__(self) -> int:
        return len(self._in_use)

    def uses(self, handle: int) -> None:
        """The replica has changed, or was not at rest when it was found."""
        if handle not in self._in_use:
            self._in_use[handle] = self._env.clock.monotonic()
            self._work.set()

    def forget(self, handle: int) -> None:
        """The replica is gone."""
        self._in_use.pop(handle, None)

    async def run(self) -> None:
        """Bring replicas to rest when their time has come; for ever."""
        while True:
            if not self._in_use:
                self._work = trio.Event()
                await self._work.wait()
                continue
            handle, since = next(iter(self._in_use.items()))
            wait_s = since + self._rest_after_s - self._env.clock.monotonic()
            if wait_s > 0:
                await self._env.clock.sleep(wait_s)
            elif handle in self._in_use:
                await self._rest(handle)

    async def rest_all(self) -> None:
        """Bring all to rest now."""
        while self._in_use:
            await self._rest(next(iter(self._in_use)))

    async def _rest(self, handle: int) -> None:
        del self._in_use[handle]
        try:
            await self.sync(handle, clean=True)
        except Failure as error:
            # The next write, or the next start, takes it up.
            text, extra = "%s: replica %x not synced: %s", {"chunk": f"{handle:x}"}
            log.error(text, self._env.name, handle, error, extra=extra)

    async def sync(self, handle: int, *, clean: bool = False) -> None:
        """Make the replica durable: data, header, and the name of a new file.

        `clean`: and at rest, unless it is written meanwhile.
        """
        entry, replica, number = await self._begin(handle, wanted=clean)
        began = self._env.clock.monotonic()
        try:
            work = partial(_datasync, entry.directory, handle, replica, number)
            await entry.directory.lane.run(work, waits=True)
        except OSError as error:
            raise entry.directory.failure(error) from None
        finally:
            self._store.unpin(entry, replica)
        took_s = self._env.clock.monotonic() - began
        self._store.meter.syncs[entry.directory.path].observe(took_s)
        if number:
            await self._end(entry, replica, number, clean=clean)

    async def _begin(self, handle: int, *, wanted: bool) -> tuple[Entry, Replica, int]:
        async with self._store.turn(handle):
            entry = self._store.find(handle)
            entry.directory.must_be_writable()
            number = await self._store.run(entry, partial(_begin, wanted))
            assert entry.replica is not None
            entry.replica.pins += 1
            return entry, entry.replica, number

    async def _end(self, entry: Entry, replica: Replica, number: int, *, clean: bool) -> None:
        async with self._store.turn(entry.handle):
            if entry.replica is replica:
                await self._store.run(entry, lambda r: r.end_sync(number, clean=clean))
                if clean and replica.intent:
                    self.uses(entry.handle)


def _begin(wanted: bool, replica: Replica) -> int:
    """`wanted`: also where all is synced, so that the intent may go."""
    return replica.begin_sync(always=wanted and bool(replica.intent))


def _datasync(directory: DataDir, handle: int, replica: Replica, number: int) -> None:
    if number:
        replica.datasync()
    directory.sync_entry(handle)
