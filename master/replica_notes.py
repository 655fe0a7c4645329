"""What the leader knows of single replicas beyond the replicated state.

A replica without a note is taken to be in order: settled, at its chunk's version. Owns the notes of
those that are not, as the servers reported them or as settling found them, and which servers are
just being given a copy. In the leader's memory alone; a new leader learns it from full reports. As
many notes as there are replicas out of order.
"""

from __future__ import annotations

from dataclasses import dataclass

from dfs.messages.chunks import ReplicaState


@dataclass(frozen=True, slots=True)
class Note:
    """One replica that is not in order; version 0: it does not exist."""

    version: int
    state: int = ReplicaState.SETTLED
    damaged: bool = False
    length_bytes: int = 0  # as reported; what a LOST one has kept


MISSING = Note(0)


class ReplicaNotes:
    """The notes, by chunk and by server."""

    def __init__(self) -> None:
        self._by_chunk: dict[int, dict[int, Note]] = {}
        self._by_server: dict[int, dict[int, None]] = {}
        self._copying: dict[tuple[int, int], int] = {}  # (server, handle) -> how many times

    def clear(self) -> None:
        """Another leadership."""
        self._by_chunk.clear()
        self._by_server.clear()
        self._copying.clear()

    def of(self, handle: int) -> dict[int, Note]:
        """The notes of one chunk's replicas, by server."""
        return self._by_chunk.get(handle, {})

    def chunks(self) -> list[int]:
        """The chunks with notes."""
        return list(self._by_chunk)

    def put(self, handle: int, server: int, note: Note) -> None:
        self._by_chunk.setdefault(handle, {})[server] = note
        self._by_server.setdefault(server, {})[handle] = None

    def drop(self, handle: int, server: int) -> None:
        """The replica is in order, or nobody's business any more."""
        notes = self._by_chunk.get(handle)
        if notes is None or notes.pop(server, None) is None:
            return
        if not notes:
            del self._by_chunk[handle]
        del self._by_server[server][handle]

    def drop_chunk(self, handle: int) -> None:
        for server in list(self.of(handle)):
            self.drop(handle, server)

    def on(self, server: int) -> tuple[int, ...]:
        """The chunks whose replica on that server has a note."""
        return tuple(self._by_server.get(server, ()))

    def drop_server(self, server: int) -> None:
        """The server is about to report anew."""
        for handle in self.on(server):
            self.drop(handle, server)

    # -- copies under way

    def begin_copy(self, server: int, handle: int) -> None:
        """The server is given a copy that does not belong to the chunk yet."""
        self._copying[server, handle] = self._copying.get((server, handle), 0) + 1

    def end_copy(self, server: int, handle: int) -> None:
        count = self._copying.pop((server, handle), 0) - 1
        if count > 0:
            self._copying[server, handle] = count

    def is_copying(self, server: int, handle: int) -> bool:
        """Whether what is there of the chunk must not be deleted, whatever the state says."""
        return (server, handle) in self._copying
