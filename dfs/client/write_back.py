"""The write side of one open file: from `write` returning to the data being on its replicas.

Written data waits in the `DirtyBuffer`, goes out in packets within a window, and becomes part of
the file by `CommitWrite` once it is on its replicas: at a flush, or when it has been lying about
for `limits.write_behind_s`. The mount's budget of dirty bytes makes writers wait.

An error that a packet or a commit meets is counted; every open handle reports each once. Data that
could not be written is gone then, as it is with a local file system.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from dfs.client.chunk_map import ChunkLocations
from dfs.client.chunk_write import ChunkWriter
from dfs.client.dirty import PIECE_OVERHEAD_BYTES, DirtyBuffer, Packet, Piece
from dfs.client.services import Services
from dfs.errors import Failure
from dfs.messages.common import ROOT, Credentials
from dfs.messages.operations import CommitWrite
from dfs.runtime.network import Buffer


@dataclass(slots=True)
class _Uncommitted:
    """What is on replicas, and not yet part of the file."""

    end_bytes: int = 0
    pending: bool = False


class WriteBack:
    """The dirty data of one file and its way out.

    `unsynced` is the file's record of chunks written and not synced, kept beyond its closing.
    """

    def __init__(
        self,
        services: Services,
        inode: int,
        locations: ChunkLocations,
        unsynced: dict[int, int],
    ) -> None:
        self._services = services
        self.inode = inode
        self._locations = locations
        self._unsynced = unsynced  # chunk -> number of its last acknowledged packet
        self._writer = ChunkWriter(services, locations)
        self._dirty = DirtyBuffer(services.grid)
        self._uncommitted = _Uncommitted()
        self._committing = trio.Lock()
        self._progress = trio.Event()  # replaced whenever a packet is finished
        self._open_gate = trio.Event()
        self._open_gate.set()
        self._pausing = trio.Lock()
        self._acknowledged = 0
        self._clean_at = 0  # tick at which the last commit was answered
        self._allocating: dict[int, None] = {}
        self._caller: Credentials = ROOT
        self._errors: list[Failure] = []
        self.error_count = 0
        self.own_commits = 0  # commits acknowledged, each of which raised data_version by one
        self.local_end = 0
        self.mtime_ns = 0

    # -- what the file asks

    @property
    def is_clean(self) -> bool:
        """Whether the master and the replicas know everything."""
        busy = self._uncommitted.pending or self._committing.locked()
        return not self._dirty and not busy

    def visible_end(self, asked_at: int) -> int:
        """The end of writes that a question to the master asked then may not have seen."""
        return self.local_end if not self.is_clean or self._clean_at > asked_at else 0

    def last_error(self) -> Failure:
        """What went wrong last; a new exception each time."""
        failure = self._errors[-1]
        return Failure(failure.code, failure.message, errno=failure.errno, detail=failure.detail)

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

    async def sync(self) -> None:
        """As `flush`, and durable: in one round trip where a chunk has one packet to go."""
        self._mark_sync()
        await self._drain()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._commit)
            for index in sorted(self._unsynced):
                nursery.start_soon(self._sync_chunk, index)

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
        self._uncommitted = _Uncommitted()
        self._writer.stop(failure)

    def truncated(self, size_bytes: int) -> None:
        """The file has been cut, while paused: nothing of ours lies beyond."""
        self.local_end = min(self.local_end, size_bytes)
        self._uncommitted.end_bytes = min(self._uncommitted.end_bytes, size_bytes)
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
            await self._writer.write(packet)
        except Failure as failure:
            self._dirty.finished(packet)
            self._failed(failure)
        else:
            self._dirty.finished(packet)
            self._acknowledge(packet)
        self._count_in_flight(packet, -1)
        self._services.dirty_budget.give_back(packet.charge_bytes)
        self._pump()
        self._progress.set()
        self._progress = trio.Event()

    def _count_in_flight(self, packet: Packet, change: int) -> None:
        self._services.meter.in_flight_packets += change
        self._services.meter.in_flight_bytes += change * packet.length_bytes

    def _acknowledge(self, packet: Packet) -> None:
        self._acknowledged += 1
        last = self._unsynced.get(packet.index)
        if not packet.sync:
            self._unsynced[packet.index] = self._acknowledged
        elif last is not None and last <= packet.sync_covers:
            del self._unsynced[packet.index]
        self._uncommitted.end_bytes = max(self._uncommitted.end_bytes, packet.stop)
        self._uncommitted.pending = True

    def _failed(self, failure: Failure) -> None:
        self.error_count += 1
        self._services.meter.write_errors += 1
        self._errors = [failure]
        self.local_end = max(self._dirty.end(), self._uncommitted.end_bytes)

    async def _drain(self) -> None:
        """Wait until everything written before is on its replicas, or has failed."""
        mark = self._dirty.writes
        self.send_all()
        while self._dirty.oldest() <= mark:
            await self._progress.wait()

    def _mark_sync(self) -> None:
        """Chunks with one packet to go, and none on its way, are synced along with it."""
        self._dirty.sync_chunks = {
            index: self._acknowledged
            for index in self._dirty.unsent_chunks()
            if self._dirty.unsent_packets(index) == 1 and not self._dirty.chunk_in_flight(index)
        }

    async def _sync_chunk(self, index: int) -> None:
        covers = self._unsynced[index]
        try:
            await self._writer.sync(index)
        except Failure as failure:
            self._failed(failure)
            return
        if self._unsynced.get(index) == covers:
            del self._unsynced[index]

    # -- committing

    async def _commit(self) -> None:
        """Make what is on its replicas part of the file."""
        async with self._committing:
            if not self._uncommitted.pending:
                return
            taken, self._uncommitted = self._uncommitted, _Uncommitted()
            cuts = self._locations.cuts_to_report()
            written = self._locations.written_to_report()
            operation = CommitWrite(
                self.inode, taken.end_bytes, self._caller, self.mtime_ns, cuts, written
            )
            try:
                await self._services.session.perform(operation)
            except Failure as failure:
                if failure.retryable:
                    self._uncommit(taken)
                self._failed(failure)
            except BaseException:
                self._uncommit(taken)
                raise
            else:
                self.own_commits += 1
                self._clean_at = self._services.ticks.next()
                self._locations.cuts_reported(cuts)
                self._locations.written_reported(written)
                ends = (self._locations.committed_bytes, taken.end_bytes)
                self._locations.committed_bytes = max(ends)

    def _uncommit(self, taken: _Uncommitted) -> None:
        """It is not known to be committed: the next flush tries again."""
        now = self._uncommitted
        self._uncommitted = _Uncommitted(max(taken.end_bytes, now.end_bytes), True)

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
