"""Files on a real mount: what the kernel and the handlers do together."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.mount

MIB = 1 << 20


@contextmanager
def opened(path: Path, flags: int, mode: int = 0o644) -> Iterator[int]:
    descriptor = os.open(path, flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def refused(*numbers: int) -> Iterator[None]:
    """The body must fail with one of these errnos."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  (the errno is checked below)
        yield
    assert caught.value.errno in numbers, caught.value


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 65537, 3 * MIB + 17])
def test_a_file_reads_as_it_was_written(mounted: Path, size: int) -> None:
    data = os.urandom(size)
    (mounted / "f").write_bytes(data)
    assert (mounted / "f").read_bytes() == data
    assert (mounted / "f").stat().st_size == size


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_SYNC])
def test_overwriting_the_middle_leaves_the_rest(mounted: Path, flags: int) -> None:
    path = mounted / "f"
    data = bytearray(os.urandom(300_000))
    path.write_bytes(data)
    with opened(path, flags) as file:
        for offset, length in ((0, 1), (4090, 20), (65_000, 70_000), (299_999, 1)):
            piece = os.urandom(length)
            assert os.pwrite(file, piece, offset) == length
            data[offset : offset + length] = piece
    assert path.read_bytes() == data


def test_an_open_reader_sees_what_another_handle_just_wrote(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"a" * 10_000)
    with opened(path, os.O_RDONLY) as reader, opened(path, os.O_WRONLY) as writer:
        assert os.pread(reader, 10_000, 0) == b"a" * 10_000  # in the page cache now
        os.pwrite(writer, b"b" * 5_000, 2_500)
        assert os.pread(reader, 10_000, 0) == b"a" * 2_500 + b"b" * 5_000 + b"a" * 2_500
        os.pwrite(writer, b"c", 20_000)
        assert os.fstat(reader).st_size == 20_001
        assert os.pread(reader, 3, 19_999) == b"\0c"


def test_two_appenders_on_one_mount_lose_nothing(mounted: Path) -> None:
    path = mounted / "log"
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    with opened(path, flags) as one, opened(path, flags) as two:
        for number in range(200):
            os.write(one if number % 3 else two, f"{number:06}\n".encode())
    assert path.read_text().split() == [f"{number:06}" for number in range(200)]


def test_appending_processes_lose_nothing(mounted: Path) -> None:
    path = mounted / "log"
    path.touch()
    children = []
    for writer in range(4):
        child = os.fork()
        if child == 0:
            with opened(path, os.O_WRONLY | os.O_APPEND) as file:
                for number in range(100):
                    os.write(file, f"{writer} {number}\n".encode())
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(f"{w} {n}" for w in range(4) for n in range(100))


def test_truncating_cuts_and_extends_with_zeros(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"x" * 10_000)
    os.truncate(path, 5_000)
    os.truncate(path, 8_000)
    assert path.read_bytes() == b"x" * 5_000 + bytes(3_000)
    with opened(path, os.O_RDWR) as file:
        os.write(file, b"y" * 9_000)
        os.ftruncate(file, 100)  # while what was written is not flushed
        assert os.fstat(file).st_size == 100
        os.ftruncate(file, 200)
    assert path.read_bytes() == b"y" * 100 + bytes(100)


def test_opening_with_o_trunc_empties_the_file(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"x" * 10_000)
    with opened(path, os.O_RDONLY) as reader:
        assert len(os.pread(reader, 20_000, 0)) == 10_000
        with opened(path, os.O_WRONLY | os.O_TRUNC) as writer:
            assert os.fstat(writer).st_size == 0
            assert os.pread(reader, 20_000, 0) == b""
            os.write(writer, b"new")
    assert path.read_bytes() == b"new"


