"""What is on its replicas and not yet part of the file: packets between their answer and a commit.

Packets are answered in any order. A commit takes those that no unfinished write precedes, so the
file never becomes longer by a write while an earlier one may still be lost with the client (C4).
"""

from __future__ import annotations

from collections.abc import Callable

FOLD = 1024  # packets, after which those that may go together are put together


class Uncommitted:
    """One file's. `unfinished` tells the number of its oldest unfinished write."""

    def __init__(self, unfinished: Callable[[], int]) -> None:
        self._unfinished = unfinished
        self._packets: list[tuple[int, int]] = []  # number of the oldest write, end in the file

    def __bool__(self) -> bool:
        return bool(self._packets)

    def add(self, oldest: int, end_bytes: int) -> None:
        """A packet is on its replicas."""
        self._packets.append((oldest, end_bytes))
        if not len(self._packets) % FOLD:
            end = self.take()
            if end is not None:
                self.put_back(end)

    def take(self) -> int | None:
        """The end of what may be committed now, which is no longer here; None for nothing."""
        before = self._unfinished()
        ends = [end for oldest, end in self._packets if oldest < before]
        self._packets = [p for p in self._packets if p[0] >= before]
        return max(ends, default=None)

    def put_back(self, end_bytes: int) -> None:
        """What was taken is not known to be committed: the next commit tries again."""
        self._packets.append((0, end_bytes))

    def end(self) -> int:
        """The end of the furthest byte, 0 for none."""
        return max((end for _, end in self._packets), default=0)

    def cut(self, size_bytes: int) -> None:
        """The file has been cut to that size."""
        self._packets = [(oldest, min(end, size_bytes)) for oldest, end in self._packets]

    def clear(self) -> None:
        self._packets.clear()
