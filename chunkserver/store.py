"""All replicas of one chunkserver: which there are, on which disk, and how they are reached.

Owns the index (handle -> `Entry`), filled at the start from the headers, and the bounded number of
open files. Whoever touches a replica holds its chunk's turn (`turns`), takes it from `opened`, and
does the work in the lane of its disk.

Replicas are closed least recently used first, without a sync: the intent in the header stays, until
`syncing` brings the replica to rest. A replica whose change failed half-way is closed, and put
right when it is opened again; it then serves nobody until it is settled with its chunk's others.

Errors: Failure NO_REPLICA, CORRUPT, DISK; `detail` is this server's address.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import trio

from chunkserver.chain import Stamp, Turns
from chunkserver.damage import Damage
from chunkserver.datadir import DataDir
from chunkserver.format import DATA_OFFSET, Header, block_bits, block_count
from chunkserver.meter import StoreMeter
from chunkserver.replica import Replica
from chunkserver.syncing import Syncing
from chunkserver.verify import missing_blocks
from dfs.config import Chunkserver
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES
from dfs.messages.chunks import ReplicaState
from dfs.messages.cluster import DiskReport, ReplicaReport
from dfs.runtime import Env

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class Entry:
    """One replica: what is known of it without opening it, and the open file if there is one."""

    handle: int
    directory: DataDir
    version: int
    generation: int
    length_bytes: int
    state: ReplicaState
    replica: Replica | None = None
    settled: bool = False  # this process has opened it after a stop, or made it
    damaged: int = 0  # the bitmap of its damaged blocks, as far as known

    def stamp(self) -> Stamp:
        return Stamp(self.version, self.generation, self.state is ReplicaState.SETTLED)


class Store:
    """The replicas of one server. `address` names it in errors."""

    def __init__(self, env: Env, config: Chunkserver, address: str) -> None:
        self._env, self._limits, self._address = env, config.limits, address
        self._cluster, self._server = config.cluster, config.id
        self.turns, self.meter = Turns(), StoreMeter()
        self.directories = [DataDir(env, p, config.limits, address) for p in config.data_dirs]
        self._index: dict[int, Entry] = {}
        self._open: OrderedDict[int, None] = OrderedDict()
        self.syncing = Syncing(env, self, config.limits.settle_after_s)
        self._created: dict[int, None] = {}  # replicas made and not yet reported
        self.created = trio.Event()  # there are some; replaced when they are taken
        self.client_bytes = 0  # read and written for clients, since the start
        self.repair_bytes = 0  # read and written to make replicas equal, or new ones
        self.damage = Damage(env, config.limits.max_suspicions)

    # -- starting and ending

    async def start(self) -> None:
        """Claim the directories and read what they hold. Raises Failure CONFIG, DISK."""
        for directory in self.directories:
            claim = partial(directory.claim, self._cluster, self._server)
            await self._env.run_blocking(claim, directory.path)
            for header in await self._env.run_blocking(directory.scan, directory.path):
                self._add(header, directory)
        for directory in self.directories:
            for handle in directory.unreadable:
                if not self.has(handle):
                    self.damage.lost(handle, 0)
        if not any(d.writable for d in self.directories):
            problems = "; ".join(f"{d.path}: {d.problem}" for d in self.directories)
            raise Failure(Code.DISK, f"no data directory is usable: {problems}")
        log.info("%s: %d replicas found", self._env.name, len(self._index))

    def _add(self, header: Header, directory: DataDir) -> None:
        old = self._index.get(header.handle)
        if old is not None:
            name, paths = self._env.name, (old.directory.path, directory.path)
            log.error("%s: replica %x stands in both %s and %s", name, header.handle, *paths)
            if old.version >= header.version:
                return
            old.directory.replicas -= 1
        directory.replicas += 1
        self._index[header.handle] = Entry(
            header.handle,
            directory,
            header.version,
            header.generation,
            header.length_bytes,
            header.state,
        )
        if header.intent:
            self.syncing.uses(header.handle)

    async def stop(self) -> None:
        """Sync what was written, as far as the time allows, and close all files."""
        with self._env.clock.move_on_after(self._limits.stop_sync_s):
            await self.syncing.rest_all()
        for handle in list(self._open):
            self._close(self._index[handle])

    # -- what there is

    def find(self, handle: int) -> Entry:
        """Raises Failure NO_REPLICA."""
        entry = self._index.get(handle)
        if entry is None:
            text = f"{self._address} has no replica of chunk {handle:x}"
            raise Failure(Code.NO_REPLICA, text, detail=self._address)
        return entry

    def has(self, handle: int) -> bool:
        return handle in self._index

    def handles(self) -> list[int]:
        """The chunks that there are replicas of, rising."""
        return sorted(self._index)

    def version_of(self, handle: int) -> int | None:
        """The version of the replica; None when there is none."""
        entry = self._index.get(handle)
        return None if entry is None else entry.version

    def on(self, directory: DataDir, after: int) -> list[Entry]:
        """The replicas on one disk with handles above `after`, rising."""
        found = (e for h, e in self._index.items() if h > after and e.directory is directory)
        return sorted(found, key=lambda entry: entry.handle)

    def reports(self, handles: list[int] | None = None) -> list[ReplicaReport]:
        """What the master is told of all replicas, or of those, in the order of handles."""
        wanted = sorted(self._index) if handles is None else [h for h in handles if self.has(h)]
        found = (self._index[handle] for handle in wanted)
        return [
            ReplicaReport(
                e.handle,
                e.version,
                e.length_bytes,
                e.state,
                damaged=bool(self.damage.blocks(e.handle)),
            )
            for e in found
        ]

    def joining(self) -> list[int]:
        """The replicas that were begun as copies and are none of their chunk's yet."""
        return [h for h, e in self._index.items() if e.state is ReplicaState.JOINING]

    @property
    def open_count(self) -> int:
        return len(self._open)

    async def measure(self) -> tuple[DiskReport, ...]:
        """Ask every disk how full it is, all at once."""
        async with trio.open_nursery() as nursery:
            for directory in self.directories:
                nursery.start_soon(self._measure_one, directory)
        return self.disk_reports()

    async def _measure_one(self, directory: DataDir) -> None:
        try:
            await self._env.run_blocking(directory.measure, directory.path)
        except OSError as error:
            directory.failure(error)

    def disk_reports(self) -> tuple[DiskReport, ...]:
        return tuple(
            replace(d.report(), damaged_blocks=sum(map(int.bit_count, self.damaged_on(d).values())))
            for d in self.directories
        )

    def damaged_on(self, directory: DataDir) -> dict[int, int]:
        """Handle -> bitmap of the damaged blocks known on one disk."""
        known = self.damage.known().items()
        return {h: b for h, b in known if self.has(h) and self._index[h].directory is directory}

    def busy_since(self) -> float | None:
        """Since when the slowest disk owes progress; None when none does. Any thread may ask."""
        waiting = [d.lane.busy_since for d in self.directories]
        return min((since for since in waiting if since is not None), default=None)

    # -- working on a replica; the caller holds its turn

    async def run(self, entry: Entry, work: Callable[[Replica], T], *, waits: bool = False) -> T:
        """Do the work on the open replica, in the lane of its disk."""
        replica = entry.replica or await self._opened(entry)
        self._open.move_to_end(entry.handle)
        try:
            return await entry.directory.lane.run(partial(work, replica), waits=waits)
        except OSError as error:
            raise entry.directory.failure(error) from None
        except Failure as error:
            raise self._named(error) from None
        finally:
            self._note(entry, replica)

    def run_inline(self, entry: Entry, replica: Replica, work: Callable[[Replica], T]) -> T:
        """The same without a chance to wait; the lane must be fast, the replica open."""
        self._open.move_to_end(entry.handle)
        try:
            return entry.directory.lane.run_inline(partial(work, replica))
        except OSError as error:
            raise entry.directory.failure(error) from None
        except Failure as error:
            self._note(entry, replica)
            raise self._named(error) from None

    async def verify(self, entry: Entry, work: Callable[[Replica], int]) -> None:
        """Do work that looks for damage; what it puts right by itself is synced in time."""
        await self.run(entry, work, waits=True)
        if entry.replica is not None and entry.replica.dirty:
            self.syncing.uses(entry.handle)

    async def warm(self, entry: Entry, offset: int, length_bytes: int) -> bool:
        """Bring a range into the page cache; needs no turn, since nothing is made of the bytes.

        False when the replica is not open.
        """
        replica = entry.replica
        if replica is None:
            return False
        replica.pins += 1
        try:
            work = partial(replica.warm, offset, length_bytes)
            await entry.directory.lane.run(work, waits=True)
        except OSError as error:
            raise entry.directory.failure(error) from None
        finally:
            self.unpin(entry, replica)
        return True

    @asynccontextmanager
    async def turn(self, handle: int) -> AsyncIterator[None]:
        """Wait for the chunk's turn, have it for the body, and leave it."""
        turn = self.turns.enter(handle)
        try:
            await turn.wait()
            yield
        finally:
            turn.leave()

    async def change(
        self, entry: Entry, work: Callable[[Replica], None], *, waits: bool = False
    ) -> None:
        """Do work that writes. Raises Failure DISK EROFS on a disk gone read-only."""
        entry.directory.must_be_writable()
        await self.run(entry, work, waits=waits)
        self.syncing.uses(entry.handle)

    async def write(self, entry: Entry, offset: int, data: memoryview, packed: bytes) -> None:
        """Write verified bytes."""
        replica = entry.replica
        if replica is None or replica.must_announce(offset, len(data)):
            # Seldom, and a datasync: nothing that the event loop could wait for.
            entry.directory.must_be_writable()
            await self.run(entry, partial(_announce, offset, len(data)), waits=True)
        await self.change(entry, partial(_write, entry.directory, offset, data, packed))

    async def overwrite(self, entry: Entry, offset: int, data: memoryview, packed: bytes) -> None:
        """Put another replica's bytes, whole blocks, in the place of what is here.

        What is damaged of it goes into the quarantine first.
        """
        if entry.damaged:
            blocks = entry.damaged & block_bits(
                offset // BLOCK_BYTES, block_count(offset + len(data))
            )
            work = partial(_set_blocks_aside, entry.directory, blocks)
            await self.run(entry, work, waits=True)
        await self.write(entry, offset, data, packed)

    async def sync_name(self, entry: Entry) -> None:
        """Make the name of the replica's file durable."""
        try:
            work = partial(entry.directory.sync_entry, entry.handle)
            await entry.directory.lane.run(work, waits=True)
        except OSError as error:
            raise entry.directory.failure(error) from None

    async def create(
        self,
        handle: int,
        version: int,
        generation: int,
        state: ReplicaState = ReplicaState.SETTLED,
    ) -> Entry:
        """Make the replica, on the healthy disk with the most room."""
        directory = self._place()
        work = partial(_create, directory, handle, version, generation, state)
        try:
            replica = await directory.lane.run(work, waits=True)
        except OSError as error:
            raise directory.failure(error) from None
        entry = Entry(handle, directory, version, generation, 0, state, settled=True)
        self._index[handle] = entry
        directory.replicas += 1
        self._keep_open(entry, replica)
        self.syncing.uses(handle)
        self._created[handle] = None
        self.created.set()
        return entry

    def take_created(self) -> list[int]:
        """The replicas made since this was last asked, in the order of their making."""
        taken, self._created, self.created = list(self._created), {}, trio.Event()
        return taken

    def _place(self) -> DataDir:
        best = max(self.directories, key=lambda d: (d.writable, d.free_bytes))
        best.must_be_writable()
        return best

    async def delete(self, handle: int) -> None:
        """Delete the replica; nothing when there is none."""
        entry = self._index.get(handle)
        if entry is None:
            return
        entry.directory.must_be_writable()
        self._close(entry)
        try:
            remove = partial(entry.directory.remove, handle)
            await entry.directory.lane.run(remove, waits=True)
        except FileNotFoundError:
            log.warning("%s: replica %x had vanished", self._env.name, handle)
        except OSError as error:
            raise entry.directory.failure(error) from None
        self._forget(entry)
        self.damage.gone(handle)

    def _forget(self, entry: Entry) -> None:
        entry.directory.replicas -= 1
        del self._index[entry.handle]
        self.syncing.forget(entry.handle)

    async def must_exist(self, entry: Entry) -> None:
        """Raises Failure CORRUPT for a replica without a file, which is one no more."""
        exists = partial(entry.directory.exists, entry.handle)
        if not await entry.directory.lane.run(exists, waits=True):
            await self.lose(entry, "", vanished=True)
            text = f"{self._address}: the file of replica {entry.handle:x} has vanished"
            raise Failure(Code.CORRUPT, text, detail=self._address)

    async def lose(self, entry: Entry, why: str, *, vanished: bool = False) -> None:
        """This is no replica any more: set aside what is left of it, and have it replaced."""
        self._close(entry)
        if vanished:
            text = "%s: the file of replica %x has vanished from %s"
            log.error(text, self._env.name, entry.handle, entry.directory.path)
        else:
            work = partial(entry.directory.set_aside, entry.handle, why)
            try:
                await entry.directory.lane.run(work, waits=True)
            except OSError as error:
                raise entry.directory.failure(error) from None
        self._forget(entry)
        self.damage.lost(entry.handle, entry.version)

    # -- open files

    async def _opened(self, entry: Entry) -> Replica:
        work = partial(entry.directory.open, entry.handle, settled=entry.settled)
        try:
            replica = await entry.directory.lane.run(work, waits=True)
        except FileNotFoundError as error:
            await self.lose(entry, "", vanished=True)
            text = f"{self._address}: the file of replica {entry.handle:x} has vanished: {error}"
            raise Failure(Code.CORRUPT, text, detail=self._address) from None
        except OSError as error:
            raise entry.directory.failure(error) from None
        except Failure as error:
            if error.code is Code.CORRUPT:
                await self.lose(entry, error.message)
            else:
                self._note_unreadable(entry)
            raise self._named(error) from None
        entry.settled = True
        replica.remember_damage(entry.damaged | missing_blocks(replica))
        self._keep_open(entry, replica)
        if replica.intent:
            self.syncing.uses(entry.handle)
        return replica

    def _keep_open(self, entry: Entry, replica: Replica) -> None:
        entry.replica = replica
        self._note(entry, replica)
        self._open[entry.handle] = None
        excess = len(self._open) - self._limits.max_open_replicas
        for handle in list(self._open)[: 2 * excess] if excess > 0 else ():
            idle = self._index[handle]
            pinned = idle.replica is not None and idle.replica.pins
            if not pinned and not self.turns.busy(handle):
                self._close(idle)

    def _note(self, entry: Entry, replica: Replica) -> None:
        entry.version, entry.generation = replica.version, replica.generation
        entry.length_bytes, entry.state = replica.length_bytes, replica.state
        if replica.damaged != self.damage.blocks(entry.handle) or replica.read_errors:
            self._note_damage(entry, replica)
        if replica.broken:
            entry.settled = False
            entry.state = max(entry.state, ReplicaState.UNSETTLED)
            self.may_differ(entry, self._address)
            self._close(entry)

    def may_differ(self, entry: Entry, address: str) -> None:
        """A change that was applied here failed at `address`, or here, where it was applied there.

        The client will see to it, if it lives; if not, the leader has to.
        """
        after_s = self._limits.suspect_after_s
        self.damage.differs(entry.handle, entry.version, address, after_s)

    def _note_damage(self, entry: Entry, replica: Replica) -> None:
        entry.damaged = replica.damaged
        self.damage.saw(entry.handle, entry.version, entry.damaged)
        errors, replica.read_errors = replica.read_errors, 0
        if errors:
            entry.directory.count_read_errors(errors)

    def _note_unreadable(self, entry: Entry) -> None:
        """The disk cannot even read what the replica's blocks are to be like."""
        if not self.damage.blocks(entry.handle):
            blocks = block_bits(0, max(1, block_count(entry.length_bytes)))
            self.damage.saw(entry.handle, entry.version, blocks)
            entry.directory.count_read_errors(1)

    def _close(self, entry: Entry) -> None:
        replica, entry.replica = entry.replica, None
        self._open.pop(entry.handle, None)
        if replica is not None and not replica.pins:
            replica.close()

    def unpin(self, entry: Entry, replica: Replica) -> None:
        """Whoever counted up `pins` uses the file no more."""
        replica.pins -= 1
        if entry.replica is not replica and not replica.pins:
            replica.close()

    def _named(self, error: Failure) -> Failure:
        self.meter.damaged_reads += error.code is Code.CORRUPT
        detail = error.detail or self._address
        return Failure(error.code, error.message, errno=error.errno, detail=detail)


def _create(
    directory: DataDir, handle: int, version: int, generation: int, state: ReplicaState
) -> Replica:
    directory.take(DATA_OFFSET)
    directory.make_directory_for(handle)
    return directory.create(handle, version, generation, state)


def _announce(offset: int, length_bytes: int, replica: Replica) -> None:
    replica.announce(offset, length_bytes)


def _set_blocks_aside(directory: DataDir, blocks: int, replica: Replica) -> None:
    for block in range(blocks.bit_length()):
        if blocks >> block & 1:
            directory.quarantine_block(replica.handle, block, replica.damaged_bytes(block))


def _write(
    directory: DataDir, offset: int, data: memoryview, packed: bytes, replica: Replica
) -> None:
    more = offset + len(data) - replica.length_bytes
    if more > 0:
        directory.take(min(more, len(data)))
    replica.write(offset, data, packed)
