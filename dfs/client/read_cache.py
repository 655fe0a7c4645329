"""Data read ahead, verified and clean: one bounded cache per client, the oldest use goes first.

Kept per inode and slot of the packet grid, as pieces that are never changed: a write cuts what it
covers out of them. Pure bookkeeping without I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from dfs.runtime.network import Buffer

PIECES_PER_SLOT = 64  # cut up more finely than that, the slot is dropped


@dataclass(slots=True)
class _Piece:
    start: int
    stop: int
    data: memoryview


class ReadCache:
    """Clean data of all files, at most `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._slots: OrderedDict[tuple[int, int], list[_Piece]] = OrderedDict()
        self._held: dict[tuple[int, int], int] = {}  # bytes of the buffers under each slot
        self._by_inode: dict[int, dict[int, None]] = {}
        self.used_bytes = 0
        self._reserved_bytes = 0

    def reserve(self, size_bytes: int) -> bool:
        """Make room for data about to be fetched; False when too much is being fetched already."""
        if self._reserved_bytes + size_bytes > self._limit_bytes:
            return False
        self._reserved_bytes += size_bytes
        self._make_room(0)
        return True

    def unreserve(self, size_bytes: int) -> None:
        """The data has come (`put` it now), or it will not."""
        self._reserved_bytes -= size_bytes

    def get(self, inode: int, slot: int, start: int, stop: int) -> memoryview | None:
        """Bytes [start, stop) of the file, if one piece has them all."""
        pieces = self._slots.get((inode, slot))
        if pieces is None:
            return None
        for piece in pieces:
            if piece.start <= start and stop <= piece.stop:
                self._slots.move_to_end((inode, slot))
                return piece.data[start - piece.start : stop - piece.start]
        return None

    def put(self, inode: int, slot: int, start: int, data: Buffer) -> None:
        """Keep what was read at `start`, in place of what the slot had."""
        self._remove((inode, slot))
        size = len(data)
        self._make_room(size)
        if size > self._limit_bytes:
            return
        self._slots[inode, slot] = [_Piece(start, start + size, memoryview(data))]
        self._held[inode, slot] = size
        self._by_inode.setdefault(inode, {})[slot] = None
        self.used_bytes += size

    def cut_out(self, inode: int, slot: int, start: int, stop: int) -> None:
        """Forget bytes [start, stop), which have been overwritten."""
        pieces = self._slots.get((inode, slot))
        if pieces is None:
            return
        left: list[_Piece] = []
        for piece in pieces:
            for low, high in (
                (piece.start, min(piece.stop, start)),
                (max(piece.start, stop), piece.stop),
            ):
                if low < high:
                    left.append(
                        _Piece(low, high, piece.data[low - piece.start : high - piece.start])
                    )
        if left and len(left) <= PIECES_PER_SLOT:
            self._slots[inode, slot] = left
        else:
            self._remove((inode, slot))

    def drop(self, inode: int) -> None:
        """Forget everything of a file."""
        for slot in list(self._by_inode.get(inode, ())):
            self._remove((inode, slot))

    def _make_room(self, size_bytes: int) -> None:
        allowed = self._limit_bytes - self._reserved_bytes - size_bytes
        while self._slots and self.used_bytes > allowed:
            self._remove(next(iter(self._slots)))

    def _remove(self, key: tuple[int, int]) -> None:
        if self._slots.pop(key, None) is None:
            return
        self.used_bytes -= self._held.pop(key)
        slots = self._by_inode[key[0]]
        del slots[key[1]]
        if not slots:
            del self._by_inode[key[0]]
