"""The write side of one open file: from `write` returning to the data being on its replicas.

Written data waits in the `DirtyBuffer`, goes out in packets within a window, and becomes part of
the file by `CommitWrite` once it is on its replicas: at a flush, or when it has been lying about
for `limits.write_behind_s`. The mount's budget of dirty bytes makes writers wait.

A commit never runs ahead of the writes: it makes the file as long as those that are on their
replicas with all earlier ones, so what a client that dies leaves behind is a prefix of them (C4).

An error that a packet, a commit or a sync meets is counted (`WriteErrors`). Data that could not be
written is gone then, as it is with a local file system.
"""

from __future__ import annotations

import errno
import logging

import trio

from dfs.client.chunk_map import ChunkLocations
from dfs.client.chunk_write import ChunkWriter
from dfs.client.dirty import PIECE_OVERHEAD_BYTES, DirtyBuffer, Packet, Piece
from dfs.client.services import Services
from dfs.client.uncommitted import Uncommitted
from dfs.client.unsynced import Unsynced
from dfs.client.write_errors import WriteErrors
from dfs.errors import Code, Failure
from dfs.messages.common import ROOT, Credentials
from dfs.messages.metadata import ChunkLocation
from dfs.messages.operations import CommitWrite
from dfs.runtime.network import Buffer

log = logging.getLogger(__name__)


