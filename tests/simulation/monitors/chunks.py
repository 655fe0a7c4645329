"""The replicas' rules: what an acknowledgement asserts of every link, versions, reads, deletions.

Looks where requests enter and answers leave the data path (`Service._write`, `_sync`, `_read`), and
at the media of the disks. What an acknowledged write asserts is its own bytes; bytes that a later
request for the same chunk may have changed are passed over. Nor is anything asked of a disk that a
fault has harmed, or of a link that was down in between and had not been asked to sync.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from chunkserver import format as layout
from chunkserver.datadir import DataDir
from chunkserver.replica import Replica
from chunkserver.service import Service
from dfs.messages.chunks import CutChunk, ReadChunk, ReplicaState, SyncChunk, WriteChunk
from dfs.rpc import Reply, Request
from dfs.runtime.current import current_env
from dfs.runtime.sim.disk import Media
from dfs.runtime.sim.inode import PAGE_BYTES, Inode
from master.state import queries
from master.tables import Tables
from tests.simulation.stage import Stage
from tests.simulation.taps import Taps

CLOCKS_DIFFER_S = 1.0
KEPT = 32  # requests of a chunk that are remembered
_ZERO_PAGE = bytes(PAGE_BYTES)


@dataclass(eq=False, slots=True)
class _Change:
    """A request that changes a chunk, as it came to the first link."""

    version: int
    offset: int
    data: bytes | None  # None: anything may have changed
    links: tuple[str, ...]  # nodes, the first one first
    lives: tuple[object, ...]  # their incarnations when it came
    acknowledged: bool = False

    def overlaps(self, other: _Change) -> bool:
        if self.data is None or other.data is None:
            return True
        apart = self.offset + len(self.data) <= other.offset
        return not apart and other.offset < self.offset + len(self.data)


class ChunkMonitor:
    """Breaks the run as a chunkserver says what is not so."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._changes: dict[int, deque[_Change]] = {}  # by chunk, in the order of arrival
        self._primaries: dict[tuple[int, int], str] = {}
        self._versions: dict[tuple[str, int], int] = {}  # node, chunk -> highest seen on its disk
        self._harmed: dict[int, Media] = {}  # by identity; held, so that it stays their own

    def attach(self, taps: Taps) -> None:
        taps.around(Service, "_write", self._write)
        taps.around(Service, "_cut", self._cut)
        taps.around(Service, "_sync", self._sync)
        taps.around(Service, "_read", self._read)
        taps.around(DataDir, "remove", self._remove)
        taps.around(Replica, "_found_corrupt", self._corrupt)
        for harm in ("wipe", "flip_bit", "spoil", "fail"):
            taps.around(Media, harm, self._harm)

    async def finish(self) -> None:
        """All has been seen while it happened."""

    # -- who and where

    def _harm(self, original: Callable[..., None], media: Media, *args: Any, **named: Any) -> None:
        self._harmed[id(media)] = media
        original(media, *args, **named)

    def _file(self, name: str, handle: int) -> Inode | None:
        """The file of the replica, as that node's index knows it."""
        server = self._stage.cluster.storing[name]
        entry = server.store._index.get(handle)
        media = self._stage.world.disk(name)
        path = "" if entry is None else entry.directory.replica_path(handle)
        return media.inode(path) if path and media.exists(path) else None

    def _life(self, name: str) -> object:
        """The incarnation that lives on a node, None when none does."""
        return self._stage.world.env(name) if self._stage.world.is_alive(name) else None

    # -- changes

    def _write(self, original: Callable[..., Any], service: Service, request: Request) -> Any:
        message: WriteChunk = request.message
        answer = original(service, request)
        if request.connection.peer.role != "client":
            return answer
        change = self._noted(service, message, message.offset, bytes(request.payload))
        return self._written(service, answer, message, change)

    def _cut(self, original: Callable[..., Any], service: Service, request: Request) -> Any:
        answer = original(service, request)
        self._noted(service, request.message, 0, None)
        return answer

    def _noted(
        self, service: Service, message: WriteChunk | CutChunk, offset: int, data: bytes | None
    ) -> _Change:
        links = (service._env.name, *(address.split(":")[0] for address in message.chain))
        lives = tuple(self._life(name) for name in links)
        change = _Change(message.version, offset, data, links, lives)
        self._changes.setdefault(message.handle, deque(maxlen=KEPT)).append(change)
        return change

    async def _written(
        self,
        service: Service,
        answer: Coroutine[Any, Any, Any],
        message: WriteChunk,
        change: _Change,
    ) -> Any:
        done = await answer
        self._stage.reach["saw.write_ack"] += 1
        change.acknowledged = True
        self._check_primary(service._env.name, message)
        self._check_links(message, change.links)
        self._check_change(message.handle, change, synced=message.sync)
        return done

    def _sync(self, original: Callable[..., Any], service: Service, request: Request) -> Any:
        answer = original(service, request)
        if request.connection.peer.role != "client":
            return answer
        message: SyncChunk = request.message
        due = [c for c in self._changes.get(message.handle, ()) if c.acknowledged]
        return self._synced(answer, message, due)

    async def _synced(
        self, answer: Coroutine[Any, Any, Any], message: SyncChunk, due: list[_Change]
    ) -> Any:
        done = await answer
        self._stage.reach["saw.sync_ack"] += 1
        for change in due:
            if change.version == message.version:
                self._check_change(message.handle, change, synced=True)
        return done

    def _check_primary(self, name: str, message: WriteChunk) -> None:
        first = self._primaries.setdefault((message.handle, message.version), name)
        if first != name:
            text = f"{first} and {name} order chunk {message.handle:x}, version {message.version}"
            self._stage.broken("chunks.primary", text)

    def _check_links(self, message: WriteChunk, links: tuple[str, ...]) -> None:
        """The chain has every replica of that version, as the leader's state says."""
        leader = self._stage.cluster.leader()
        found = leader and queries.chunk_by_handle(
            self._stage.cluster.running[leader].tables, message.handle
        )
        if not found or found[2].version != message.version:
            return
        left_out = [s for s in found[2].servers if f"chunkserver-{s}" not in links]
        if left_out:
            text = f"chunk {message.handle:x} is acknowledged without servers {left_out}"
            self._stage.broken("chunks.chain", text)

    def _check_change(self, handle: int, change: _Change, *, synced: bool) -> None:
        later = False
        for other in self._changes[handle]:
            if later and other.overlaps(change):
                return
            later = later or other is change
        if not later:  # too long ago to know what came after it
            return
        for name, life in zip(change.links, change.lives, strict=True):
            if life is not None and self._life(name) is life:
                self._check_replica(name, handle, change, synced=synced)

    def _check_replica(self, name: str, handle: int, change: _Change, *, synced: bool) -> None:
        if id(self._stage.world.disk(name)) in self._harmed or change.data is None:
            return
        inode = self._file(name, handle)
        if inode is not None and self._version_on_disk(inode) > change.version:
            return  # it has been settled with others since
        self._stage.reach["saw.durable_replica" if synced else "saw.applied_replica"] += 1
        if inode is None or _bytes(inode, change, durable=synced) != change.data:
            state = "durable" if synced else "applied"
            end = change.offset + len(change.data)
            text = f"chunk {handle:x} [{change.offset}, {end}) is acknowledged, not {state} on"
            self._stage.broken("chunks.ack", f"{text} {name}")

    # -- versions, reads

    def _version_on_disk(self, inode: Inode) -> int:
        header = self._header(inode)
        return -1 if header is None else header.version

    @staticmethod
    def _header(inode: Inode) -> layout.Header | None:
        content = bytearray(layout.HEADER_BYTES)
        inode.read_into(memoryview(content), 0)
        found = layout.valid_headers(bytes(content))
        return found[0][0] if found else None

    def _read(self, original: Callable[..., Any], service: Service, request: Request) -> Any:
        answer = original(service, request)
        if isinstance(answer, Reply):
            self._check_read(service._env.name, request.message)
            return answer
        return self._read_later(service._env.name, answer, request.message)

    async def _read_later(
        self, name: str, answer: Coroutine[Any, Any, Reply], message: ReadChunk
    ) -> Reply:
        reply = await answer
        self._check_read(name, message)
        return reply

    def _check_read(self, name: str, message: ReadChunk) -> None:
        self._stage.reach["saw.chunk_read"] += 1
        inode = self._file(name, message.handle)
        header = None if inode is None else self._header(inode)
        if header is None or id(self._stage.world.disk(name)) in self._harmed:
            return
        place = name, message.handle
        if header.version < self._versions.get(place, 0):
            text = f"{name} went back to version {header.version} of chunk {message.handle:x}"
            self._stage.broken("chunks.version", text)
        self._versions[place] = header.version
        if header.version != message.version or header.state is not ReplicaState.SETTLED:
            text = f"{name} reads chunk {message.handle:x} at version {message.version}, has"
            self._stage.broken("chunks.read", f"{text} {header.version}, {header.state.name}")

    def _corrupt(self, original: Callable[..., Any], replica: Replica, block: int, why: str) -> Any:
        """Blocks are damaged by faults of the disk alone; what a crash tears is settled."""
        name = current_env.get().name
        if id(self._stage.world.disk(name)) not in self._harmed:
            text = f"{name}: block {block} of chunk {replica.handle:x} is damaged: {why}"
            self._stage.broken("chunks.torn", text)
        return original(replica, block, why)

    # -- deletions

    def _remove(self, original: Callable[..., None], directory: DataDir, handle: int) -> None:
        self._stage.reach["saw.deletion"] += 1
        name, leader = directory._env.name, self._stage.cluster.leader()
        self._versions.pop((name, handle), None)
        if leader and directory._env is self._life(name):
            tables = self._stage.cluster.running[leader].tables
            self._check_grace(tables, name, handle)
            if queries.replica_version(tables, handle, int(name.split("-")[1])) is not None:
                text = f"{name} deletes its replica of chunk {handle:x}, which {leader} refers to"
                self._stage.broken("chunks.deleted", text)
        original(directory, handle)

    def _clocks_are_wrong(self) -> bool:
        kinds = [strike.kind for strike in self._stage.plan.strikes]
        return any("wall" in kind or "drift" in kind for kind in kinds)

    def _check_grace(self, tables: Tables, name: str, handle: int) -> None:
        """Clocks may disagree, and jump where that is one of the run's faults."""
        noted_ns = queries.deletion_noted(tables, int(name.split("-")[1]), handle)
        if noted_ns is None or self._clocks_are_wrong():
            return
        self._stage.reach["saw.grace"] += 1
        age_s = (self._stage.world.clock.wall_ns() - noted_ns) / 1e9
        if age_s < self._stage.plan.knobs.deletion_grace_s - CLOCKS_DIFFER_S:
            text = f"{name} deletes its replica of chunk {handle:x} after {age_s:.3f} s"
            self._stage.broken("chunks.grace", text)


def _bytes(inode: Inode, change: _Change, *, durable: bool) -> bytes:
    """What is at the place of a change: on the platter, or in the page cache."""
    assert change.data is not None
    start = layout.DATA_OFFSET + change.offset
    if not durable:
        content = bytearray(len(change.data))
        inode.read_into(memoryview(content), start)
        return bytes(content)
    first, last = start // PAGE_BYTES, (start + len(change.data) - 1) // PAGE_BYTES
    pages = (inode._stable_pages.get(page, _ZERO_PAGE) for page in range(first, last + 1))
    return b"".join(pages)[start - first * PAGE_BYTES :][: len(change.data)]
