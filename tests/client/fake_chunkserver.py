"""A chunkserver in memory: `dfs.messages.chunks` over real RPC, and faults to order.

Keeps what is synced apart from what is written, so that a test can tell them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from dfs.checksums import piece_checksums, verify
from dfs.errors import Code, Failure
from dfs.messages.chunks import (
    CheckBlocks,
    ChunkData,
    CutChunk,
    InspectReplica,
    ReadChunk,
    ReplicaInfo,
    SyncChunk,
    WriteChunk,
)
from dfs.messages.common import Done
from dfs.rpc import Endpoint, Handlers, Pool, Reply, Request, serve
from dfs.runtime import Env
from tests.client.sparse import SparseBytes

LINK_TIMEOUT_S = 2.5


ChainRequest = WriteChunk | SyncChunk | CutChunk


@dataclass
class FakeReplica:
    version: int
    generation: int
    data: SparseBytes = field(default_factory=SparseBytes)
    synced: SparseBytes = field(default_factory=SparseBytes)
    synced_generation: int = 0

    def sync(self) -> None:
        self.synced, self.synced_generation = self.data.copy(), self.generation


Fault = Callable[[object], Failure | None]


class FakeChunkserver:
    """One server. `fault` is asked before each request; `hang` makes requests wait for ever."""

    def __init__(self, server: int) -> None:
        self.server = server
        self.address = ""
        self.replicas: dict[int, FakeReplica] = {}
        self.fault: Fault = lambda message: None
        self.hang = False
        self.corrupt_reads = False
        self.bytes_per_s = 0  # of writing; 0: at once
        self._writing = trio.Lock()
        self.requests: list[object] = []
        self._pool: Pool | None = None
        self._env: Env | None = None

    async def run(
        self,
        endpoint: Endpoint,
        listen: str,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled. Replicas outlive it, as on a disk, but for what is unsynced."""
        async with trio.open_nursery() as nursery:
            self._pool, self._env = Pool(endpoint, nursery), endpoint.env
            self.address = await nursery.start(serve, endpoint, listen, self._handlers())
            task_status.started(self.address)

    def _handlers(self) -> Handlers:
        return {
            WriteChunk: self._entering(self._write),
            SyncChunk: self._entering(self._sync),
            CutChunk: self._entering(self._cut),
            ReadChunk: self._entering(self._read),
            InspectReplica: self._entering(self._inspect),
            CheckBlocks: self._complaint,
        }

    def _complaint(self, request: Request) -> None:
        self.requests.append(request.message)

    def _entering(self, handle: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def enter(request: Request) -> object:
            self.requests.append(request.message)
            if self.hang:
                await trio.sleep_forever()
            failure = self.fault(request.message)
            if failure is not None:
                raise failure
            return await handle(request)

        return enter

    def _find(self, handle: int, version: int) -> FakeReplica:
        replica = self.replicas.get(handle)
        if replica is None:
            text = f"{self.address} has no replica of {handle:x}"
            raise Failure(Code.NO_REPLICA, text, detail=self.address)
        if replica.version != version:
            text = f"{self.address} has version {replica.version} of {handle:x}, not {version}"
            raise Failure(Code.STALE_VERSION, text, detail=self.address)
        return replica

    async def _write(self, request: Request) -> Done:
        message: WriteChunk = request.message
        data = bytes(request.payload)
        verify(data, message.offset, message.checksums, f"{self.address}: packet")
        if message.create and message.handle not in self.replicas:
            replica = FakeReplica(message.version, message.generation)
            self.replicas[message.handle] = replica
        replica = self._find(message.handle, message.version)
        if replica.generation != message.generation:
            raise Failure(Code.STALE_VERSION, "another generation", detail=self.address)
        if self.bytes_per_s and self._env is not None:
            async with self._writing:
                await self._env.clock.sleep(len(data) / self.bytes_per_s)
        replica.data.write(message.offset, data)
        await self._forward(message, (data,))
        if message.sync:
            replica.sync()
        return Done()

    async def _sync(self, request: Request) -> Done:
        message: SyncChunk = request.message
        replica = self._find(message.handle, message.version)
        await self._forward(message, ())
        replica.sync()
        return Done()

    async def _cut(self, request: Request) -> Done:
        message: CutChunk = request.message
        replica = self._find(message.handle, message.version)
        if replica.generation < message.generation:
            replica.generation = message.generation
            replica.data.truncate(min(replica.data.size, message.length_bytes))
        await self._forward(message, ())
        return Done()

    async def _forward(self, message: ChainRequest, payload: tuple[bytes, ...]) -> None:
        if not message.chain:
            return
        assert self._pool is not None
        onward = replace(message, chain=message.chain[1:])
        link = message.chain[0]
        try:
            # The nearer link gives up first, so that the right one is blamed.
            timeout_s = LINK_TIMEOUT_S - 0.5 / len(message.chain)
            await self._pool.call(link, onward, payload, timeout_s=timeout_s)
        except Failure as failure:
            if failure.code in (Code.CONNECTION_LOST, Code.TIMEOUT):
                raise Failure(Code.CHAIN_BROKEN, failure.message, detail=link) from None
            raise

    async def _read(self, request: Request) -> Reply:
        message: ReadChunk = request.message
        replica = self._find(message.handle, message.version)
        data = replica.data.read(message.offset, message.length_bytes)
        sums = piece_checksums(data, message.offset)
        if self.corrupt_reads and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        return Reply(ChunkData(sums), (data,) if data else ())

    async def _inspect(self, request: Request) -> ReplicaInfo:
        replica = self.replicas.get(request.message.handle)
        if replica is None:
            raise Failure(Code.NO_REPLICA, "none here")
        length = replica.data.size
        return ReplicaInfo(request.message.handle, replica.version, replica.generation, length, 0)
