"""The checksum table of one replica file: an entry per block, in memory and on disk.

Owns the bytes of the table (`format` says where it stands and what an entry means). What is in
memory is what counts; `write` brings it to the file, when the caller's order of writes says so.
"""

from __future__ import annotations

import struct

from chunkserver import format as layout
from chunkserver.format import ENTRY_BYTES, TABLE_BYTES, TABLE_OFFSET
from dfs.runtime import File

_ENTRY = struct.Struct(">Q")
_NO_ENTRY = bytes(ENTRY_BYTES)

pack_entry = _ENTRY.pack


class BlockTable:
    """Entries by block; `length_bytes` is the replica's wherever it is asked for."""

    def __init__(self, file: File, content: bytes = b"") -> None:
        self._file = file
        self._content = bytearray(content[:TABLE_BYTES].ljust(TABLE_BYTES, b"\0"))

    def entry(self, block: int, length_bytes: int) -> int:
        """The block's checksum; that of zeros where it was never written."""
        (entry,) = _ENTRY.unpack_from(self._content, block * ENTRY_BYTES)
        return entry or layout.zeros_checksum(layout.extent(block, length_bytes))

    def raw(self, block: int) -> bytes:
        """The block's entry as it stands in the file."""
        return bytes(self._content[block * ENTRY_BYTES : (block + 1) * ENTRY_BYTES])

    def put(self, block: int, entry: int) -> None:
        _ENTRY.pack_into(self._content, block * ENTRY_BYTES, entry)

    def put_packed(self, first: int, entries: bytes) -> None:
        """The entries of blocks in a row."""
        at = first * ENTRY_BYTES
        self._content[at : at + len(entries)] = entries

    def packed(self, first: int, stop: int, length_bytes: int) -> bytes:
        """The checksums of blocks first to stop - 1, as `dfs.checksums` packs them."""
        packed = bytes(self._content[first * ENTRY_BYTES : stop * ENTRY_BYTES])
        if _NO_ENTRY not in packed:
            return packed
        return b"".join(
            _ENTRY.pack(self.entry(block, length_bytes)) for block in range(first, stop)
        )

    def drop_beyond(self, length_bytes: int) -> None:
        """Blocks beyond the length have no entries."""
        kept = layout.block_count(length_bytes) * ENTRY_BYTES
        self._content[kept:] = bytes(TABLE_BYTES - kept)

    def write(self, first: int, stop: int) -> None:
        """Bring entries to the file. Raises OSError."""
        entries = self._content[first * ENTRY_BYTES : stop * ENTRY_BYTES]
        self._file.pwrite([entries], TABLE_OFFSET + first * ENTRY_BYTES)
