"""The source's part of a settling: make the other replicas of a chunk equal to the one here.

Carries out the leader's `SettleChunk` (`dfs.messages.chunks` describes the protocol). In turn:
fence this replica and all others; take from them what is damaged or doubtful here; send each what
it lacks and end it; serve again, last of all. No turn is held while the others are asked: the
fence keeps everybody away. One settling of a chunk at a time; whatever goes wrong leaves fences
standing, and the leader orders it again under a higher version.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import trio

from chunkserver import chain
from chunkserver.comparison import Cure, Table, cures, missing, runs
from chunkserver.fencing import Fencing, bitmap, describe
from chunkserver.replica import Replica
from chunkserver.store import Entry, Store
from dfs.checksums import checksum, verify
from dfs.config import Chunkserver
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES
from dfs.messages.chunks import (
    EndSettling,
    FenceReplica,
    ReadFenced,
    ReplicaState,
    SettleBlocks,
)
from dfs.messages.cluster import SettleChunk, Settled
from dfs.rpc import Pool, Request
from dfs.runtime import Buffer, Env

log = logging.getLogger(__name__)

T = TypeVar("T")


class Settler:
    """Settles chunks of which this server, reached at `address`, is the source."""

    def __init__(
        self,
        env: Env,
        config: Chunkserver,
        store: Store,
        fencing: Fencing,
        pool: Pool,
        address: str,
    ) -> None:
        self._env, self._limits = env, config.limits
        self._store, self._fencing, self._pool, self._address = store, fencing, pool, address
        self._under_way: dict[int, trio.Lock] = {}

    async def handle(self, request: Request) -> Settled:
        """The handler of `SettleChunk`."""
        message: SettleChunk = request.message
        lock = self._under_way.setdefault(message.handle, trio.Lock())
        try:
            async with lock:
                return await self._settle(message)
        finally:
            if not lock.locked():
                self._under_way.pop(message.handle, None)

    async def _settle(self, message: SettleChunk) -> Settled:
        entry = self._store.find(message.handle)
        if entry.version == message.version and entry.state is ReplicaState.SETTLED:
            return await self._result(entry, 0)  # the answer to an earlier order was lost
        await self._fence_self(entry, message.version)
        peers = await self._fence_others(message)
        await self._cure(entry, message.version, peers)
        own = await self._own_table(entry)
        work = [partial(self._equalize, entry, message.version, own, peer) for peer in peers]
        copied = await _all_of(work)
        async with self._store.turn(entry.handle):
            self._must_be_fenced(entry, message.version)
            await self._store.change(entry, partial(_serve, own.generation), waits=True)
        return await self._result(entry, sum(copied))

    async def _result(self, entry: Entry, copied_bytes: int) -> Settled:
        async with self._store.turn(entry.handle):
            length, digest, damaged = await self._store.run(entry, _outcome)
        return Settled(length, digest, copied_bytes, bitmap(damaged))

    # -- fences

    async def _fence_self(self, entry: Entry, version: int) -> None:
        if entry.state is ReplicaState.JOINING:
            text = f"{self._address}: chunk {entry.handle:x} is not complete here: no source"
            raise Failure(Code.NO_REPLICA, text, detail=self._address)
        await self._fencing.fence(entry.handle, version, joining=False)

    def _must_be_fenced(self, entry: Entry, version: int) -> None:
        if entry.version != version:
            text = f"{self._address}: chunk {entry.handle:x} went on to version {entry.version}"
            raise Failure(Code.STALE_VERSION, text, detail=self._address)

    async def _fence_others(self, message: SettleChunk) -> Sequence[Table]:
        return await _all_of([partial(self._fence, message, address) for address in message.chain])

    async def _fence(self, message: SettleChunk, address: str) -> Table:
        asked = FenceReplica(message.handle, message.version, address in message.joining)
        answer, packed = await self._ask(address, asked)
        return Table.of(address, answer, packed)

    async def _ask(self, address: str, message: object, payload: Buffer = b"") -> tuple[Any, bytes]:
        """A peer's answer and its payload. A failure names the peer in `detail`."""
        timeout_s = self._limits.downstream_timeout_s
        try:
            buffers = (payload,) if len(payload) else ()
            received = await self._pool.call(address, message, buffers, timeout_s=timeout_s)
        except Failure as error:
            raise chain.blame(error, address) from None
        return received.message, bytes(received.payload)

    # -- this replica first

    async def _own_table(self, entry: Entry) -> Table:
        async with self._store.turn(entry.handle):
            reply = await self._store.run(entry, describe)
        return Table.of(self._address, reply.message, b"".join(reply.payload))

    async def _cure(self, entry: Entry, version: int, peers: Sequence[Table]) -> None:
        """Take from the others what is not good here; what nobody has whole stays damaged."""
        for cure in cures(await self._own_table(entry), peers):
            for address in cure.addresses:
                if await self._taken(entry, version, cure, address):
                    break

    async def _taken(self, entry: Entry, version: int, cure: Cure, address: str) -> bool:
        offset = cure.block * BLOCK_BYTES
        asked = ReadFenced(entry.handle, version, offset, cure.length_bytes)
        about = f"block {cure.block} of chunk {entry.handle:x} from {address}"
        try:
            answer, data = await self._ask(address, asked)
            if len(data) != cure.length_bytes:
                raise Failure(Code.CORRUPT, f"{about}: {len(data)} bytes", detail=address)
            verify(data, offset, answer.checksums, about)
        except Failure as error:
            log.warning("%s: not mended: %s", self._env.name, error)
            return False
        async with self._store.turn(entry.handle):
            self._must_be_fenced(entry, version)
            await self._store.overwrite(entry, offset, memoryview(data), answer.checksums)
        return True

    # -- then the others

    async def _equalize(self, entry: Entry, version: int, own: Table, peer: Table) -> int:
        """Send a peer what it lacks, and end its settling; the bytes sent."""
        if peer.state == ReplicaState.SETTLED:  # an earlier attempt has ended there
            if not peer.is_like(own):
                text = f"chunk {entry.handle:x} serves version {version} at {peer.address} already"
                raise Failure(Code.STALE_VERSION, text, detail=peer.address)
            return 0
        blocks, copied = missing(own, peer), 0
        for offset, length in runs(blocks, own.length_bytes, self._limits.settle_packet_bytes):
            await self._send(entry, version, own, peer.address, offset, length)
            copied += length
        await self._ask(peer.address, *_ending(entry.handle, version, own))
        return copied

    async def _send(
        self, entry: Entry, version: int, own: Table, address: str, offset: int, length: int
    ) -> None:
        async with self._store.turn(entry.handle):
            self._must_be_fenced(entry, version)
            answer = await self._store.run(entry, partial(_read, offset, length), waits=True)
        data, packed = answer
        message = SettleBlocks(entry.handle, version, offset, packed, own.length_bytes)
        self._store.repair_bytes += length
        await self._ask(address, message, data)


