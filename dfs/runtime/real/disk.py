"""Files over the operating system's calls.

Every descriptor is O_CLOEXEC; files are made 0600 and directories 0700, since they hold other
people's data and the cluster's key. `write_file` leaves a `.tmp` sibling when the process dies in
the middle; the next `write_file` of that path overwrites it.

`sync_delay_s` makes every sync that much longer, in the thread that calls it: how tests and the
`debug_sync_delay_ms` of the configuration show that nobody waits for a slow disk but who must.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import time
from collections.abc import Callable, Sequence

import xxhash

from dfs.runtime.disk import DiskSpace
from dfs.runtime.network import Buffer, remaining
from dfs.runtime.real.key_value import RealKeyValue, verify_file

IOV_MAX = os.sysconf("SC_IOV_MAX")
TEMPORARY_SUFFIX = ".tmp"
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
_ZEROS = bytes(1 << 16)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class RealFile:
    """One file descriptor."""

    def __init__(self, path: str, descriptor: int, settle: Callable[[], None]) -> None:
        self._path = path
        self._fd = descriptor
        self._settle = settle
        self._may_read_cached = True

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        filled = 0
        while filled < len(buffer):
            got = os.preadv(self._fd, [buffer[filled:]], offset + filled)
            if got == 0:
                break
            filled += got
        return filled

    def pread_cached(self, buffer: memoryview, offset: int) -> int | None:
        """None also where the file system has no RWF_NOWAIT (overlayfs, tmpfs before 6.x)."""
        filled = 0
        while self._may_read_cached and filled < len(buffer):
            try:
                got = os.preadv(self._fd, [buffer[filled:]], offset + filled, os.RWF_NOWAIT)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._may_read_cached = False
                return None
            if got == 0:
                return filled
            filled += got
        return filled if self._may_read_cached else None

    def pwrite(self, buffers: Sequence[Buffer], offset: int) -> None:
        rest = [b for b in buffers if len(b)]
        while rest:
            written = os.pwritev(self._fd, rest[:IOV_MAX], offset)
            offset += written
            rest = remaining(rest, written)

    def datasync(self) -> None:
        self._settle()
        if self._fd < 0:  # which Python takes for a wrong value, not for an error of the system
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._path)
        os.fdatasync(self._fd)

    def truncate(self, length_bytes: int) -> None:
        os.ftruncate(self._fd, length_bytes)

    def punch(self, offset: int, length_bytes: int) -> None:
        if length_bytes <= 0:
            return
        if _libc.fallocate(self._fd, _PUNCH_HOLE_KEEP_SIZE, offset, length_bytes) == 0:
            return
        code = ctypes.get_errno()
        if code != errno.EOPNOTSUPP:
            raise OSError(code, os.strerror(code), self._path)
        self._write_zeros(offset, min(offset + length_bytes, self.size()))

    def _write_zeros(self, start: int, end: int) -> None:
        while start < end:
            step = min(len(_ZEROS), end - start)
            self.pwrite([memoryview(_ZEROS)[:step]], start)
            start += step

    def forget(self, offset: int, length_bytes: int) -> None:
        try:
            os.posix_fadvise(self._fd, offset, length_bytes, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ESPIPE, errno.ENOSYS):
                raise  # EBADF: a bug

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class RealDisk:
    """The machine's file systems."""

    def __init__(self, sync_delay_s: float = 0.0) -> None:
        self._sync_delay_s = sync_delay_s
        self._locks: list[int] = []

    def boot(self) -> int:
        with open(_BOOT_ID, "rb") as file:
            return xxhash.xxh3_64_intdigest(file.read().strip()) or 1

    def open(self, path: str, *, write: bool = False, create: bool = False) -> RealFile:
        flags = os.O_CLOEXEC | (os.O_RDWR if write else os.O_RDONLY) | (os.O_CREAT if create else 0)
        return RealFile(path, os.open(path, flags, 0o600), self._settle)

    def read_file(self, path: str) -> bytes:
        file = self.open(path)
        try:
            data = bytearray(file.size())
            got = file.pread_into(memoryview(data), 0)
            return bytes(data[:got])
        finally:
            file.close()

    def write_file(self, path: str, data: bytes) -> None:
        temporary = path + TEMPORARY_SUFFIX
        file = self.open(temporary, write=True, create=True)
        try:
            file.truncate(0)
            file.pwrite([data], 0)
            file.datasync()
        finally:
            file.close()
        os.rename(temporary, path)
        _sync_directory(os.path.dirname(path))

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        """With its parents, each made durable in its own parent."""
        path = os.path.abspath(path)
        if os.path.isdir(path):
            return
        self.make_directory(os.path.dirname(path))
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        _sync_directory(os.path.dirname(path))

    def list_directory(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def sync_directory(self, path: str) -> None:
        self._settle()
        _sync_directory(path)

    def space(self, path: str) -> DiskSpace:
        status = os.statvfs(path)
        return DiskSpace(
            total_bytes=status.f_blocks * status.f_frsize,
            free_bytes=status.f_bavail * status.f_frsize,
        )

    def lock(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise OSError(error.errno, "another process holds this lock", path) from None
        self._locks.append(fd)

    def unlock_all(self) -> None:
        """Give up the locks, as the end of the process does."""
        while self._locks:
            os.close(self._locks.pop())

    def open_key_value(self, path: str, tables: Sequence[str], map_size_bytes: int) -> RealKeyValue:
        return RealKeyValue(path, tables, map_size_bytes, self._settle)

    def verify_key_value(self, path: str) -> None:
        verify_file(path)

    def _settle(self) -> None:
        if self._sync_delay_s > 0:
            time.sleep(self._sync_delay_s)


def _sync_directory(path: str) -> None:
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
