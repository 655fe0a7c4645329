"""The packet grid: files cut into slots of one packet, so that no packet crosses a chunk border.

Slots are numbered through the file. Dirty data is sent, and read-ahead data cached, slot by slot.
"""

from __future__ import annotations

from collections.abc import Iterator

from dfs.layout import CHUNK_BYTES


class Grid:
    """The arithmetic of slots of `packet_bytes`; a chunk's last slot may be shorter."""

    def __init__(self, packet_bytes: int) -> None:
        self.packet_bytes = min(packet_bytes, CHUNK_BYTES)
        self._per_chunk = -(-CHUNK_BYTES // self.packet_bytes)

    def slot_at(self, offset: int) -> int:
        """The slot that holds that byte of the file."""
        index, within = divmod(offset, CHUNK_BYTES)
        return index * self._per_chunk + within // self.packet_bytes

    def chunk_of(self, slot: int) -> int:
        """The index of the chunk that the slot lies in."""
        return slot // self._per_chunk

    def bounds(self, slot: int) -> tuple[int, int]:
        """The slot's first byte of the file, and the one after its last."""
        index, at = divmod(slot, self._per_chunk)
        start = index * CHUNK_BYTES + at * self.packet_bytes
        return start, min(start + self.packet_bytes, (index + 1) * CHUNK_BYTES)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Cut a range of the file at slot borders: (slot, start, stop) each."""
        while start < stop:
            slot = self.slot_at(start)
            end = min(self.bounds(slot)[1], stop)
            yield slot, start, end
            start = end
