"""What chunkservers keep: nothing vanishes, nothing runs ahead of the masters.

Files of replicas go when a deletion is ordered (`DataDir.remove`), or into the quarantine; what is
there goes when an operator clears it, or damaged blocks when it is full. No replica takes a
version that no master has applied: versions are given out by commands of the log. What was in use
when its server stopped serves nobody before it was settled; and what was settled is what its source
has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from chunkserver import format as layout
from chunkserver import reopening
from chunkserver.datadir import DataDir
from chunkserver.fencing import Fencing
from chunkserver.quarantine import WHOLE_REPLICA, Kept, Quarantine
from chunkserver.replica import Replica
from chunkserver.service import Service
from chunkserver.store import Entry
from dfs.layout import BLOCK_BYTES
from dfs.messages.chunks import EndSettling, ReplicaState
from dfs.runtime.current import current_env
from dfs.runtime.sim.disk import Media
from master.state import queries, replicas
from tests.simulation.stage import Stage
from tests.simulation.taps import Taps


class CustodyMonitor:
    """Looks at files that go, and at versions that are taken."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._allowed = 0  # deletions that go on just now
        self._applied: dict[int, int] = {}  # chunk -> the highest version, on any master
        self._doubtful: dict[tuple[str, int], None] = {}  # node, chunk: in use before a stop

    def attach(self, taps: Taps) -> None:
        taps.around(DataDir, "remove", self._allowing)
        taps.around(DataDir, "create", self._allowing)  # frees what it could not make
        taps.around(Quarantine, "_remove", self._from_quarantine)
        taps.around(Media, "unlink", self._unlink)
        taps.around(Replica, "fence", self._fence)
        taps.replace(replicas, "_change", partial(self._changed, replicas._change))
        taps.replace(reopening, "settle", partial(self._reopened, reopening.settle))
        taps.around(Service, "_with_version", self._with_version)
        taps.around(Fencing, "_serve", self._serve)
        taps.around(Replica, "write", self._write)

    async def finish(self) -> None:
        """All has been seen while it happened."""

    def _allowing(self, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        self._allowed += 1
        try:
            return original(*arguments, **named)
        finally:
            self._allowed -= 1

    def _from_quarantine(
        self, original: Callable[..., None], quarantine: Quarantine, kept: Kept
    ) -> None:
        if kept.block == WHOLE_REPLICA:
            text = f"{current_env.get().name}: {quarantine.path}/{kept.name} is deleted"
            self._stage.broken("chunks.quarantine", text)
        self._allowing(original, quarantine, kept)

    def _unlink(self, original: Callable[..., None], media: Media, path: str) -> None:
        if not self._allowed and ("/quarantine/" in path or "/replicas/" in path):
            self._stage.broken("chunks.quarantine", f"{path} is deleted, and nobody ordered it")
        original(media, path)

    def _fence(
        self, original: Callable[..., None], replica: Replica, version: int, state: ReplicaState
    ) -> None:
        self._stage.reach["saw.fence"] += 1
        handle, masters = replica.handle, self._stage.cluster.running.items()
        applied = self._applied.get(handle, 0)  # perhaps by one that is dead by now
        living = [server for name, server in masters if self._stage.world.is_alive(name)]
        found = [queries.chunk_by_handle(server.tables, handle) for server in living]
        known = [chunk.version for _, _, chunk in filter(None, found)]
        if known and version > max(*known, applied):
            text = f"{current_env.get().name} takes version {version} of chunk {handle:x}"
            self._stage.broken("chunks.ahead", f"{text}, the masters know {max(known)}")
        self._doubtful.pop((current_env.get().name, handle), None)
        original(replica, version, state)

    def _changed(self, original: Callable[..., None], *arguments: Any) -> None:
        original(*arguments)
        chunk = arguments[3]
        self._applied[chunk.handle] = max(self._applied.get(chunk.handle, 0), chunk.version)

    # -- what is served

    def _reopened(
        self, original: Callable[..., None], replica: Replica, size: int, *, writable: bool
    ) -> None:
        if replica.intent and replica.state is not ReplicaState.JOINING:
            self._doubtful[current_env.get().name, replica.handle] = None
        original(replica, size, writable=writable)

    def _with_version(
        self, original: Callable[..., Entry], service: Service, handle: int, version: int
    ) -> Entry:
        entry = original(service, handle, version)
        if (service._env.name, handle) in self._doubtful:
            text = f"{service._env.name} serves chunk {handle:x}, which it had in use when it ended"
            self._stage.broken("chunks.doubt", text)
        return entry

    async def _serve(
        self, original: Callable[..., Any], fencing: Fencing, entry: Entry, message: EndSettling
    ) -> None:
        await original(fencing, entry, message)
        replica, due = entry.replica, (message.length_bytes, message.digest)
        if replica is None or entry.version != message.version:
            return
        self._stage.reach["saw.settled"] += 1
        if (replica.length_bytes, replica.digest()) != due:
            text = f"{current_env.get().name} settles chunk {entry.handle:x} as it is"
            self._stage.broken("chunks.settled", f"{text}, not as its source is")

    # -- what is written

    def _write(
        self,
        original: Callable[..., None],
        replica: Replica,
        offset: int,
        data: memoryview,
        packed: bytes,
    ) -> None:
        """A stop at any moment of it is announced: on the platter by now, or ever since."""
        original(replica, offset, data, packed)
        media = self._stage.world.disk(current_env.get().name)
        path = replica._about.partition(" ")[2]
        if not media.exists(path):
            return
        headers = layout.valid_headers(media.inode(path)._stable_pages.get(0, b""))
        stop = layout.block_count(offset + len(data))
        touched = layout.block_bits(offset // BLOCK_BYTES, stop)
        self._stage.reach["saw.announced"] += 1
        if headers and touched & ~headers[0][0].intent:
            text = f"{replica._about}: blocks change at {offset} that no header names"
            self._stage.broken("chunks.intent", text)
