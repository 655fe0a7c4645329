"""Writing to chunks along their chains, and what to do when a link fails.

A packet is sent until it is on every replica of the chunk's current set: a failed link is taken
out of the set by the master (`DropReplicas`), which raises the version, and what was not
acknowledged goes again under the new one; writing the same bytes twice is harmless. What cannot
be mended is waited for, `limits.retry_for_s` at most, then the write fails with EIO.

When whole servers are in doubt:
- A primary that goes on acknowledging things is slow, not dead (`patience`). When it is silent,
  every server of the chain is asked for a sign of life before one is blamed.
- A lost connection is dialled once more; not for a sync, though: the server may have come back
  without what it had only in its page cache, and then has nothing to sync.
- A sync that failed at a disk is not made good by one that succeeds there later: the first may have
  lost what the second then finds nothing of. Unless the chunk's replicas change, it is an error.
- A version that does not come to serve is waited for: the first for the whole timeout, later ones
  for a part of it, lest the writer undo what repair has just done.
- A full disk leaves the set only while two replicas remain; otherwise the writer gets ENOSPC.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from dfs.checksums import piece_checksums
from dfs.client.chunk_map import ChunkLocations
from dfs.client.dirty import Packet
from dfs.client.services import Services
from dfs.errors import Code, Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.chunks import CutChunk, InspectReplica, SyncChunk, WriteChunk
from dfs.messages.metadata import ChunkLocation, Replica
from dfs.rpc.retry import Backoff
from dfs.runtime.network import Buffer

log = logging.getLogger(__name__)

STALE_AGAIN = 0.125  # of the timeout, for versions after the first that does not come to serve
KEPT_WHEN_FULL = 2  # replicas that must remain when one leaves for want of space

_LINK_FAILED = (
    Code.CHAIN_BROKEN,
    Code.CONNECTION_LOST,
    Code.TIMEOUT,
    Code.DISK,
    Code.UNAUTHENTICATED,
)
_SILENT = (Code.CHAIN_BROKEN, Code.CONNECTION_LOST, Code.TIMEOUT)
_NOT_NOW = (Code.UNAVAILABLE, Code.OVERLOADED)


@dataclass(slots=True)
class _Series:
    """The attempts at one request."""

    give_up_at: float
    backoff: Backoff
    redialled: bool = False
    timeouts: int = 0
    mismatches: int = 0
    stale_first: float | None = None  # when the servers first said so, of whatever version
    stale_version: int = -1  # the one for which they said so last, and since when
    stale_since: float = 0.0
    # By server and version of the chunk: why it could not sync.
    unsynced: dict[tuple[int, int], Failure] = field(default_factory=dict)


class ChunkWriter:
    """Writes one file's packets."""

    def __init__(self, services: Services, locations: ChunkLocations) -> None:
        self._services = services
        self._locations = locations
        self._recovering = trio.Lock()
        self._cutting = trio.Lock()
        self._stopped: Failure | None = None
        self._attempts: dict[trio.CancelScope, ChunkLocation] = {}

    def stop(self, reason: Failure) -> None:
        """Make no further attempts: what is being written fails with `reason`."""
        self._stopped = reason

    async def write(self, packet: Packet) -> ChunkLocation:
        """Return when the packet is on every replica (durable there, with `packet.sync`).

        Answers the chunk as it was then. Raises Failure when that cannot be had: ENOSPC, or EIO.
        """
        checksums, at = b"", packet.chunk_offset
        for buffer in packet.buffers:
            checksums += piece_checksums(buffer, at)
            at += len(buffer)

        async def send(location: ChunkLocation) -> None:
            fresh = self._locations.is_fresh(location)
            chain = _chain(location)
            message = WriteChunk(
                location.handle,
                location.version,
                location.generation,
                packet.chunk_offset,
                checksums,
                chain[1:],
                fresh,
                packet.sync,
            )
            await self._call(location, message, packet.buffers)
            self._locations.written(location)

        location = await self._along_chain(packet.index, send, syncing=packet.sync, allocate=True)
        assert location is not None, "a packet's chunk is allocated"
        return location

    async def sync(self, index: int) -> ChunkLocation | None:
        """Make everything acknowledged of a chunk durable on every replica. Raises Failure.

        Answers the chunk as it was then; None when there is none (any more).
        """
        return await self._along_chain(index, self._send_sync, syncing=True, allocate=False)

    async def _send_sync(self, location: ChunkLocation) -> None:
        if not self._locations.is_fresh(location):  # what nobody wrote has no replicas
            chain = _chain(location)
            await self._call(location, SyncChunk(location.handle, location.version, chain[1:]))

    async def finish_truncate(self, size_bytes: int) -> None:
        """Cut the replicas of the chunk that a truncate went through, now, as far as possible.

        Until they are cut, a client with an older map could still write to them, and what it writes
        beyond the cut would be taken for what was cut off.
        """
        index, within = divmod(size_bytes, CHUNK_BYTES)
        if not within:
            return
        try:
            await self._cut(index)
        except Failure as failure:
            # The cut stays pending at the master, and readers and writers mind it.
            log.warning(
                "%s: inode %d: chunk %d not cut to %d bytes: %s",
                self._services.env.name,
                self._locations.inode,
                index,
                within,
                failure.message,
            )

    async def _cut(self, index: int) -> None:
        """Carry out a pending cut of a chunk, if there is one. Raises Failure."""

        async def nothing(_: ChunkLocation) -> None:
            return None

        await self._along_chain(index, nothing, syncing=False, allocate=False)

    async def _along_chain(
        self,
        index: int,
        send: Callable[[ChunkLocation], Awaitable[None]],
        *,
        syncing: bool,
        allocate: bool,
    ) -> ChunkLocation | None:
        """The location along which it went at last; None for a hole, to which nothing was sent."""
        series = _Series(self._services.give_up_at(), self._services.backoff())
        while True:
            location = (
                await self._locations.for_write(index)
                if allocate
                else await self._locations.for_read(index)
            )
            if location is None:
                return None
            try:
                done = await self._attempt(location, send)
            except Failure as failure:
                if failure.code is Code.DISK and syncing:
                    for server in _to_blame(location, failure):
                        series.unsynced[server, location.version] = failure
                await self._recover(location, failure, series, syncing=syncing)
                continue
            if done:
                _check_syncs(location, series)
                return location

    async def _attempt(
        self, location: ChunkLocation, send: Callable[[ChunkLocation], Awaitable[None]]
    ) -> bool:
        """Try once; False when the location was mended meanwhile, so that waiting is in vain."""
        with trio.CancelScope() as scope:
            self._attempts[scope] = location
            try:
                await self._probe_suspects(location)
                if location.cut_bytes is not None:
                    location = await self._carry_out_cut(location)
                await send(location)
            finally:
                del self._attempts[scope]
        if scope.cancelled_caught:
            return False
        for replica in location.replicas:
            self._services.servers.took_write(replica.server)
        return True

    async def _call(
        self, location: ChunkLocation, message: object, payload: Sequence[Buffer] = ()
    ) -> None:
        """Ask the primary; CHAIN_BROKEN, TIMEOUT and the like are told by Failure."""
        services, primary = self._services, location.replicas[0]
        silence_s, last_write = services.limits.data_timeout_s, services.servers.last_write
        with services.patience.watch(primary.server, silence_s, last_write, primary.address):
            timeout_s = services.limits.slow_timeout_s
            await services.pool.call(primary.address, message, payload, timeout_s=timeout_s)

    async def _probe_suspects(self, location: ChunkLocation) -> None:
        """Before waiting for a server that has just failed another write, see if it is there.

        So one dead server costs one timeout, not one for each chunk that it has a replica of.
        """
        for replica in location.replicas:
            if self._services.servers.is_suspect(replica.server) and replica.address:
                await self._probe(location, replica)

    async def _probe(self, location: ChunkLocation, replica: Replica) -> None:
        """Raise Failure(CHAIN_BROKEN) when the server does not answer at once."""
        message, timeout_s = InspectReplica(location.handle), self._services.limits.probe_timeout_s
        try:
            await self._services.pool.call(replica.address, message, timeout_s=timeout_s)
        except Failure as failure:
            if failure.code in _SILENT:
                text, link = failure.message, replica.address
                raise Failure(Code.CHAIN_BROKEN, text, detail=link) from failure
        self._services.servers.answered(replica.server)

    async def _carry_out_cut(self, location: ChunkLocation) -> ChunkLocation:
        async with self._cutting:
            current = self._locations.current(location.index)
            if current is not None and current.cut_bytes is None:
                return current
            location = current or location
            assert location.cut_bytes is not None
            chain = _chain(location)
            message = CutChunk(
                location.handle,
                location.version,
                location.generation,
                location.cut_bytes,
                chain[1:],
                self._locations.is_fresh(location),
            )
            await self._call(location, message)
            # Durable before the master hears of it: it forgets the cut then, and whoever truncated
            # or grew the file was told that this would survive.
            await self._call(location, SyncChunk(location.handle, location.version, chain[1:]))
            return self._locations.cut_done(location)

    # -- recovery

    async def _recover(
        self, location: ChunkLocation, failure: Failure, series: _Series, *, syncing: bool
    ) -> None:
        """Return when another attempt makes sense; raise Failure when none does."""
        if self._stopped is not None:
            raise self._stopped
        if self._services.env.clock.monotonic() >= series.give_up_at:
            raise self._gave_up(location, failure)
        async with self._recovering:
            if not self._locations.is_current(location):
                return  # somebody has mended it meanwhile
            self._services.meter.failed_writes += 1
            log.warning(
                "%s: inode %d chunk %d (%x version %d): %s",
                self._services.env.name,
                self._locations.inode,
                location.index,
                location.handle,
                location.version,
                failure.message,
                extra={
                    "inode": self._locations.inode,
                    "chunk": f"{location.handle:x}",
                    "code": failure.code.name,
                },
            )
            mended = await self._mend(location, failure, series, syncing=syncing)
            if not self._locations.is_current(location):
                self._call_off(location)
        if not mended:
            await series.backoff.wait()

    def _call_off(self, mended: ChunkLocation) -> None:
        """End the attempts along the old chain: whoever waits for a dead link waits too long."""
        for scope, location in self._attempts.items():
            if location.handle == mended.handle and location.version == mended.version:
                scope.cancel()

    async def _mend(
        self, location: ChunkLocation, failure: Failure, series: _Series, *, syncing: bool
    ) -> bool:
        """Do something about the failure; whether to try again at once."""
        if failure.code in _NOT_NOW:
            return False
        if failure.code in (Code.STALE_VERSION, Code.NO_REPLICA):
            return await self._mend_stale(location, failure, series)
        if failure.code is Code.CORRUPT:
            series.mismatches += 1
            return series.mismatches > 1 and await self._drop(location, failure)
        if failure.code not in _LINK_FAILED:
            raise failure
        if failure.code is Code.CONNECTION_LOST and not series.redialled:
            series.redialled = True
            if not syncing:
                return True
        if failure.code is Code.TIMEOUT:
            return await self._mend_silence(location, failure, series)
        return await self._drop(location, failure)

    async def _mend_silence(
        self, location: ChunkLocation, failure: Failure, series: _Series
    ) -> bool:
        """The primary did not answer in time; it may have been waiting for another link itself."""
        silent: list[int] = []

        async def probe(replica: Replica) -> None:
            try:
                await self._probe(location, replica)
            except Failure:
                silent.append(replica.server)

        async with trio.open_nursery() as nursery:
            for replica in location.replicas:
                nursery.start_soon(probe, replica)
        series.timeouts += 1
        if silent:
            return await self._drop(location, failure, tuple(sorted(silent)))
        return series.timeouts > 1 and await self._drop(location, failure)

    async def _mend_stale(self, location: ChunkLocation, failure: Failure, series: _Series) -> bool:
        """Our map is old, or the server has not yet heard of the version, or never will."""
        if await self._locations.refetch(location):
            return True
        now = self._services.env.clock.monotonic()
        if series.stale_first is None:
            series.stale_first = now
        if series.stale_version != location.version:  # the chunk has gone on: a new wait
            series.stale_version, series.stale_since = location.version, now
        wait_s = self._services.limits.data_timeout_s
        if now - series.stale_first >= wait_s:  # a short one: the writer has waited long enough
            wait_s *= STALE_AGAIN
        overdue = now - series.stale_since >= wait_s
        if failure.code is Code.NO_REPLICA or overdue:
            return await self._drop(location, failure)
        return False

    async def _drop(
        self, location: ChunkLocation, failure: Failure, failed: tuple[int, ...] = ()
    ) -> bool:
        """Have servers taken out of the set: `failed`, or those that the failure speaks against."""
        failed = failed or _to_blame(location, failure)
        silent = failure.code in _SILENT
        for server in failed:
            self._services.servers.failed_write(server, silent=silent)
        full = failure.code is Code.DISK and failure.errno == errno.ENOSPC
        if full and len(location.replicas) - len(failed) < KEPT_WHEN_FULL:
            raise failure
        self._services.meter.dropped_replicas += len(failed)
        return await self._locations.drop(location, failed)

    def _gave_up(self, location: ChunkLocation, last: Failure) -> Failure:
        text = (
            f"inode {self._locations.inode}: chunk {location.index} could not be written for"
            f" {self._services.limits.retry_for_s:.0f} s: {last.message}"
        )
        return Failure(last.code, text, errno=errno.EIO)


def _chain(location: ChunkLocation) -> tuple[str, ...]:
    """The addresses to write along. Raises Failure when one is not known."""
    chain = tuple(replica.address for replica in location.replicas)
    if not chain:
        raise Failure(Code.UNAVAILABLE, f"chunk {location.handle:x} has no replica")
    if not all(chain):
        text = f"chunk {location.handle:x}: a replica's server has no known address"
        raise Failure(Code.CHAIN_BROKEN, text)
    return chain


def _check_syncs(location: ChunkLocation, series: _Series) -> None:
    """Raise what a disk said to an earlier attempt at this sync, if it is still the same replica.

    One that is in the chunk's next version has been settled with the others since.
    """
    for replica in location.replicas:
        earlier = series.unsynced.get((replica.server, location.version))
        if earlier is not None:
            raise earlier


def _to_blame(location: ChunkLocation, failure: Failure) -> tuple[int, ...]:
    """The servers that a failure speaks against: those it names, else the primary."""
    unknown = tuple(r.server for r in location.replicas if not r.address)
    named = tuple(r.server for r in location.replicas if r.address == failure.detail)
    return unknown or named or (location.replicas[0].server,)