class WriteBack:
    """The dirty data of one file and its way out.

    `unsynced` and `errors` are the file's, kept beyond its closing.
    """

    def __init__(
        self,
        services: Services,
        inode: int,
        locations: ChunkLocations,
        unsynced: Unsynced,
        errors: WriteErrors,
    ) -> None:
        self._services = services
        self.inode = inode
        self._locations = locations
        self._unsynced = unsynced
        self._errors = errors
        self._writer = ChunkWriter(services, locations)
        self._dirty = DirtyBuffer(services.grid)
        self._uncommitted = Uncommitted(self._dirty.oldest)
        self._committing = trio.Lock()
        self._progress = trio.Event()  # replaced whenever a packet is finished
        self._open_gate = trio.Event()
        self._open_gate.set()
        self._pausing = trio.Lock()
        self._clean_at = 0  # tick at which the last commit was answered
        self._allocating: dict[int, None] = {}
        self._caller: Credentials = ROOT
        self.own_commits = 0  # commits acknowledged, each of which raised data_version by one
        self.local_end = 0
        self.mtime_ns = 0

    # -- what the file asks

    @property
    def is_clean(self) -> bool:
        """Whether the master and the replicas know everything."""
        busy = bool(self._uncommitted) or self._committing.locked()
        return not self._dirty and not busy

    def visible_end(self, asked_at: int) -> int:
        """The end of writes that a question to the master asked then may not have seen."""
        return self.local_end if not self.is_clean or self._clean_at > asked_at else 0

    def changed_after(self, asked_at: int) -> bool:
        """Whether a commit was answered since then."""
        return self._clean_at > asked_at

    def overlay(self, start: int, stop: int) -> list[Piece]:
        """Data not yet on its replicas, to be laid over theirs."""
        return self._dirty.overlay(start, stop)

    async def put(self, slot: int, start: int, data: Buffer, caller: Credentials) -> None:
        """Take data lying within one slot of the grid; waits for the budget."""
        charge = len(data) + PIECE_OVERHEAD_BYTES
        budget = self._services.dirty_budget
        if not budget.try_take(charge):
            await budget.take(charge)
        if not self._open_gate.is_set():
            await self._pass_gate(charge)
        if self.is_clean and not self._services.ticks.asking:
            self.local_end = 0
        budget.taken_bytes += self._dirty.put(slot, start, data) - charge
        self.local_end = max(self.local_end, start + len(data))
        self.mtime_ns = self._services.env.clock.wall_ns()
        self._caller = caller
        if 2 * budget.taken_bytes > budget.limit_bytes:
            self._dirty.make_all_due()
        self._pump()
        self._allocate_early(self._services.grid.chunk_of(slot))
        self._services.aging.add(self)

    def send_all(self) -> None:
        """Let everything go out now, without waiting for it."""
        self._dirty.make_all_due()
        self._pump()

    async def flush(self) -> None:
        """Return when all that is written now is on its replicas and committed, or has failed."""
        if self.is_clean:
            return
        await self._drain()
        await self._commit()

    async def sync(self, chunks: int = 0) -> None:
        """As `flush`, and durable: in one round trip where a chunk has one packet to go.

        The first so many `chunks` of the file are synced whether we have written them or not.
        """
        self._mark_sync()
        await self._drain()
        due = dict.fromkeys([*range(chunks), *self._unsynced.chunks()])
        following = iter(due)

        async def sync_some() -> None:
            for index in following:
                await self._sync_chunk(index)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._commit)
            for _ in range(min(len(due), self._services.limits.max_in_flight)):
                nursery.start_soon(sync_some)

    async def pause(self) -> None:
        """Hold back writers and flush; until `resume`, nothing is dirty or in flight."""
        await self._pausing.acquire()
        self._open_gate = trio.Event()
        try:
            await self.flush()
        except BaseException:
            self.resume()
            raise

    def resume(self) -> None:
        """Let writers go on."""
        self._open_gate.set()
        self._pausing.release()

    async def carry_out_cut(self, size_bytes: int) -> None:
        """See `ChunkWriter.finish_truncate`."""
        await self._writer.finish_truncate(size_bytes)

    def abandon(self, failure: Failure) -> None:
        """The file is lost: drop what is not sent, and report `failure`."""
        if self._dirty:
            self._failed(failure)
        self._services.dirty_budget.give_back(self._dirty.discard_unsent())
        self._uncommitted.clear()
        self._writer.stop(failure)

    def truncated(self, size_bytes: int) -> None:
        """The file has been cut, while paused: nothing of ours lies beyond."""
        self.local_end = min(self.local_end, size_bytes)
        self._uncommitted.cut(size_bytes)
        self._locations.committed_bytes = size_bytes
        self._locations.forget()

    # -- sending

    def _pump(self) -> None:
        """Send due packets as far as the window allows."""
        limits, dirty = self._services.limits, self._dirty
        while (
            dirty.in_flight_bytes < limits.write_window_bytes
            and dirty.in_flight_packets < limits.max_in_flight
        ):
            packets = dirty.next_packets()
            if not packets:
                return
            for packet in packets:
                self._count_in_flight(packet, 1)
                self._services.nursery.start_soon(self._send, packet)

    async def _send(self, packet: Packet) -> None:
        try:
            location = await self._writer.write(packet)
        except Failure as failure:
            self._dirty.finished(packet)
            self._failed(failure)
        else:
            self._dirty.finished(packet)
            self._acknowledge(packet, location)
        self._count_in_flight(packet, -1)
        self._services.dirty_budget.give_back(packet.charge_bytes)
        self._pump()
        self._progress.set()
        self._progress = trio.Event()

    def _count_in_flight(self, packet: Packet, change: int) -> None:
        self._services.meter.in_flight_packets += change
        self._services.meter.in_flight_bytes += change * packet.length_bytes

    def _acknowledge(self, packet: Packet, location: ChunkLocation) -> None:
        if packet.sync:
            self._synced(packet.index, packet.sync_covers, location)
        else:
            self._unsynced.written(location)
        self._uncommitted.add(packet.oldest, packet.stop)

    def _synced(self, index: int, covers: int, location: ChunkLocation | None) -> None:
        if not self._unsynced.synced(index, covers, location):
            text = (
                f"inode {self.inode}: all servers of chunk {index} lost power before what was"
                " written to it was synced: some of it may be lost"
            )
            log.error("%s: %s", self._services.env.name, text)
            self._services.meter.write_errors += 1
            self._errors.add(Failure(Code.DISK, text, errno=errno.EIO))

    def _failed(self, failure: Failure) -> None:
        self._services.meter.write_errors += 1
        self._errors.add(failure)
        self.local_end = max(self._dirty.end(), self._uncommitted.end())

    async def _drain(self) -> None:
        """Wait until everything written before is on its replicas, or has failed."""
        mark = self._dirty.writes
        self.send_all()
        while self._dirty.oldest() <= mark:
            await self._progress.wait()

    def _mark_sync(self) -> None:
        """Chunks with one packet to go, and none on its way, are synced along with it."""
        self._dirty.sync_chunks = {
            index: self._unsynced.acknowledged
            for index in self._dirty.unsent_chunks()
            if self._dirty.unsent_packets(index) == 1 and not self._dirty.chunk_in_flight(index)
        }

    async def _sync_chunk(self, index: int) -> None:
        covers = self._unsynced.acknowledged
        try:
            location = await self._writer.sync(index)
        except Failure as failure:
            if failure.code is Code.ERRNO and failure.errno == errno.ENOENT:
                self._synced(index, covers, None)  # the file is no more
            else:
                self._errors.add(failure)  # and the chunk stays unsynced
        else:
            self._synced(index, covers, location)

    # -- committing

    async def _commit(self) -> None:
        """Make what is on its replicas part of the file."""
        async with self._committing:
            end = self._uncommitted.take()
            if end is None:
                return
            cuts = self._locations.cuts_to_report()
            written = self._locations.written_to_report()
            operation = CommitWrite(self.inode, end, self._caller, self.mtime_ns, cuts, written)
            try:
                await self._services.session.perform(operation)
            except Failure as failure:
                if failure.retryable:
                    self._uncommitted.put_back(end)
                self._failed(failure)
            except BaseException:
                self._uncommitted.put_back(end)
                raise
            else:
                self.own_commits += 1
                self._clean_at = self._services.ticks.next()
                self._locations.cuts_reported(cuts)
                self._locations.written_reported(written)
                self._locations.committed_bytes = max(self._locations.committed_bytes, end)

    # -- small duties

    async def _pass_gate(self, charge: int) -> None:
        """Wait while the file is paused, without holding what the flush needs."""
        while not self._open_gate.is_set():
            self._services.dirty_budget.give_back(charge)
            await self._open_gate.wait()
            await self._services.dirty_budget.take(charge)

    def _allocate_early(self, index: int) -> None:
        """Ask for the chunk while the writer goes on; the first packet finds it there."""
        if self._locations.current(index) is None and index not in self._allocating:
            self._allocating[index] = None
            self._services.nursery.start_soon(self._allocate, index)

    async def _allocate(self, index: int) -> None:
        try:
            await self._locations.for_write(index)
        except Failure:
            return  # the packet's own attempt reports it
        finally:
            del self._allocating[index]
