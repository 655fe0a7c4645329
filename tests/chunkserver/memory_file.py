"""A file in memory that can die in the middle of its k-th change, as a killed process does.

What reached the "page cache" before the kill stays, which is what kill -9 (not power loss) means.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from dfs.runtime import Buffer

PAGE_BYTES = 4096


class Killed(BaseException):
    """The process that used the file is gone; nothing in production code catches this."""


class MemoryFile:
    """Implements `dfs.runtime.File`. `kill_at` counts changes (pwrite, truncate) from 1 on."""

    def __init__(self, content: bytearray | None = None) -> None:
        self.content = bytearray() if content is None else content
        self.changes = 0
        self.kill_at = 0
        self.tear = 0.5  # how much of the k-th pwrite still arrives
        self.capacity_bytes = 1 << 40
        self.syncs = 0

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        piece = self.content[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def pread_cached(self, buffer: memoryview, offset: int) -> int | None:
        return self.pread_into(buffer, offset)

    def pwrite(self, buffers: Sequence[Buffer], offset: int) -> None:
        data = b"".join(bytes(b) for b in buffers)
        self.changes += 1
        if self.changes == self.kill_at:
            self._put(data[: self._torn(len(data))], offset)
            raise Killed
        if offset + len(data) > self.capacity_bytes:
            self._put(data[: max(0, self.capacity_bytes - offset)], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._put(data, offset)

    def _torn(self, length_bytes: int) -> int:
        cut = int(length_bytes * self.tear)
        return cut if length_bytes <= PAGE_BYTES else cut // PAGE_BYTES * PAGE_BYTES

    def _put(self, data: bytes, offset: int) -> None:
        if data:
            self.content.extend(bytes(max(0, offset - len(self.content))))
            self.content[offset : offset + len(data)] = data

    def datasync(self) -> None:
        self.syncs += 1

    def truncate(self, length_bytes: int) -> None:
        self.changes += 1
        if self.changes == self.kill_at:
            raise Killed
        del self.content[length_bytes:]
        self.content.extend(bytes(length_bytes - len(self.content)))

    def punch(self, offset: int, length_bytes: int) -> None:
        end = min(offset + length_bytes, len(self.content))
        self.content[offset:end] = bytes(max(0, end - offset))

    def forget(self, offset: int, length_bytes: int) -> None: ...

    def size(self) -> int:
        return len(self.content)

    def close(self) -> None: ...
