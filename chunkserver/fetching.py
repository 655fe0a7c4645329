"""Copying a chunk from another server into a new replica, as the leader orders (`FetchReplica`).

The replica is JOINING all the while and serves nobody; a settling brings what was written meanwhile
and makes it one of the chunk's replicas. What is here already, from an earlier attempt or from
before this server was dropped, is kept where its checksums match. The copy is paced, so that
clients of both servers come first; it ends with the order, or with its connection.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chunkserver import chain
from chunkserver.comparison import Table, missing, runs
from chunkserver.fencing import Fencing
from chunkserver.store import Entry, Store
from dfs.checksums import verify
from dfs.config import Chunkserver
from dfs.errors import Code, Failure
from dfs.messages.chunks import ReadChunk, ReadTable, ReplicaState
from dfs.messages.cluster import FetchReplica
from dfs.messages.common import Done
from dfs.rpc import Pool, Request
from dfs.runtime import Env

log = logging.getLogger(__name__)


class Fetcher:
    """Makes new replicas on this server. `busy` counts the copies of each chunk under way."""

    def __init__(
        self, env: Env, config: Chunkserver, store: Store, fencing: Fencing, pool: Pool
    ) -> None:
        self._env, self._limits = env, config.limits
        self._store, self._fencing, self._pool = store, fencing, pool
        self.busy: dict[int, int] = {}

    async def handle(self, request: Request) -> Done:
        """The handler of `FetchReplica`. Raises the last source's Failure when none could serve."""
        message: FetchReplica = request.message
        failure = Failure(Code.BAD_MESSAGE, f"chunk {message.handle:x}: no source was named")
        with self._counted(message.handle):
            for source in message.sources:
                try:
                    await self._fetch(message, source)
                    return Done()
                except Failure as error:
                    failure = error
                    log.warning("%s: copy not made: %s", self._env.name, error)
        raise failure

    @contextmanager
    def _counted(self, handle: int) -> Iterator[None]:
        self.busy[handle] = self.busy.get(handle, 0) + 1
        try:
            yield
        finally:
            self.busy[handle] -= 1
            if not self.busy[handle]:
                del self.busy[handle]

    async def _fetch(self, message: FetchReplica, source: str) -> None:
        handle, version = message.handle, message.version
        answer, packed = await self._ask(source, ReadTable(handle, version))
        wanted = Table.of(source, answer, packed)
        self._refuse_member(handle, version)
        reply = await self._fencing.fence(handle, version, joining=True)
        mine = Table.of("", reply.message, b"".join(reply.payload))
        entry = self._store.find(handle)
        limit = self._limits.settle_packet_bytes
        for offset, length in runs(missing(wanted, mine), wanted.length_bytes, limit):
            began = self._env.clock.monotonic()
            await self._copy(entry, message, source, offset, length)
            if message.bytes_per_s:
                took_s = self._env.clock.monotonic() - began
                await self._env.clock.sleep(max(0.0, length / message.bytes_per_s - took_s))

    def _refuse_member(self, handle: int, version: int) -> None:
        """What is one of the chunk's replicas must not become one that does not count."""
        if self._store.has(handle):
            entry = self._store.find(handle)
            if entry.version >= version and entry.state is not ReplicaState.JOINING:
                text = f"chunk {handle:x} has a replica of version {entry.version} here already"
                raise Failure(Code.STALE_VERSION, text)

    async def _copy(
        self, entry: Entry, message: FetchReplica, source: str, offset: int, length: int
    ) -> None:
        asked = ReadChunk(message.handle, message.version, offset, length)
        answer, data = await self._ask(source, asked)
        verify(data, offset, answer.checksums, f"chunk {message.handle:x} from {source}")
        if not data:
            return  # the chunk was cut meanwhile; the settling will say where it ends
        self._store.repair_bytes += len(data)
        async with self._store.turn(message.handle):
            if entry.version != message.version or entry.state is not ReplicaState.JOINING:
                text = f"chunk {message.handle:x} went on to version {entry.version} here"
                raise Failure(Code.STALE_VERSION, text)
            whole = memoryview(data), answer.checksums
            await self._store.overwrite(entry, offset, *whole)

    async def _ask(self, address: str, message: object) -> tuple[Any, bytes]:
        timeout_s = self._limits.downstream_timeout_s
        try:
            received = await self._pool.call(address, message, timeout_s=timeout_s)
        except Failure as error:
            raise chain.blame(error, address) from None
        return received.message, bytes(received.payload)
