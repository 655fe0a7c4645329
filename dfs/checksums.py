"""Block checksums (C5): xxh3_64 of each piece that a range of a chunk covers.

A range is cut at block borders; each piece, whole block or not, has a checksum of its own. The
packed form is 8 bytes big-endian each, in order. The writer computes them once from its own
memory; every receiver verifies.
"""

from __future__ import annotations

import struct

import xxhash

from dfs.errors import Code, Failure
from dfs.layout import block_pieces
from dfs.runtime.network import Buffer


def checksum(data: Buffer) -> int:
    """xxh3_64 of the bytes."""
    return xxhash.xxh3_64_intdigest(data)


def piece_checksums(data: Buffer, offset: int) -> bytes:
    """The packed checksums of `data` standing at `offset` of a chunk."""
    view, start = memoryview(data), offset
    sums = [
        xxhash.xxh3_64_intdigest(view[at - start : at - start + length])
        for at, length in block_pieces(offset, len(view))
    ]
    return struct.pack(f">{len(sums)}Q", *sums)


def unpack_checksums(packed: bytes) -> tuple[int, ...]:
    """The checksums as integers."""
    return struct.unpack(f">{len(packed) // 8}Q", packed)


def verify(data: Buffer, offset: int, packed: bytes, about: str) -> None:
    """Raise Failure(CORRUPT) unless the packed checksums are those of `data` at `offset`.

    `about` names what was checked (chunk, replica, peer) for the error's sentence.
    """
    if piece_checksums(data, offset) != packed:
        text = f"{about}: checksum mismatch in [{offset}, {offset + len(memoryview(data))})"
        raise Failure(Code.CORRUPT, text)