def test_a_sparse_file_costs_what_was_written(mounted: Path) -> None:
    path = mounted / "f"
    with opened(path, os.O_CREAT | os.O_WRONLY) as file:
        os.pwrite(file, b"end", 1 << 40)
    found = path.stat()
    assert found.st_size == (1 << 40) + 3
    assert found.st_blocks * 512 < 200 * MIB
    with opened(path, os.O_RDONLY) as file:
        assert os.pread(file, 4096, 1 << 39) == bytes(4096)
        assert os.pread(file, 10, (1 << 40) - 2) == b"\0\0end"


def test_an_unlinked_open_file_stays_usable(mounted: Path) -> None:
    path = mounted / "f"
    with opened(path, os.O_CREAT | os.O_RDWR) as file:
        os.write(file, b"before")
        path.unlink()
        assert not path.exists()
        os.write(file, b" after")
        assert os.pread(file, 100, 0) == b"before after"
        assert os.fstat(file).st_nlink == 0
        os.ftruncate(file, 3)
        assert os.fstat(file).st_size == 3
        os.fchmod(file, 0o600)
        assert stat.S_IMODE(os.fstat(file).st_mode) == 0o600
    assert os.listdir(mounted) == []


def test_a_file_replaced_by_rename_stays_readable(mounted: Path) -> None:
    old, new = mounted / "old", mounted / "new"
    old.write_bytes(b"old contents")
    new.write_bytes(b"new")
    with opened(old, os.O_RDONLY) as reader:
        os.rename(new, old)
        assert os.pread(reader, 100, 0) == b"old contents"
    assert old.read_bytes() == b"new"


def test_direct_reads_and_writes(mounted: Path) -> None:
    path = mounted / "f"
    buffer = mmap.mmap(-1, MIB)
    buffer.write(os.urandom(MIB))
    with opened(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT) as file:
        assert os.pwritev(file, [buffer], 0) == MIB
        back = mmap.mmap(-1, MIB)
        assert os.preadv(file, [back], 0) == MIB
        assert back[:] == buffer[:]
    assert path.read_bytes() == buffer[:]


