"""Which chunks of a file were written and not synced: what an fsync has to cover. Pure bookkeeping.

Kept beyond the file's closing, since fsync covers what earlier handles wrote. With each chunk goes
the number of its last acknowledged packet, by which a sync knows what it covers, and the chunk's
`losses` (see `ChunkLocation`) when the oldest of what is not synced was acknowledged: a sync that
succeeds under another number cannot vouch for it. That is found out once, then the chunk counts
as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Mark:
    newest: int  # number of the last acknowledged packet
    losses: int  # of the chunk, when the first packet after its last sync was acknowledged


class Unsynced:
    """The chunks of one file that need a sync."""

    def __init__(self) -> None:
        self._marks: dict[int, _Mark] = {}  # by chunk index
        self.acknowledged = 0  # packets; the number of the newest

    def __bool__(self) -> bool:
        return bool(self._marks)

    def chunks(self) -> list[int]:
        """Their indexes, rising."""
        return sorted(self._marks)

    def written(self, index: int, losses: int) -> None:
        """A packet was acknowledged by a chunk that had this number of losses."""
        self.acknowledged += 1
        mark = self._marks.get(index)
        if mark is None:
            self._marks[index] = _Mark(self.acknowledged, losses)
        else:
            mark.newest = self.acknowledged

    def synced(self, index: int, covers: int, losses: int | None) -> bool:
        """All packets up to `covers` are durable; whether that is so, as far as can be known.

        `losses` is the chunk's number now, None when the chunk is no more.
        """
        mark = self._marks.get(index)
        if mark is None:
            return True
        intact = losses is None or losses == mark.losses
        if mark.newest <= covers:
            del self._marks[index]
        elif losses is not None:
            mark.losses = losses
        return intact
