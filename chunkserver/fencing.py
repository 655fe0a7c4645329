"""What the source of a settling, and a server that copies a chunk, ask of this server's replicas.

Owns the answers to `FenceReplica`, `SettleBlocks`, `EndSettling`, `ReadFenced` and `ReadTable` (see
`dfs.messages.chunks`), each under the chunk's turn. A fenced replica serves nobody: `chain` refuses
whatever a client or another link asks of it. Invariant: the fence is durable before it is answered,
so what was on its way under an older version can never be applied behind it, not even after a
crash. Who compares, and what is sent, is `settling`'s and `fetching`'s.
"""

from __future__ import annotations

import errno
from functools import partial

from chunkserver import format as layout
from chunkserver.chain import check_version
from chunkserver.replica import Replica
from chunkserver.store import Entry, Store
from dfs.checksums import unpack_checksums, verify
from dfs.errors import Code, Failure
from dfs.layout import BLOCKS_PER_CHUNK
from dfs.messages.chunks import (
    ChunkData,
    EndSettling,
    FenceReplica,
    ReadFenced,
    ReadTable,
    ReplicaState,
    ReplicaTable,
    SettleBlocks,
)
from dfs.messages.common import Done
from dfs.rpc import Handlers, Reply, Request

BITMAP_BYTES = BLOCKS_PER_CHUNK // 8


