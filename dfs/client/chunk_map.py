"""Where the chunks of one open file are: what the master said, kept while the file is open.

Owns the cached locations and which fresh chunks this client has written since: as long as the
master calls a chunk fresh and nothing was acknowledged here, a write makes the replicas that are
missing. A replica that should exist is never made anew, it would hide what was lost behind zeros.
"""

from __future__ import annotations

import dataclasses

import trio

from dfs.client.services import Services
from dfs.errors import Code, Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.metadata import ChunkLocation, ChunkMap, GetChunks
from dfs.messages.operations import AllocateChunks, DropReplicas

FETCH_CHUNKS = 16  # locations asked for at a time: 1 GiB of file


class ChunkLocations:
    """The locations of one file's chunks."""

    def __init__(self, services: Services, inode: int, committed_bytes: int) -> None:
        self._services = services
        self.inode = inode
        self.committed_bytes = committed_bytes  # no chunk wholly beyond holds anybody's data
        self._known: dict[int, ChunkLocation | None] = {}  # None: a hole
        self._written: dict[int, int] = {}  # index -> handle of fresh chunks, to be told as well
        # By index, to be told to the master: generation, handle and losses of cuts carried out.
        self._cuts_done: dict[int, tuple[int, int, int]] = {}
        self._asking = trio.Lock()

    def current(self, index: int) -> ChunkLocation | None:
        """The location as known now, without asking."""
        return self._known.get(index)

    def is_current(self, location: ChunkLocation) -> bool:
        """Whether that is still the chunk's place and version, whatever became of a cut."""
        known = self._known.get(location.index)
        return known is not None and _identity(known) == _identity(location)

    def is_fresh(self, location: ChunkLocation) -> bool:
        """Whether no write to the chunk was acknowledged, as far as is known here."""
        return location.fresh and self._written.get(location.index) != location.handle

    def written(self, location: ChunkLocation) -> None:
        """A write to the chunk was acknowledged."""
        if location.fresh:
            self._written[location.index] = location.handle

    def forget(self) -> None:
        """The file has changed elsewhere: ask again."""
        self._known.clear()

    async def for_read(self, index: int) -> ChunkLocation | None:
        """The chunk's location; None for a hole."""
        if index not in self._known:
            async with self._asking:
                if index not in self._known:
                    await self._fetch(index, FETCH_CHUNKS)
        return self._known[index]

    async def for_write(self, index: int) -> ChunkLocation:
        """The chunk's location, allocated when there is none. Raises the master's Failure."""
        location = self._known.get(index)
        if location is not None:
            return location
        async with self._asking:
            location = self._known.get(index)
            if location is None and index not in self._known and not self._beyond_end(index):
                await self._fetch(index, 1)
                location = self._known[index]
            return location or await self._allocate(index)

    async def refetch(self, old: ChunkLocation) -> bool:
        """Ask the master again where the chunk is; whether that is news."""
        async with self._asking:
            if self.is_current(old):
                await self._fetch(old.index, 1)
        return not self.is_current(old)

    async def drop(self, old: ChunkLocation, failed: tuple[int, ...]) -> bool:
        """Take failed servers out of the chunk's replicas; whether the location has changed.

        The master may refuse, by changing nothing, when too few would be left.
        """
        operation = DropReplicas(self.inode, old.index, old.handle, old.version, failed)
        answer = await self._services.session.perform(operation)
        assert isinstance(answer, ChunkMap)
        if self.is_current(old):
            self._take(answer, old.index, 1)
        return not self.is_current(old)

    def cut_done(self, old: ChunkLocation) -> ChunkLocation:
        """The pending cut has been carried out on every replica."""
        self._cuts_done[old.index] = old.generation, old.handle, old.losses
        location = dataclasses.replace(old, cut_bytes=None)
        if self.is_current(old):
            self._known[old.index] = location
        return location

    def cuts_to_report(self) -> tuple[int, ...]:
        """Index and generation, in turn, of the cuts carried out and not yet reported."""
        done = sorted(self._cuts_done.items())
        return tuple(number for index, cut in done for number in (index, cut[0]))

    def cuts_reported(self, cuts: tuple[int, ...]) -> None:
        """The master knows of these."""
        for index, generation in zip(cuts[::2], cuts[1::2], strict=True):
            done = self._cuts_done.get(index)
            if done is not None and done[0] == generation:
                del self._cuts_done[index]

    def written_to_report(self) -> tuple[int, ...]:
        """Index and handle, in turn, of the fresh chunks written and not yet reported."""
        return tuple(number for pair in sorted(self._written.items()) for number in pair)

    def written_reported(self, written: tuple[int, ...]) -> None:
        """The master knows of these."""
        for index, handle in zip(written[::2], written[1::2], strict=True):
            if self._written.get(index) == handle:
                del self._written[index]
            location = self._known.get(index)
            if location is not None and location.handle == handle:
                self._known[index] = dataclasses.replace(location, fresh=False)

    def _beyond_end(self, index: int) -> bool:
        return index * CHUNK_BYTES >= self.committed_bytes

    async def _fetch(self, index: int, count: int) -> None:
        request = GetChunks(self.inode, index, count)
        answer = await self._services.leader.call(request, ChunkMap)
        self._take(answer, index, count)

    async def _allocate(self, index: int) -> ChunkLocation:
        avoid = self._services.servers.to_avoid()
        operation = AllocateChunks(self.inode, index, 1, avoid)
        answer = await self._services.session.perform(operation)
        assert isinstance(answer, ChunkMap)
        self._take(answer, index, 1)
        location = self._known[index]
        if location is None:
            raise Failure(Code.BAD_MESSAGE, f"inode {self.inode}: chunk {index} was not allocated")
        return location

    def _take(self, answer: ChunkMap, first: int, count: int) -> None:
        """Learn the range from an answer; a cut that we carried out is no longer pending.

        Unless the replicas have lost something since: then it may be lost too, and is done again.
        """
        self._known.update(dict.fromkeys(range(first, first + count)))
        for chunk in answer.chunks:
            if not first <= chunk.index < first + count:
                continue
            done = self._cuts_done.get(chunk.index)
            if done == (chunk.generation, chunk.handle, chunk.losses):
                chunk = dataclasses.replace(chunk, cut_bytes=None)
            elif done is not None:
                del self._cuts_done[chunk.index]
            self._known[chunk.index] = chunk


def _identity(location: ChunkLocation) -> tuple[object, ...]:
    return location.handle, location.version, location.generation, location.replicas
