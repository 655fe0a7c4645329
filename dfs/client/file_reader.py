"""The read side of one open file: cache, read-ahead, and this client's own unsent writes on top.

A fetch lays the writes that are unsent when it begins over what the replicas answer. A write
that comes later cuts what it covers out of the cache and disowns the fetches under way there: they
still answer the readers that wait for them (whose reads began before that write returned) but no
later reader, and are not cached. So a read sees every write that returned before it began.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from dfs.client.chunk_map import ChunkLocations
from dfs.client.chunk_read import ChunkReader
from dfs.client.dirty import Piece
from dfs.client.read_ahead import ReadAhead
from dfs.client.services import Services
from dfs.errors import Failure
from dfs.layout import BLOCK_BYTES, CHUNK_BYTES
from dfs.runtime.network import Buffer


@dataclass(slots=True, eq=False)
class _Fetch:
    """A slot's data on its way here."""

    slot: int
    start: int
    stop: int
    done: trio.Event = field(default_factory=trio.Event)
    data: memoryview = field(default_factory=lambda: memoryview(b""))
    failure: Failure | None = None


class FileReader:
    """Reads one file; `overlay` gives the unsent writes over a range."""

    def __init__(
        self,
        services: Services,
        inode: int,
        locations: ChunkLocations,
        overlay: Callable[[int, int], list[Piece]],
    ) -> None:
        self._services = services
        self._inode = inode
        self._overlay = overlay
        self._chunks = ChunkReader(services, locations)
        self._fetches: dict[int, _Fetch] = {}  # by slot; those that later readers may join

    async def read(self, ahead: ReadAhead, start: int, stop: int, size_bytes: int) -> Buffer:
        """Bytes [start, stop), all of them below `size_bytes`, the file's size. Raises Failure."""
        window = ahead.note(start, stop)
        if window:
            self._fetch_ahead(start, min(stop + window, size_bytes), size_bytes)
        parts = [
            await self._piece(slot, low, high)
            for slot, low, high in self._services.grid.pieces(start, stop)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def written(self, slot: int, start: int, stop: int) -> None:
        """A write to that range has been taken."""
        fetch = self._fetches.get(slot)
        if fetch is not None and fetch.start < stop and start < fetch.stop:
            del self._fetches[slot]
        self._services.cache.cut_out(self._inode, slot, start, stop)

    def forget(self) -> None:
        """The file's data has changed otherwise."""
        self._fetches.clear()
        self._services.cache.drop(self._inode)

    async def _piece(self, slot: int, start: int, stop: int) -> Buffer:
        """A range within one slot."""
        at_hand = await self._at_hand(slot, start, stop)
        if at_hand is not None:
            self._services.meter.cache_hits += 1
            return at_hand
        self._services.meter.cache_misses += 1
        return await self._fetched(start, stop)

    async def _at_hand(self, slot: int, start: int, stop: int) -> Buffer | None:
        """The range if it is cached, unsent, or on its way here already."""
        cached = self._services.cache.get(self._inode, slot, start, stop)
        if cached is not None:
            return cached  # no write has come since, and those before it are in it
        over = self._overlay(start, stop)
        if over and len(over[-1].data) == stop - start:
            return over[-1].data
        fetch = self._fetches.get(slot)
        if fetch is not None and fetch.start <= start and stop <= fetch.stop:
            await fetch.done.wait()
            if fetch.failure is None:
                return fetch.data[start - fetch.start : stop - fetch.start]
        return None

    async def _fetched(self, start: int, stop: int) -> Buffer:
        """A range of one chunk from a replica, under the writes unsent when this begins."""
        over = self._overlay(start, stop)
        index, within = divmod(start, CHUNK_BYTES)
        data = await self._chunks.read(index, within, stop - start)
        if not over:
            return data
        laid = bytearray(data)
        for piece in over:
            laid[piece.start - start : piece.stop - start] = piece.data
        return laid

    # -- reading ahead

    def _fetch_ahead(self, start: int, stop: int, size_bytes: int) -> None:
        grid, cache = self._services.grid, self._services.cache
        for slot in range(grid.slot_at(start), grid.slot_at(stop - 1) + 1):
            first, end = grid.bounds(slot)
            low = max(first, start - start % BLOCK_BYTES)
            high = min(end, size_bytes)
            cached = cache.get(self._inode, slot, max(low, start), high)
            if slot in self._fetches or cached is not None:
                continue
            if not cache.reserve(high - low):
                return
            fetch = self._fetches[slot] = _Fetch(slot, low, high)
            self._services.nursery.start_soon(self._run, fetch)

    async def _run(self, fetch: _Fetch) -> None:
        try:
            fetch.data = memoryview(await self._fetched(fetch.start, fetch.stop))
        except Failure as failure:
            fetch.failure = failure  # whoever needs the data asks again and hears of it
        finally:
            self._services.cache.unreserve(fetch.stop - fetch.start)
        if self._fetches.get(fetch.slot) is fetch:
            del self._fetches[fetch.slot]
            if fetch.failure is None:
                self._services.cache.put(self._inode, fetch.slot, fetch.start, fetch.data)
        fetch.done.set()
