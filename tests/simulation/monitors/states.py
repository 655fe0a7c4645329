"""Masters that have applied the same hold the same: their states' digests, every few seconds.

A digest is kept by index, over all masters and all their lives.
"""

from __future__ import annotations

from collections.abc import Callable

from master.raft import RaftNode
from master.state import queries
from tests.simulation.stage import Stage
from tests.simulation.taps import Taps

EVERY = 50  # entries: each master's state is looked at there, and at the end


class StateMonitor:
    """Compares each master with those that were at the same index before it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._digests: dict[int, tuple[str, str]] = {}  # index -> who was there first, digest

    def attach(self, taps: Taps) -> None:
        taps.around(RaftNode, "apply", self._apply)

    async def finish(self) -> None:
        """The masters agree by now."""
        for name, server in sorted(self._stage.cluster.running.items()):
            if self._stage.world.is_alive(name):
                self._compare(name, server.raft.applied_index)

    def _apply(
        self, original: Callable[..., None], node: RaftNode, command: bytes, index: int, term: int
    ) -> None:
        original(node, command, index, term)
        if index % EVERY == 0:
            self._compare(node._env.name, index)

    def _compare(self, name: str, index: int) -> None:
        self._stage.reach["saw.state_hash"] += 1
        digest = queries.state_digest(self._stage.cluster.running[name].tables)
        first, known = self._digests.setdefault(index, (name, digest))
        if digest != known:
            self._stage.broken("states", f"{first} and {name} differ at index {index}")
