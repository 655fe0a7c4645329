"""What is bounded stays within its bounds (C9): checked where something is put in.

Proposals and batches of the masters, their inboxes, calls and bytes under way on a connection,
windows of the chains, replicas held open. Bounds come from each node's own configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chunkserver.chain import Window
from chunkserver.store import Store
from dfs.rpc.calls import Calls
from master.raft import RaftNode
from master.raft.proposals import Proposals
from tests.simulation.stage import Stage
from tests.simulation.taps import Taps


class BoundsMonitor:
    """Looks at a thing right after it has grown."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def attach(self, taps: Taps) -> None:
        for owner, name, check in (
            (Proposals, "submit", self._proposals),
            (Proposals, "begin", self._proposals),
            (RaftNode, "_received", self._inbox),
            (Calls, "begin", self._calls),
            (Window, "_take", self._window),
            (Store, "_keep_open", self._open),
        ):
            taps.around(owner, name, _then(check))

    async def finish(self) -> None:
        """All has been seen while it happened."""

    def _within(self, what: str, value: int, limit: int) -> None:
        self._stage.reach["saw.bounds"] += 1
        if value > limit:
            self._stage.broken("bounds", f"{what}: {value}, {limit} at most")

    def _proposals(self, proposals: Proposals) -> None:
        limits = proposals._limits
        self._within("proposals that wait", len(proposals), limits.max_pending)
        under_way = len(proposals._in_flight)
        self._within("batches under way", under_way, limits.max_batches_in_flight)

    def _inbox(self, node: RaftNode) -> None:
        self._within("a master's inbox", len(node._inbox), node.limits.max_inbox)

    def _calls(self, calls: Calls) -> None:
        self._within("calls under way", len(calls), calls._limit)

    def _window(self, window: Window) -> None:
        self._within("requests to a link", window._requests, window._max_requests)
        if window._requests > 1:  # a single one may be larger than all that several may take
            self._within("bytes to a link", window._bytes, window._max_bytes)

    def _open(self, store: Store) -> None:
        limit, turns = store._limits.max_open_replicas, store.turns
        if store.open_count > limit:  # those in use may be more
            entries = [store._index[handle] for handle in store._open]
            used = [e for e in entries if turns.busy(e.handle) or (e.replica and e.replica.pins)]
            self._within("open replicas", store.open_count, limit + len(used))


def _then(check: Callable[[Any], None]) -> Callable[..., Any]:
    def wrapper(original: Callable[..., Any], owner: Any, *arguments: Any, **named: Any) -> Any:
        answer = original(owner, *arguments, **named)
        check(owner)
        return answer

    return wrapper
