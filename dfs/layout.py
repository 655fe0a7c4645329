"""The sizes that every process must agree on, and the arithmetic of files, chunks and blocks.

A file is a sequence of chunks, a chunk a sequence of blocks. Chunk `i` of a file holds the bytes
[i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES); a chunk that was never written does not exist and reads
as zeros. A checksum covers one block. These numbers are part of the on-disk format.
"""

from __future__ import annotations

from collections.abc import Iterator

BLOCK_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024 * 1024
BLOCKS_PER_CHUNK = CHUNK_BYTES // BLOCK_BYTES

NAME_MAX_BYTES = 255
PATH_MAX_BYTES = 4096
SYMLINK_MAX_BYTES = 4095
FILE_MAX_BYTES = 2**63 - 1
XATTR_NAME_MAX_BYTES = 255
XATTR_VALUE_MAX_BYTES = 64 * 1024
LINK_MAX = 2**31 - 1

ROOT_INODE = 1


def chunk_spans(offset: int, length_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Cut a range of a file at chunk borders: (chunk index, offset in chunk, length) each."""
    end = offset + length_bytes
    while offset < end:
        index, within = divmod(offset, CHUNK_BYTES)
        length = min(CHUNK_BYTES - within, end - offset)
        yield index, within, length
        offset += length


def block_pieces(offset: int, length_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut a range of a chunk at block borders: (offset in chunk, length) each."""
    end = offset + length_bytes
    while offset < end:
        length = min(BLOCK_BYTES - offset % BLOCK_BYTES, end - offset)
        yield offset, length
        offset += length
