"""Reading a file on a disk with bad sectors: what is next to them can be read, and is.

A disk answers EIO for a whole read when one sector of it is bad. Every other error is raised.
"""

from __future__ import annotations

import errno

from dfs.layout import BLOCK_BYTES
from dfs.runtime import File

SECTOR_BYTES = 512


def read_around(file: File, view: memoryview, offset: int) -> tuple[int, list[int]]:
    """Fill the view: the bytes read, and which of its blocks, from 0, the disk cannot read."""
    got = _read(file, view, offset)
    if got is not None:
        return got, []
    total, bad = 0, []
    for at in range(0, len(view), BLOCK_BYTES):
        got = _read(file, view[at : at + BLOCK_BYTES], offset + at)
        if got is None:
            bad.append(at // BLOCK_BYTES)
        total += got or 0
    return total, bad


def read_cached(file: File, view: memoryview, offset: int) -> int | None:
    """`File.pread_cached`; None also for what the disk cannot read."""
    try:
        return file.pread_cached(view, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None


def salvage(file: File, offset: int, length_bytes: int) -> bytes:
    """That range, zeros where the disk cannot read it or the file has ended."""
    view = memoryview(bytearray(length_bytes))
    if _read(file, view, offset) is None:
        for at in range(0, length_bytes, SECTOR_BYTES):
            _read(file, view[at : at + SECTOR_BYTES], offset + at)
    return bytes(view)


def _read(file: File, view: memoryview, offset: int) -> int | None:
    """The bytes read; None after EIO."""
    try:
        return file.pread_into(view, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