def _ending(handle: int, version: int, own: Table) -> tuple[EndSettling, bytes]:
    """What ends a peer's settling, and the payload that goes with it."""
    damaged = sorted(own.damaged)
    digest = checksum(struct.pack(f">{len(own.entries)}Q", *own.entries))
    marks = bitmap(sum(1 << block for block in damaged))
    ending = EndSettling(handle, version, own.generation, own.length_bytes, digest, marks)
    return ending, struct.pack(f">{len(damaged)}Q", *(own.entries[block] for block in damaged))


def _serve(generation: int, replica: Replica) -> None:
    replica.serve(generation)


def _outcome(replica: Replica) -> tuple[int, int, int]:
    return replica.length_bytes, replica.digest(), replica.damaged


def _read(offset: int, length_bytes: int, replica: Replica) -> tuple[memoryview, bytes]:
    """Blocks to send, verified: damage must not travel, it is cured by the next attempt."""
    return replica.read_verified(offset, length_bytes)


async def _all_of(works: Sequence[Callable[[], Awaitable[T]]]) -> Sequence[T]:
    """The results of all, done at the same time; the first failure, in their order, when all ended.

    Nobody is cancelled in the middle: a peer's failure is no reason to leave another half done.
    """
    results: dict[int, T] = {}
    failures: dict[int, Failure] = {}

    async def run(number: int, work: Callable[[], Awaitable[T]]) -> None:
        try:
            results[number] = await work()
        except Failure as error:
            failures[number] = error

    async with trio.open_nursery() as nursery:
        for number, work in enumerate(works):
            nursery.start_soon(run, number, work)
    if failures:
        raise failures[min(failures)]
    return [results[number] for number in range(len(works))]
