"""How far to read ahead of one handle: nothing for random access, ever more for sequential.

A kernel that reads ahead itself has several requests under way and sends them in no strict order,
so an offset near the expected one counts as sequential.
"""

from __future__ import annotations

from dfs.config import ClientLimits


class ReadAhead:
    """Watches the reads of one handle."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._expected = 0
        self._window_bytes = 0

    def note(self, start: int, stop: int) -> int:
        """A read of [start, stop); how many bytes beyond `stop` to fetch, 0 for random access."""
        near = 2 * self._limits.packet_bytes
        if abs(start - self._expected) > near:
            self._expected, self._window_bytes = stop, 0
            return 0
        most = self._limits.read_ahead_bytes
        if stop > self._expected or not self._window_bytes:
            grown = max(2 * self._window_bytes, 2 * (stop - start), self._limits.packet_bytes)
            self._window_bytes = min(grown, most)
        self._expected = max(self._expected, stop)
        return self._window_bytes
