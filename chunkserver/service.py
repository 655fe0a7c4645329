"""Answers clients and other links: writes down the chain, reads, inspection.

A handler's synchronous prefix checks the message and takes the chunk's turn, so that arrival
decides the order; the rest runs in a task of its own, shielded, because a packet that has arrived
is carried through on every link even when its sender is gone. Order, versions and blame are
`chain`'s; files are `store`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import trio

from chunkserver import chain
from chunkserver.chain import ChainRequest, Turn, Window
from chunkserver.replica import Replica
from chunkserver.store import Entry, Store
from dfs.checksums import verify
from dfs.config import Chunkserver
from dfs.errors import Code, Failure
from dfs.messages.chunks import (
    ChunkData,
    CutChunk,
    InspectReplica,
    ReadChunk,
    ReplicaInfo,
    SyncChunk,
    WriteChunk,
)
from dfs.messages.common import Done
from dfs.rpc import Connection, Handlers, Pool, Reply, Request
from dfs.runtime import Buffer, Env

log = logging.getLogger(__name__)


class Service:
    """The data path of one chunkserver, reached at `address`."""

    def __init__(
        self, env: Env, config: Chunkserver, store: Store, pool: Pool, address: str
    ) -> None:
        self._env, self._limits, self._rpc = env, config.limits, config.rpc
        self._store, self._pool, self._address = store, pool, address
        self._windows: dict[str, Window] = {}
        self._broken_at: dict[str, float] = {}  # link -> when it failed last

    def handlers(self) -> Handlers:
        return {
            WriteChunk: self._write,
            SyncChunk: self._sync,
            CutChunk: self._cut,
            ReadChunk: self._read,
            InspectReplica: self._inspect,
        }

    # -- down the chain

    def _write(self, request: Request) -> Coroutine[Any, Any, Done]:
        message: WriteChunk = request.message
        chain.check_range(message, len(request.payload), self._limits.max_chain)
        about = f"{self._address}: packet for chunk {message.handle:x}"
        try:
            verify(request.payload, message.offset, message.checksums, about)
        except Failure as error:
            self._store.meter.damaged_packets += 1
            raise self._named(error) from None
        turn = self._store.turns.enter(message.handle)
        return self._write_in_turn(message, request.payload, turn)

    async def _write_in_turn(self, message: WriteChunk, payload: memoryview, turn: Turn) -> Done:
        async def admit() -> Entry:
            if message.create and not self._store.has(message.handle):
                version, generation = message.version, message.generation
                return await self._store.create(message.handle, version, generation)
            entry = self._store.find(message.handle)
            self._checked(partial(chain.check_write, message, entry.stamp()))
            return entry

        async def apply(entry: Entry) -> None:
            self._store.client_bytes += len(payload)
            await self._store.write(entry, message.offset, payload, message.checksums)

        await self._in_turn(
            message, (payload,), turn, admit, apply, changes=True, sync=message.sync
        )
        return Done()

    def _cut(self, request: Request) -> Coroutine[Any, Any, Done]:
        message: CutChunk = request.message
        turn = self._store.turns.enter(message.handle)
        return self._cut_in_turn(message, turn)

    async def _cut_in_turn(self, message: CutChunk, turn: Turn) -> Done:
        async def admit() -> Entry:
            if message.create and not self._store.has(message.handle):
                version, generation = message.version, message.generation
                return await self._store.create(message.handle, version, generation)
            return self._with_version(message.handle, message.version)

        async def apply(entry: Entry) -> None:
            if message.generation > entry.generation:
                work = partial(_cut, message.generation, message.length_bytes)
                await self._store.change(entry, work)

        await self._in_turn(message, (), turn, admit, apply, changes=True, sync=False)
        return Done()

    def _sync(self, request: Request) -> Coroutine[Any, Any, Done]:
        message: SyncChunk = request.message
        turn = self._store.turns.enter(message.handle)
        return self._sync_in_turn(message, turn)

    async def _sync_in_turn(self, message: SyncChunk, turn: Turn) -> Done:
        async def admit() -> Entry:
            return self._with_version(message.handle, message.version)

        async def apply(_: Entry) -> None: ...

        await self._in_turn(message, (), turn, admit, apply, changes=False, sync=True)
        return Done()

    async def _in_turn(
        self,
        message: ChainRequest,
        payload: Sequence[Buffer],
        turn: Turn,
        admit: Callable[[], Awaitable[Entry]],
        apply: Callable[[Entry], Awaitable[None]],
        *,
        changes: bool,
        sync: bool,
    ) -> None:
        """Wait for the turn, admit, then apply here and down the chain at the same time."""
        arrived = self._env.clock.monotonic()
        try:
            await turn.wait()
            with trio.CancelScope(shield=True):
                entry = await admit()
            here = _Here(self._store, entry, turn, apply, changes=changes, sync=sync)
            if not message.chain:
                with trio.CancelScope(shield=True):
                    await here.run()
            else:
                await self._here_and_there(message, payload, here, arrived)
            here.raise_failure()
        finally:
            turn.leave()

    async def _here_and_there(
        self, message: ChainRequest, payload: Sequence[Buffer], here: _Here, arrived: float
    ) -> None:
        """Under the turn, so that nothing for this chunk overtakes, a place in the window and a
        connection; then the call, which sends before it waits; only after that does the task that
        applies, and ends the turn, get to run.
        """
        link, forwarded = chain.for_next_link(message)
        size = sum(len(buffer) for buffer in payload)
        window = self._window(link)
        await window.enter(size)
        try:
            if self._broken_at.get(link, arrived) > arrived:
                raise Failure(Code.CONNECTION_LOST, "it failed while this request waited")
            connection = await self._pool.get(link)
            timeout_s = chain.link_timeout_s(
                len(message.chain), self._limits.downstream_timeout_s, self._limits.hop_margin_s
            )
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(here.run)
                    await self._call(connection, forwarded, payload, timeout_s, here)
        except Failure as error:
            here.link_failure = error
        finally:
            window.leave(size)
        self._judge_link(here, link)

    async def _call(
        self,
        connection: Connection,
        message: ChainRequest,
        payload: Sequence[Buffer],
        timeout_s: float,
        here: _Here,
    ) -> None:
        try:
            await connection.call(message, payload, timeout_s=timeout_s)
        except Failure as error:
            here.link_failure = error

    def _judge_link(self, here: _Here, link: str) -> None:
        """Say whose fault a failure behind this link is; what waits for a dead link fails too."""
        if here.link_failure is None:
            return
        here.link_failure = chain.blame(here.link_failure, link)
        self._store.meter.broken_links += here.link_failure.code is Code.CHAIN_BROKEN
        log.warning("%s: %s", self._env.name, here.link_failure)
        if here.changes:
            self._store.may_differ(here.entry, here.link_failure.detail)
        if here.link_failure.code is Code.CHAIN_BROKEN and here.link_failure.detail == link:
            self._broken_at[link] = self._env.clock.monotonic()

    def _window(self, link: str) -> Window:
        if link not in self._windows:
            requests = max(1, self._rpc.max_in_flight // 2)
            self._windows[link] = Window(requests, self._rpc.max_queued_bytes // 2)
        return self._windows[link]

    # -- reading

    def _read(self, request: Request) -> Reply | Coroutine[Any, Any, Reply]:
        message: ReadChunk = request.message
        if message.offset < 0 or not 0 <= message.length_bytes <= self._rpc.max_payload_bytes:
            most = self._rpc.max_payload_bytes
            raise Failure(Code.BAD_MESSAGE, f"a read has {most} bytes at most")
        entry = self._with_version(message.handle, message.version)
        replica, lane = entry.replica, entry.directory.lane
        if replica is not None and lane.is_fast and not self._store.turns.busy(message.handle):
            work = partial(_read_cached, message.offset, message.length_bytes)
            answer = self._store.run_inline(entry, replica, work)
            if answer is not None:
                self._store.client_bytes += len(answer[0])
                return _reply(answer)
        return self._read_from_disk(message, entry)

    async def _read_from_disk(self, message: ReadChunk, entry: Entry) -> Reply:
        """Wait for the disk without the turn, then read from the page cache under it."""
        warmed = await self._store.warm(entry, message.offset, message.length_bytes)
        turn = self._store.turns.enter(message.handle)
        try:
            await turn.wait()
            entry = self._with_version(message.handle, message.version)
            work = partial(_read, message.offset, message.length_bytes)
            answer = await self._store.run(entry, work, waits=not warmed)
            self._store.client_bytes += len(answer[0])
            return _reply(answer)
        finally:
            turn.leave()

    async def _inspect(self, request: Request) -> ReplicaInfo:
        message: InspectReplica = request.message
        turn = self._store.turns.enter(message.handle)
        try:
            await turn.wait()
            return await self._store.run(self._store.find(message.handle), _inspect)
        finally:
            turn.leave()

    # -- inside

    def _with_version(self, handle: int, version: int) -> Entry:
        entry = self._store.find(handle)
        self._checked(partial(chain.check_version, handle, version, entry.stamp()))
        return entry

    def _checked(self, check: Callable[[], None]) -> None:
        try:
            check()
        except Failure as error:
            raise self._named(error) from None

    def _named(self, error: Failure) -> Failure:
        return Failure(error.code, error.message, errno=error.errno, detail=self._address)


class _Here:
    """What one request does on this link, and how it and the next link fared."""

    def __init__(
        self,
        store: Store,
        entry: Entry,
        turn: Turn,
        apply: Callable[[Entry], Awaitable[None]],
        *,
        changes: bool,
        sync: bool,
    ) -> None:
        self._store, self.entry, self._turn = store, entry, turn
        self._apply, self._may_change, self._sync = apply, changes, sync
        self.changes = False  # something has been, or may have been, changed here
        self.failure: Failure | None = None
        self.link_failure: Failure | None = None

    async def run(self) -> None:
        """Apply, end the turn, and sync if that is asked for."""
        self.changes = self._may_change
        try:
            await self._apply(self.entry)
            self._turn.leave()
            if self._sync:
                await self._store.syncing.sync(self.entry.handle)
        except Failure as error:
            self.failure = error
        finally:
            self._turn.leave()

    def raise_failure(self) -> None:
        """This link's own failure first: it is the nearer one."""
        failure = self.failure or self.link_failure
        if failure is not None:
            raise failure


def _cut(generation: int, length_bytes: int, replica: Replica) -> None:
    replica.cut(generation, length_bytes)


Answer = tuple[memoryview, bytes]


def _read_cached(offset: int, length_bytes: int, replica: Replica) -> Answer | None:
    return replica.read(offset, length_bytes, cached=True)


def _read(offset: int, length_bytes: int, replica: Replica) -> Answer:
    answer = replica.read(offset, length_bytes)
    assert answer is not None  # only cached reads give None
    return answer


def _reply(answer: Answer) -> Reply:
    data, packed = answer
    return Reply(ChunkData(packed), (data,) if len(data) else ())


def _inspect(replica: Replica) -> ReplicaInfo:
    return ReplicaInfo(
        replica.handle,
        replica.version,
        replica.generation,
        replica.length_bytes,
        replica.digest(),
        replica.state,
    )
