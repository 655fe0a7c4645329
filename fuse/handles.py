"""The open files of one mount, by the handle numbers that the kernel keeps.

A handle number is used once. `Handles` also counts the writers of each inode, because some things
may be remembered exactly while this mount writes a file.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import trio

from dfs.errors import Failure
from fuse.backend import BackendFile
from fuse.errors import refusal

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Handle:
    """One open file and how it was opened."""

    file: BackendFile
    flags: int

    @property
    def writes(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY


def passes_page_cache(flags: int) -> bool:
    """Whether a file opened with these flags is written past the kernel's page cache.

    Measured: a third of the time for a write of 128 KiB and more, because nothing is copied page
    by page, and half of it for 4 KiB, because the kernel asks for `security.capability` before
    every write through its cache. It keeps such writes coherent with cached readers and mappings
    of the same mount. Only O_WRONLY, since a direct file could not be mapped shared; and not with
    O_SYNC or O_DSYNC, because the kernel asks for the sync after each write only on the other path.
    """
    return flags & os.O_ACCMODE == os.O_WRONLY and not flags & (os.O_SYNC | os.O_DSYNC)


class Handles:
    """Open files. `last_writer_left(inode)` is called when no handle of it writes any more."""

    def __init__(self, last_writer_left: Callable[[int], None]) -> None:
        self._handles: dict[int, Handle] = {}
        self._writers: dict[int, int] = {}
        self._last_writer_left = last_writer_left
        self._next = 1

    def __len__(self) -> int:
        return len(self._handles)

    def add(self, file: BackendFile, flags: int) -> int:
        """Keep an open file; its handle number."""
        number = self._next
        self._next += 1
        handle = self._handles[number] = Handle(file, flags)
        if handle.writes:
            self._writers[file.inode] = self._writers.get(file.inode, 0) + 1
        return number

    def get(self, number: int) -> Handle:
        handle = self._handles.get(number)
        if handle is None:
            raise refusal(errno.EBADF)
        return handle

    def is_written(self, inode: int) -> bool:
        """Whether this mount has the inode open for writing."""
        return inode in self._writers

    async def close(self, number: int) -> None:
        """Forget a handle and close its file. Raises Failure when the last flush failed."""
        handle = self.get(number)
        del self._handles[number]
        if handle.writes:
            self._writer_left(handle.file.inode)
        await handle.file.close()

    async def close_all(self) -> None:
        """Close what the kernel left open, at the end of a mount; failures are logged."""
        async with trio.open_nursery() as nursery:
            for number in list(self._handles):
                nursery.start_soon(self._close_logged, number)

    async def _close_logged(self, number: int) -> None:
        inode = self._handles[number].file.inode
        try:
            await self.close(number)
        except Failure as failure:
            log.error("inode %d: its last data may be lost: %s", inode, failure.message)

    def _writer_left(self, inode: int) -> None:
        self._writers[inode] -= 1
        if self._writers[inode] == 0:
            del self._writers[inode]
            self._last_writer_left(inode)
