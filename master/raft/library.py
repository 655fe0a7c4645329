"""pysyncobj made fit for this house: its module globals replaced, no file, socket or thread.

pysyncobj 0.3.17 keeps a clock and a random source in the globals of `pysyncobj.syncobj`, opens
its own journal and poller, and writes dumps through a serializer that forks. Here the clock and
the random source become those of the running node (`dfs.runtime.current`: several nodes may share
a process), the journal is handed in ready-made, the poller does nothing, and the serializer says
only whether a snapshot can be fetched. Importing this module makes the replacement, once, for the
whole process; nothing here has state of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from pysyncobj import syncobj
from pysyncobj.config import SERIALIZER_STATE
from pysyncobj.node import Node

from dfs.runtime.current import current_env


class NumberedNode(Node):  # type: ignore[misc]  # pysyncobj has no annotations
    """A master as pysyncobj sees it. Its hash is its number, so sets iterate alike everywhere."""

    def __init__(self, id: int) -> None:
        super().__init__(id)

    def __hash__(self) -> int:
        return int(self._id)

    def __str__(self) -> str:
        return str(self._id)


class SnapshotStub:
    """Stands where pysyncobj's Serializer was. Snapshots travel out of band.

    `available` says whether a follower may be told to fetch one. There is no dump to load, to
    send in chunks or to rename (H4, H5, H13, H14): the other methods are never reached.
    """

    def __init__(self, available: Callable[[int], bool]) -> None:
        self._available = available

    def checkSerializing(self) -> tuple[int, None]:
        return SERIALIZER_STATE.NOT_SERIALIZING, None

    def getTransmissionData(self, node: NumberedNode) -> tuple[bytes, bool, bool] | None:
        """(data, is first, is last), or None while there is nothing to send."""
        return (b"", True, True) if self._available(node.id) else None

    def cancelTransmisstion(self, node: NumberedNode) -> None:
        pass


class _NoPoller:
    """Sockets are not pysyncobj's business."""

    def subscribe(self, *args: object) -> None:
        pass

    def unsubscribe(self, *args: object) -> None:
        pass

    def poll(self, timeout: float) -> None:
        pass


class _NodeRandom:
    """What pysyncobj calls of the `random` module."""

    @staticmethod
    def random() -> float:
        return current_env.get().random.random()


def _node_monotonic() -> float:
    return current_env.get().clock.monotonic()


syncobj.createJournal = lambda journal: journal
syncobj.createPoller = lambda kind: _NoPoller()
syncobj.monotonicTime = _node_monotonic
syncobj.random = _NodeRandom()
