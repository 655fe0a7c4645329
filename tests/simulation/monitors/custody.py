"""What chunkservers keep: nothing vanishes, nothing runs ahead of the masters.

Files of replicas go when a deletion is ordered (`DataDir.remove`), or into the quarantine; what is
there goes when an operator clears it, or damaged blocks when it is full. And no replica takes a
version that no master has in its state: versions are given out by commands of the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chunkserver.datadir import DataDir
from chunkserver.quarantine import WHOLE_REPLICA, Kept, Quarantine
from chunkserver.replica import Replica
from dfs.messages.chunks import ReplicaState
from dfs.runtime.current import current_env
from dfs.runtime.sim.disk import Media
from master.state import queries
from tests.simulation.stage import Stage
from tests.simulation.taps import Taps


class CustodyMonitor:
    """Looks at files that go, and at versions that are taken."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._allowed = 0  # deletions that go on just now

    def attach(self, taps: Taps) -> None:
        taps.around(DataDir, "remove", self._allowing)
        taps.around(DataDir, "create", self._allowing)  # frees what it could not make
        taps.around(Quarantine, "_remove", self._from_quarantine)
        taps.around(Media, "unlink", self._unlink)
        taps.around(Replica, "fence", self._fence)

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
        living = [server for name, server in masters if self._stage.world.is_alive(name)]
        found = [queries.chunk_by_handle(server.tables, handle) for server in living]
        known = [chunk.version for _, _, chunk in filter(None, found)]
        if known and version > max(known):
            text = f"{current_env.get().name} takes version {version} of chunk {handle:x}"
            self._stage.broken("chunks.ahead", f"{text}, the masters know {max(known)}")
        original(replica, version, state)