def test_a_shared_mapping_is_written_back(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(bytes(100_000))
    with opened(path, os.O_RDWR) as file, mmap.mmap(file, 100_000) as mapping:
        mapping[50_000:50_005] = b"hello"
        mapping.flush()
        with opened(path, os.O_RDONLY | os.O_DIRECT) as reader:
            assert os.pread(reader, 5, 50_000) == b"hello"
        mapping[99_995:] = b"world"
    assert path.read_bytes()[99_995:] == b"world"


def test_a_mapping_outlives_its_descriptor(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(bytes(10_000))
    with opened(path, os.O_RDWR) as file:
        mapping = mmap.mmap(file, 10_000)
    mapping[0:4] = b"late"
    path.stat()
    os.listdir(mounted)  # answers attributes too: they must not cut the dirty page
    mapping.close()
    assert path.read_bytes()[:4] == b"late"


def test_a_mapping_sees_writes_past_the_page_cache(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"a" * 10_000)
    with opened(path, os.O_RDONLY) as file:
        mapping = mmap.mmap(file, 10_000, prot=mmap.PROT_READ)
        assert mapping[5_000:5_002] == b"aa"
        with opened(path, os.O_WRONLY) as writer:
            os.pwrite(writer, b"b", 5_000)
        assert mapping[5_000:5_002] == b"ba"
        mapping.close()


def test_listing_a_directory_keeps_the_size_of_a_file_being_written(mounted: Path) -> None:
    path = mounted / "f"
    with opened(path, os.O_CREAT | os.O_RDWR) as file:
        os.write(file, b"x" * 50_000)
        for _ in range(3):
            [entry] = os.scandir(mounted)
            assert entry.stat().st_size == 50_000
            os.link(path, mounted / "g")
            assert os.fstat(file).st_size == 50_000
            os.unlink(mounted / "g")
        assert os.pread(file, 60_000, 0) == b"x" * 50_000


def test_hard_links_are_one_inode(mounted: Path) -> None:
    one, two = mounted / "one", mounted / "two"
    one.write_bytes(b"1")
    os.link(one, two)
    assert one.stat().st_ino == two.stat().st_ino
    assert two.stat().st_nlink == 2
    two.write_bytes(b"22")
    assert one.read_bytes() == b"22"
    one.unlink()
    assert two.stat().st_nlink == 1


def test_times_have_nanoseconds(mounted: Path) -> None:
    path = mounted / "f"
    path.touch()
    for times in ((1_234_567_890_123_456_789, 987_654_321_012_345_678), (-1_500_000_001, 1)):
        os.utime(path, ns=times)
        found = path.stat()
        assert (found.st_atime_ns, found.st_mtime_ns) == times


def test_writing_and_closing_sets_the_times(mounted: Path) -> None:
    path = mounted / "f"
    path.write_bytes(b"1")
    os.utime(path, ns=(1, 1))
    with path.open("ab") as file:
        file.write(b"2")
    assert path.stat().st_mtime_ns > 1_600_000_000_000_000_000
    assert path.stat().st_mtime_ns == path.stat().st_mtime_ns


def test_modes_of_new_files_obey_the_umask(mounted: Path) -> None:
    before = os.umask(0o027)
    try:
        with opened(mounted / "f", os.O_CREAT | os.O_WRONLY, 0o666):
            pass
        os.mkdir(mounted / "d", 0o777)
        os.mkfifo(mounted / "p", 0o666)
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((mounted / name).stat().st_mode) for name in "fdp"}
    assert modes == {"f": 0o640, "d": 0o750, "p": 0o640}


def test_exclusive_creation(mounted: Path) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    with opened(mounted / "f", flags):
        pass
    with refused(errno.EEXIST):
        os.open(mounted / "f", flags)


def test_a_sync_of_every_kind_succeeds(mounted: Path) -> None:
    with opened(mounted / "f", os.O_CREAT | os.O_RDWR) as file:
        os.write(file, b"x")
        os.fsync(file)
        os.fdatasync(file)
    with opened(mounted, os.O_RDONLY | os.O_DIRECTORY) as directory:
        os.fsync(directory)


def test_preferred_io_size_and_device_numbers(mounted: Path) -> None:
    (mounted / "f").touch()
    assert (mounted / "f").stat().st_blksize == 128 << 10
    os.mknod(mounted / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(mounted / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 70_000))
    assert (mounted / "null").stat().st_rdev == os.makedev(1, 3)
    assert (mounted / "disk").stat().st_rdev == os.makedev(259, 70_000)
    assert stat.S_ISBLK((mounted / "disk").stat().st_mode)


def test_descriptors_that_were_duplicated_stay_usable(mounted: Path) -> None:
    with opened(mounted / "f", os.O_CREAT | os.O_RDWR) as file:
        second = os.dup(file)
        os.write(file, b"one ")
        os.close(second)  # FLUSH, while the file stays open
        os.write(file, b"two")
        assert fcntl.fcntl(file, fcntl.F_GETFL) & os.O_RDWR
    assert (mounted / "f").read_bytes() == b"one two"


def test_the_last_byte_a_file_may_have(mounted: Path) -> None:
    with opened(mounted / "f", os.O_CREAT | os.O_RDWR) as file:
        os.ftruncate(file, 2**63 - 1)
        assert os.fstat(file).st_size == 2**63 - 1
        assert os.pread(file, 4, 2**63 - 5) == bytes(4)
        os.ftruncate(file, 0)
        with refused(errno.EINVAL):
            os.ftruncate(file, -1)


def test_reading_what_may_only_be_written(mounted: Path) -> None:
    with opened(mounted / "f", os.O_CREAT | os.O_WRONLY) as file, refused(errno.EBADF):
        os.read(file, 1)
    with opened(mounted / "f", os.O_RDONLY) as file, refused(errno.EBADF):
        os.write(file, b"1")
