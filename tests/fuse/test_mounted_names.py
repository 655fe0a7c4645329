"""Names, directories and extended attributes on a real mount."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.fuse.test_mounted_files import opened, refused

pytestmark = pytest.mark.mount

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4
# A listing of 100,000 entries is what the file system is meant for; making them takes minutes.
# On a cluster every link is a replicated command; scripts/bench has the huge one there.
MANY = 2_000 if "DFS_TEST_MOUNT" in os.environ else 20_000
# user::rw- user:1000:rw- group::r-- mask::rw- other::r-- (version, then tag, permissions, id each)
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, number)
    for tag, permissions, number in (
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 6, 1000),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 6, 0xFFFFFFFF),
        (0x20, 4, 0xFFFFFFFF),
    )
)
NOBODY = 65534
GROUP = 4242


def rename_with(flags: int, old: Path, new: Path) -> None:
    """renameat2(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2", str(old))


@contextmanager
def as_user(uid: int, gid: int, groups: list[int]) -> Iterator[None]:
    """The body runs under these ids (of the file system, for this process)."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="acts as several users")


# -- rename and removal


def test_rename_replaces_unless_told_not_to(mounted: Path) -> None:
    one, two = mounted / "one", mounted / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    with refused(errno.EEXIST):
        rename_with(RENAME_NOREPLACE, one, two)
    rename_with(RENAME_NOREPLACE, one, mounted / "three")
    os.rename(mounted / "three", two)
    assert sorted(os.listdir(mounted)) == ["two"]
    assert two.read_bytes() == b"1"


def test_rename_exchanges(mounted: Path) -> None:
    (mounted / "file").write_bytes(b"1")
    (mounted / "dir").mkdir()
    (mounted / "dir" / "inside").touch()
    rename_with(RENAME_EXCHANGE, mounted / "file", mounted / "dir")
    assert (mounted / "dir").read_bytes() == b"1"
    assert os.listdir(mounted / "file") == ["inside"]
    with refused(errno.ENOENT):
        rename_with(RENAME_EXCHANGE, mounted / "file", mounted / "missing")


def test_rename_refuses_what_cannot_be(mounted: Path) -> None:
    (mounted / "d" / "e").mkdir(parents=True)
    (mounted / "f").touch()
    with refused(errno.EINVAL):
        os.rename(mounted / "d", mounted / "d" / "e" / "d")
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(mounted / "d" / "e", mounted / "d")
    with refused(errno.ENOTDIR):
        os.rename(mounted / "d", mounted / "f")
    with refused(errno.EISDIR):
        os.rename(mounted / "f", mounted / "d")
    with refused(errno.EINVAL):
        rename_with(RENAME_WHITEOUT, mounted / "f", mounted / "g")


def test_a_directory_with_entries_is_not_removed(mounted: Path) -> None:
    (mounted / "d" / "e").mkdir(parents=True)
    with refused(errno.ENOTEMPTY):
        (mounted / "d").rmdir()
    (mounted / "d" / "e").rmdir()
    (mounted / "d").rmdir()
    with refused(errno.ENOENT):
        (mounted / "d").rmdir()


def test_names_of_any_bytes_up_to_255(mounted: Path) -> None:
    names = [b"\xff\xfe\x80", b"a\nb", b" ", "ä".encode() * 127, b"n" * 255, b"..."]
    for name in names:
        with opened(Path(os.fsdecode(os.fsencode(mounted) + b"/" + name)), os.O_CREAT | os.O_RDWR):
            pass
    assert sorted(os.listdir(os.fsencode(mounted))) == sorted(names)
    with refused(errno.ENAMETOOLONG):
        (mounted / ("n" * 256)).touch()
    with refused(errno.ENAMETOOLONG):
        (mounted / ("n" * 256)).stat()
    with refused(errno.ENAMETOOLONG):
        os.rename(os.fsencode(mounted) + b"/...", os.fsencode(mounted) + b"/" + b"n" * 256)


def test_symlinks(mounted: Path) -> None:
    (mounted / "dangling").symlink_to("../nowhere/ä")
    assert os.readlink(mounted / "dangling") == "../nowhere/ä"
    (mounted / "f").write_bytes(b"1")
    (mounted / "link").symlink_to("f")
    assert (mounted / "link").read_bytes() == b"1"
    assert (mounted / "link").lstat().st_size == 1
    (mounted / "long").symlink_to("x" * 4095)
    assert len(os.readlink(mounted / "long")) == 4095
    (mounted / "loop").symlink_to("loop")
    with refused(errno.ELOOP):
        (mounted / "loop").read_bytes()


def test_deep_paths_and_dot_dot(mounted: Path) -> None:
    deep = mounted
    for _ in range(40):
        deep = deep / "d"
        deep.mkdir()
    assert os.stat(deep / ".." / "..").st_ino == deep.parent.parent.stat().st_ino
    assert deep.stat().st_nlink == 2
    assert deep.parent.stat().st_nlink == 3


# -- reading directories


def test_a_huge_directory_is_listed_completely(mounted: Path) -> None:
    """One listing of all, and every entry once; made as links, which is the fastest."""
    names = {f"entry-{number:06}" for number in range(MANY)}
    (mounted / "entry-000000").touch()
    for name in sorted(names - {"entry-000000"}):
        os.link(mounted / "entry-000000", mounted / name)
    listed = os.listdir(mounted)
    assert len(listed) == MANY
    assert set(listed) == names
    assert {entry.inode() for entry in os.scandir(mounted)} == {
        (mounted / "entry-000000").stat().st_ino
    }


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = ctypes.c_void_p
LIBC.readdir.restype = ctypes.c_void_p
LIBC.telldir.restype = ctypes.c_long
NAME_OFFSET = 19  # of d_name in struct dirent


class OpenDirectory:
    """opendir(3) and its relatives, which Python does not offer."""

    def __init__(self, path: Path) -> None:
        self._stream = ctypes.c_void_p(LIBC.opendir(os.fsencode(path)))
        assert self._stream.value

    def next(self) -> str | None:
        entry = LIBC.readdir(self._stream)
        return os.fsdecode(ctypes.string_at(entry + NAME_OFFSET)) if entry else None

    def rest(self) -> list[str]:
        return list(iter(self.next, None))

    def tell(self) -> int:
        return int(LIBC.telldir(self._stream))

    def seek(self, position: int) -> None:
        LIBC.seekdir(self._stream, ctypes.c_long(position))

    def rewind(self) -> None:
        LIBC.rewinddir(self._stream)

    def close(self) -> None:
        LIBC.closedir(self._stream)


@pytest.fixture
def directory(mounted: Path) -> Iterator[OpenDirectory]:
    """An open directory of 1,000 files, `mounted` itself."""
    for number in range(1000):
        (mounted / f"{number:04}").touch()
    stream = OpenDirectory(mounted)
    yield stream
    stream.close()


def test_seekdir_returns_to_where_telldir_was(directory: OpenDirectory) -> None:
    seen, positions = [], []
    while True:
        positions.append(directory.tell())
        name = directory.next()
        if name is None:
            break
        seen.append(name)
    assert sorted(seen) == sorted([".", "..", *(f"{n:04}" for n in range(1000))])
    for index in (900, 3, 500, 0, 1001):
        directory.seek(positions[index])
        assert directory.rest() == seen[index:]


def test_rewinddir_sees_what_changed(directory: OpenDirectory, mounted: Path) -> None:
    assert len(directory.rest()) == 1002
    (mounted / "new").touch()
    (mounted / "0500").unlink()
    directory.rewind()
    names = directory.rest()
    assert "new" in names
    assert "0500" not in names


def test_entries_that_stay_are_listed_once_whatever_goes(
    directory: OpenDirectory, mounted: Path
) -> None:
    seen = [directory.next() for _ in range(300)]
    for number in range(0, 1000, 2):
        (mounted / f"{number:04}").unlink()
        (mounted / f"later-{number}").touch()
    names = [name for name in [*seen, *directory.rest()] if name is not None]
    staying = [name for name in names if name.isdigit() and int(name) % 2]
    assert sorted(staying) == [f"{number:04}" for number in range(1, 1000, 2)]


def test_removing_while_listing_empties_the_directory(
    directory: OpenDirectory, mounted: Path
) -> None:
    while (name := directory.next()) is not None:
        if name not in (".", ".."):
            (mounted / name).unlink()
    assert os.listdir(mounted) == []


def test_inode_numbers_of_a_listing_are_those_of_stat(mounted: Path) -> None:
    (mounted / "d").mkdir()
    (mounted / "f").touch()
    for entry in os.scandir(mounted):
        assert entry.inode() == os.stat(entry.path).st_ino
        assert entry.is_dir() == (entry.name == "d")


# -- permissions


@needs_root
def test_permission_bits_are_enforced(mounted: Path) -> None:
    (mounted / "secret").write_bytes(b"1")
    (mounted / "secret").chmod(0o600)
    (mounted / "locked").mkdir(mode=0o700)
    (mounted / "open").mkdir()
    (mounted / "open").chmod(0o777)
    with as_user(NOBODY, NOBODY, []):
        with refused(errno.EACCES):
            (mounted / "secret").read_bytes()
        with refused(errno.EACCES):
            os.listdir(mounted / "locked")
        with refused(errno.EACCES):
            (mounted / "f").touch()
        with refused(errno.EPERM):
            os.chmod(mounted / "secret", 0o666)
        (mounted / "open" / "f").write_bytes(b"1")
        assert not os.access(mounted / "secret", os.R_OK, effective_ids=True)
    assert (mounted / "open" / "f").stat().st_uid == NOBODY


@needs_root
def test_supplementary_groups_count(mounted: Path) -> None:
    shared = mounted / "shared"
    shared.mkdir()
    os.chown(shared, 0, GROUP)
    shared.chmod(0o770)
    with as_user(NOBODY, NOBODY, []), refused(errno.EACCES):
        (shared / "f").touch()
    with as_user(NOBODY, NOBODY, [GROUP]):
        (shared / "f").write_bytes(b"1")
        (shared / "d").mkdir()
        (shared / "s").symlink_to("f")
        os.rename(shared / "f", shared / "g")
        os.chown(shared / "g", -1, GROUP)
        os.chmod(shared / "g", 0o2664)
        os.unlink(shared / "s")
        with refused(errno.EPERM):
            os.chown(shared / "g", -1, GROUP + 1)
    found = (shared / "g").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (NOBODY, GROUP, 0o2664)


@needs_root
def test_a_writer_who_does_not_own_may_only_touch(mounted: Path) -> None:
    path = mounted / "f"
    path.touch()
    path.chmod(0o666)
    os.utime(path, ns=(1, 1))
    with as_user(NOBODY, NOBODY, []):
        with refused(errno.EPERM):
            os.utime(path, ns=(5, 5))
        os.utime(path)
        os.truncate(path, 0)
    assert path.stat().st_mtime_ns > 1_600_000_000_000_000_000


@needs_root
def test_writing_clears_setuid(mounted: Path) -> None:
    for flags in (os.O_WRONLY, os.O_RDWR):
        path = mounted / f"f{flags}"
        path.write_bytes(b"1")
        path.chmod(0o6777)
        with as_user(NOBODY, NOBODY, []), opened(path, flags) as file:
            os.write(file, b"2")
        assert stat.S_IMODE(path.stat().st_mode) == 0o777
    path.chmod(0o6777)
    with as_user(NOBODY, NOBODY, []):
        os.truncate(path, 0)
        with refused(errno.EPERM):
            os.chmod(path, 0o777)
    assert stat.S_IMODE(path.stat().st_mode) == 0o777


@needs_root
def test_a_sticky_directory_protects_its_entries(mounted: Path) -> None:
    (mounted / "tmp").mkdir()
    (mounted / "tmp").chmod(0o1777)
    (mounted / "tmp" / "mine").touch()
    with as_user(NOBODY, NOBODY, []):
        with refused(errno.EPERM, errno.EACCES):
            (mounted / "tmp" / "mine").unlink()
        (mounted / "tmp" / "theirs").touch()
        (mounted / "tmp" / "theirs").unlink()


# -- extended attributes


def test_extended_attributes(mounted: Path) -> None:
    path = mounted / "f"
    path.touch()
    os.setxattr(path, "user.colour", b"green\0blue")
    os.setxattr(path, "user.empty", b"")
    assert os.getxattr(path, "user.colour") == b"green\0blue"
    assert os.getxattr(path, "user.empty") == b""
    assert sorted(os.listxattr(path)) == ["user.colour", "user.empty"]
    os.removexattr(path, "user.colour")
    with refused(errno.ENODATA):
        os.getxattr(path, "user.colour")
    with refused(errno.ENODATA):
        os.removexattr(path, "user.colour")


def test_xattr_flags_create_and_replace(mounted: Path) -> None:
    path = mounted / "f"
    path.touch()
    with refused(errno.ENODATA):
        os.setxattr(path, "user.a", b"1", os.XATTR_REPLACE)
    os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)
    with refused(errno.EEXIST):
        os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)
    os.setxattr(path, "user.a", b"3", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.a") == b"3"


def test_xattr_namespaces_and_sizes(mounted: Path) -> None:
    path = mounted / "f"
    path.touch()
    for target, name in (
        (path, "system.posix_acl_access"),
        (mounted, "system.posix_acl_default"),
        (path, "other.x"),
    ):
        with refused(errno.EOPNOTSUPP):
            os.setxattr(target, name, ACL)
    with refused(errno.EOPNOTSUPP):
        os.getxattr(path, "system.posix_acl_access")
    os.setxattr(path, "user.big", b"x" * 65536)
    assert os.getxattr(path, "user.big") == b"x" * 65536
    with refused(errno.E2BIG):
        os.setxattr(path, "user.big", b"x" * 65537)
    (mounted / "link").symlink_to("f")
    with refused(errno.EPERM):
        os.setxattr(mounted / "link", "user.a", b"1", follow_symlinks=False)


@needs_root
def test_a_capability_set_while_a_file_is_written_is_removed_by_the_next_write(
    mounted: Path,
) -> None:
    path = mounted / "f"
    path.touch()
    capability = bytes.fromhex("0100000200000000000000000000000000000000")
    with opened(path, os.O_RDWR) as file:
        os.write(file, b"1")  # its absence is remembered from here on
        os.setxattr(path, "security.capability", capability)
        assert os.getxattr(path, "security.capability") == capability
        os.write(file, b"2")
        with refused(errno.ENODATA):
            os.getxattr(path, "security.capability")


# -- the whole


def test_df_shows_the_mount_sensibly(mounted: Path) -> None:
    figures = os.statvfs(mounted)
    assert figures.f_namemax == 255
    assert 0 < figures.f_bavail <= figures.f_blocks
    assert 0 < figures.f_favail <= figures.f_files
    shown = subprocess.run(["df", str(mounted)], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[1].startswith("dfs#")


def test_a_removed_working_directory(mounted: Path) -> None:
    """What a shell meets whose directory somebody removed: errors, no hang and no surprise."""
    # Where local file systems say ENOENT, a remote one may say that the handle is stale.
    script = (
        "import errno, os, sys\n"
        "os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])\n"
        "for call in (lambda: open('f', 'w'), lambda: os.mkdir('d'), os.getcwd):\n"
        "    try: call()\n"
        "    except OSError as error:\n"
        "        if error.errno in (errno.ENOENT, errno.ESTALE): continue\n"
        "        sys.exit(f'{call}: {error}')\n"
        "    sys.exit('no error')\n"
    )
    (mounted / "gone").mkdir()
    subprocess.run([sys.executable, "-c", script, str(mounted / "gone")], check=True)


def test_positions_of_telldir_rise(directory: OpenDirectory) -> None:
    positions = []
    while directory.next() is not None:
        positions.append(directory.tell())
    assert all(one < two for one, two in pairwise(positions))
