"""Bytes with holes: what a file should hold, and what a fake replica does."""

from __future__ import annotations

PIECE = 64 * 1024


class SparseBytes:
    """Like a bytearray that costs only what is written; equal by content."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self.size = 0

    def write(self, offset: int, data: bytes) -> None:
        at, stop = offset, offset + len(data)
        while at < stop:
            piece, within = divmod(at, PIECE)
            count = min(PIECE - within, stop - at)
            old = self._pieces.get(piece, bytes(PIECE))
            part = data[at - offset : at - offset + count]
            self._pieces[piece] = old[:within] + part + old[within + count :]
            at += count
        if data:
            self.size = max(self.size, stop)

    def truncate(self, size: int) -> None:
        if size < self.size:
            piece, within = divmod(size, PIECE)
            self._pieces = {p: d for p, d in self._pieces.items() if p <= piece}
            if piece in self._pieces:
                self._pieces[piece] = self._pieces[piece][:within] + bytes(PIECE - within)
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Fewer bytes than asked where it ends."""
        stop = min(offset + length, self.size)
        if stop <= offset:
            return b""
        first, last = offset // PIECE, (stop - 1) // PIECE
        whole = b"".join(self._pieces.get(p, bytes(PIECE)) for p in range(first, last + 1))
        return whole[offset - first * PIECE : stop - first * PIECE]

    def copy(self) -> SparseBytes:
        made = SparseBytes()
        made._pieces, made.size = dict(self._pieces), self.size
        return made

    def __bytes__(self) -> bytes:
        return self.read(0, self.size)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, bytes):
            return bytes(self) == other
        if not isinstance(other, SparseBytes):
            return NotImplemented
        return self.size == other.size and self._content() == other._content()

    def __hash__(self) -> int:
        raise TypeError("SparseBytes can change")

    def __bool__(self) -> bool:
        return self.size > 0

    def __repr__(self) -> str:
        return f"SparseBytes({self.size} bytes, {len(self._pieces)} pieces)"

    def _content(self) -> dict[int, bytes]:
        return {p: d for p, d in self._pieces.items() if d.count(0) < PIECE}
