"""Which chunks of a file were written and not synced: what an fsync has to cover. Pure bookkeeping.

Kept beyond the file's closing, since fsync covers what earlier handles wrote. With each chunk goes
the number of its last acknowledged packet, by which a sync knows what it covers, and the chunk's
`losses` (see `ChunkLocation`) when the oldest of what is not synced was acknowledged: a sync that
succeeds under another number cannot vouch for it. That is found out once, then the chunk counts
as it is now. A chunk with another handle is another chunk: the old one was cut off.
"""

from __future__ import annotations

from dataclasses import dataclass

from dfs.messages.metadata import ChunkLocation


@dataclass(slots=True)
class _Mark:
    handle: int
    losses: int  # of the chunk, when the first packet after its last sync was acknowledged
    newest: int  # number of the last acknowledged packet


class Unsynced:
    """The chunks of one file that need a sync."""

    __slots__ = ("_marks", "acknowledged")

    def __init__(self) -> None:
        self._marks: dict[int, _Mark] = {}  # by chunk index
        self.acknowledged = 0  # packets; the number of the newest

    def __bool__(self) -> bool:
        return bool(self._marks)

    def chunks(self) -> list[int]:
        """Their indexes, rising."""
        return sorted(self._marks)

    def written(self, location: ChunkLocation) -> None:
        """A packet was acknowledged by the chunk as it is here."""
        self.acknowledged += 1
        mark = self._marks.get(location.index)
        if mark is None or mark.handle != location.handle:
            mark = _Mark(location.handle, location.losses, self.acknowledged)
            self._marks[location.index] = mark
        mark.newest = self.acknowledged

    def synced(self, index: int, covers: int, location: ChunkLocation | None) -> bool:
        """All packets up to `covers` are durable; whether that is so, as far as can be known.

        `location` is the chunk as it was synced, None when there is none any more.
        """
        mark = self._marks.get(index)
        if mark is None:
            return True
        same = location is not None and location.handle == mark.handle
        intact = location is None or not same or location.losses == mark.losses
        if mark.newest <= covers:
            del self._marks[index]
        elif location is not None and same:
            mark.losses = location.losses
        return intact
