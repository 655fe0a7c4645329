"""Every line of fuse/LIMITS.md on a real mount. When one fails, the table has to change."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
import time
from pathlib import Path

import pytest

from tests.fuse.test_mounted_files import opened, refused

pytestmark = pytest.mark.mount

LIBC = ctypes.CDLL(None, use_errno=True)
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_KEEP_SIZE = 0x01
FICLONE = 0x40049409
FS_IOC_GETFLAGS = 0x80086601
STATX_BTIME = 0x800
STATX_MASK_OFFSET = 0
ST_NOSUID, ST_NODEV = 2, 4


def call(function: object, *arguments: object) -> int:
    """A call of the C library that sets errno."""
    result = int(function(*arguments))  # type: ignore[operator]
    if result < 0:
        raise OSError(ctypes.get_errno(), str(function))
    return result


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    call(LIBC.fallocate, descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length))


def test_locks_work_between_processes_of_one_mount(mounted: Path) -> None:
    with (
        opened(mounted / "f", os.O_CREAT | os.O_RDWR) as one,
        opened(mounted / "f", os.O_RDWR) as two,
    ):
        fcntl.flock(one, fcntl.LOCK_EX)
        with refused(errno.EWOULDBLOCK):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.lockf(one, fcntl.LOCK_EX, 10)
        child = os.fork()
        if child == 0:
            try:
                fcntl.lockf(two, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)
            except BlockingIOError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_fallocate_is_not_supported_but_its_replacement_works(mounted: Path) -> None:
    with opened(mounted / "f", os.O_CREAT | os.O_RDWR) as file:
        with refused(errno.EOPNOTSUPP):
            fallocate(file, 0, 0, 1 << 20)
        with refused(errno.EOPNOTSUPP):
            fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096)
        os.posix_fallocate(file, 0, 20_000)  # the C library writes instead
        assert os.fstat(file).st_size == 20_000


def test_holes_are_not_told_from_data(mounted: Path) -> None:
    with opened(mounted / "f", os.O_CREAT | os.O_RDWR) as file:
        os.pwrite(file, b"x", 1 << 20)
        assert os.lseek(file, 0, os.SEEK_DATA) == 0
        assert os.lseek(file, 0, os.SEEK_HOLE) == (1 << 20) + 1


def test_copy_file_range_copies_through_the_client(mounted: Path) -> None:
    (mounted / "f").write_bytes(b"x" * 100_000)
    flags = os.O_CREAT | os.O_RDWR
    with opened(mounted / "f", os.O_RDONLY) as source, opened(mounted / "g", flags) as target:
        assert os.copy_file_range(source, target, 100_000) == 100_000
    assert (mounted / "g").read_bytes() == b"x" * 100_000


def test_ioctls_and_reflinks_are_not_supported(mounted: Path) -> None:
    flags = os.O_CREAT | os.O_RDWR
    with opened(mounted / "f", flags) as file, opened(mounted / "g", flags) as other:
        with refused(errno.ENOTTY, errno.ENOSYS):
            fcntl.ioctl(file, FS_IOC_GETFLAGS, struct.pack("l", 0))
        with refused(errno.EOPNOTSUPP, errno.ENOTTY):
            fcntl.ioctl(file, FICLONE, other)


def test_temporary_files_without_a_name_are_not_supported(mounted: Path) -> None:
    with refused(errno.EOPNOTSUPP):
        os.open(mounted, os.O_TMPFILE | os.O_RDWR)


def test_syncfs_and_sync_succeed(mounted: Path) -> None:
    with opened(mounted / "f", os.O_CREAT | os.O_RDWR) as file:
        os.write(file, b"x")
        assert call(LIBC.syncfs, file) == 0


def test_there_is_no_birth_time(mounted: Path) -> None:
    (mounted / "f").touch()
    buffer = ctypes.create_string_buffer(256)
    call(LIBC.statx, -100, os.fsencode(mounted / "f"), 0, STATX_BTIME | 0x7FF, buffer)
    mask = struct.unpack_from("I", buffer, STATX_MASK_OFFSET)[0]
    assert not mask & STATX_BTIME


def test_reading_leaves_the_access_time(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"x")
    os.utime(path, ns=(1, time.time_ns()))
    assert path.read_bytes() == b"x"
    assert path.stat().st_atime_ns == 1


def test_device_nodes_and_setuid_have_no_effect(mounted: Path) -> None:
    assert os.statvfs(mounted).f_flag & (ST_NOSUID | ST_NODEV) == ST_NOSUID | ST_NODEV
    if os.geteuid() == 0:
        os.mknod(mounted / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        with refused(errno.EACCES):
            os.open(mounted / "null", os.O_RDONLY)


def test_fifos_and_sockets_work(mounted: Path) -> None:
    os.mkfifo(mounted / "p")
    with opened(mounted / "p", os.O_RDWR) as pipe:
        os.write(pipe, b"x")
        assert os.read(pipe, 1) == b"x"


def test_a_file_written_past_the_cache_cannot_be_mapped_through_that_descriptor(
    mounted: Path,
) -> None:
    """It could not anyway: mapping needs a descriptor that can read."""
    import mmap

    with opened(mounted / "f", os.O_CREAT | os.O_WRONLY) as file:
        os.ftruncate(file, 4096)
        with refused(errno.EACCES):
            mmap.mmap(file, 4096, prot=mmap.PROT_WRITE)


def test_inotify_tells_of_changes_through_this_mount(mounted: Path) -> None:
    descriptor = call(LIBC.inotify_init1, os.O_NONBLOCK)
    try:
        call(LIBC.inotify_add_watch, descriptor, os.fsencode(mounted), 0x100)  # IN_CREATE
        (mounted / "new").touch()
        assert b"new" in os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
