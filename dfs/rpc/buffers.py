"""Reusable buffers for the payloads of requests.

A fresh megabyte costs page faults for each request; a used one costs nothing. The pool keeps at
most `limit_bytes` of idle buffers; whatever is returned beyond that is left to the collector.
How much is in use at a time is bounded by each connection, not here.
"""

from __future__ import annotations

_SMALLEST_BYTES = 64 << 10


class BufferPool:
    """Idle buffers by size; sizes are powers of two."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._idle_bytes = 0
        self._idle: dict[int, list[bytearray]] = {}

    @property
    def idle_bytes(self) -> int:
        """How much the pool holds right now."""
        return self._idle_bytes

    def take(self, length_bytes: int) -> bytearray:
        """A buffer of at least that length, with arbitrary contents."""
        size = max(_SMALLEST_BYTES, 1 << (length_bytes - 1).bit_length())
        idle = self._idle.get(size)
        if not idle:
            return bytearray(size)
        self._idle_bytes -= size
        return idle.pop()

    def give_back(self, buffer: bytearray) -> None:
        """Return a buffer from `take`; nobody may use it any more."""
        size = len(buffer)
        if self._idle_bytes + size <= self._limit_bytes:
            self._idle_bytes += size
            self._idle.setdefault(size, []).append(buffer)