class Fencing:
    """Handlers over the replicas of one store; `address` names the server in errors."""

    def __init__(self, store: Store, address: str) -> None:
        self._store, self._address = store, address

    def handlers(self) -> Handlers:
        return {
            FenceReplica: self._fence,
            SettleBlocks: self._blocks,
            EndSettling: self._end,
            ReadFenced: self._read,
            ReadTable: self._table,
        }

    async def fence(self, handle: int, version: int, *, joining: bool) -> Reply:
        """See `FenceReplica`; the source asks it of itself."""
        async with self._store.turn(handle):
            entry = await self._to_fence(handle, version, joining)
            if entry.version > version:
                raise self._stale(entry, version)
            if entry.version < version or entry.state is not ReplicaState.SETTLED:
                state = max(entry.state, ReplicaState.UNSETTLED)
                state = ReplicaState.JOINING if joining else state
                await self._store.change(entry, partial(_fence, version, state), waits=True)
            return await self._store.run(entry, describe)

    async def _to_fence(self, handle: int, version: int, joining: bool) -> Entry:
        if joining:
            await self._make_way(handle)
            if not self._store.has(handle):
                return await self._store.create(handle, version, 0, ReplicaState.JOINING)
        return self._store.find(handle)

    async def _make_way(self, handle: int) -> None:
        """Set aside a replica whose header the disk cannot read: no copy could take its place."""
        if not self._store.has(handle):
            return
        entry = self._store.find(handle)
        try:
            await self._store.run(entry, describe)
        except Failure as error:
            if self._store.has(handle):
                if error.errno != errno.EIO or not entry.directory.writable:
                    raise
                await self._store.lose(entry, error.message)

    async def _fence(self, request: Request) -> Reply:
        message: FenceReplica = request.message
        return await self.fence(message.handle, message.version, joining=message.joining)

    async def _blocks(self, request: Request) -> Done:
        message: SettleBlocks = request.message
        about = f"{self._address}: blocks of chunk {message.handle:x}"
        verify(request.payload, message.offset, message.checksums, about)
        async with self._store.turn(message.handle):
            entry = self._fenced(message.handle, message.version)
            if entry.length_bytes > message.length_bytes:
                shrink = partial(_shrink, message.length_bytes)
                await self._store.change(entry, shrink, waits=True)
            self._store.repair_bytes += len(request.payload)
            await self._store.overwrite(entry, message.offset, request.payload, message.checksums)
        return Done()

    async def _end(self, request: Request) -> Done:
        message: EndSettling = request.message
        damaged = blocks_of(message.damaged)
        entries = unpack_checksums(bytes(request.payload))
        if len(entries) != len(damaged):
            raise Failure(Code.BAD_MESSAGE, f"chunk {message.handle:x}: {len(entries)} checksums")
        async with self._store.turn(message.handle):
            entry = self._store.find(message.handle)
            if entry.version != message.version or entry.state is not ReplicaState.SETTLED:
                entry = self._fenced(message.handle, message.version)
                marks = list(zip(damaged, entries, strict=True))
                work = partial(_end, message.length_bytes, marks)
                await self._store.change(entry, work, waits=True)
            await self._serve(entry, message)
        return Done()

    async def _serve(self, entry: Entry, message: EndSettling) -> None:
        """Serve from now on, when the contents are what the source says."""
        length, digest = await self._store.run(entry, lambda r: (r.length_bytes, r.digest()))
        if (length, digest) != (message.length_bytes, message.digest):
            text = f"{self._address}: chunk {entry.handle:x} differs from the source after settling"
            raise Failure(Code.CORRUPT, text, detail=self._address)
        if entry.state is not ReplicaState.SETTLED:
            work = partial(_serve, message.generation)
            await self._store.change(entry, work, waits=True)
            await self._store.sync_name(entry)

    async def _read(self, request: Request) -> Reply:
        message: ReadFenced = request.message
        async with self._store.turn(message.handle):
            entry = self._store.find(message.handle)
            if entry.version != message.version:
                raise self._stale(entry, message.version)
            answer = await self._store.run(
                entry, lambda r: r.read(message.offset, message.length_bytes), waits=True
            )
        assert answer is not None  # only cached reads give None
        return Reply(ChunkData(answer[1]), (answer[0],) if len(answer[0]) else ())

    async def _table(self, request: Request) -> Reply:
        message: ReadTable = request.message
        async with self._store.turn(message.handle):
            entry = self._store.find(message.handle)
            check_version(message.handle, message.version, entry.stamp())
            return await self._store.run(entry, describe)

    # -- inside

    def _fenced(self, handle: int, version: int) -> Entry:
        entry = self._store.find(handle)
        if entry.version != version or entry.state is ReplicaState.SETTLED:
            raise self._stale(entry, version)
        return entry

    def _stale(self, entry: Entry, version: int) -> Failure:
        text = (
            f"chunk {entry.handle:x} is {entry.state.name.lower()} at version {entry.version}"
            f" on {self._address}, not to be settled at {version}"
        )
        return Failure(Code.STALE_VERSION, text, detail=self._address)


def bitmap(blocks: int) -> bytes:
    """A bitmap as it travels; nothing for an empty one."""
    return blocks.to_bytes(BITMAP_BYTES, "big") if blocks else b""


def blocks_of(packed: bytes) -> list[int]:
    """The blocks in a bitmap that travelled, rising."""
    bits = int.from_bytes(packed, "big")
    return [block for block in range(bits.bit_length()) if bits >> block & 1]


def _fence(version: int, state: ReplicaState, replica: Replica) -> None:
    replica.fence(version, state)


def _shrink(length_bytes: int, replica: Replica) -> None:
    replica.shrink(length_bytes)


def describe(replica: Replica) -> Reply:
    """A replica's `ReplicaTable`."""
    table = ReplicaTable(
        replica.generation,
        replica.length_bytes,
        replica.state,
        bitmap(replica.damaged),
        bitmap(replica.doubtful),
    )
    packed = replica.packed_table()
    return Reply(table, (packed,) if packed else ())


def _end(length_bytes: int, damaged: list[tuple[int, int]], replica: Replica) -> None:
    replica.shrink(length_bytes)
    for block, entry in damaged:
        if block < layout.block_count(length_bytes):
            replica.mark_damaged(block, entry)


def _serve(generation: int, replica: Replica) -> None:
    replica.serve(generation)
