"""The mount against a local directory: whatever is done to both, results and errnos are alike.

Files stay open across steps (the same descriptor number on both sides stands for the same file),
so that unlinked, renamed and truncated open files are compared too.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.fuse.test_mounted_names import rename_with

pytestmark = pytest.mark.mount

_numbers = count(1)

# Few, so that most steps meet something; `populate` makes the first of them.
paths = st.sampled_from([b"a", b"a/a", b"a/b", b"a/b/c", b"b", b"b/a", b"c", b"c/a", b"l", b"l/a"])
offsets = st.sampled_from([0, 1, 4095, 4096, 10_000, 70_000])
contents = st.builds(
    lambda byte, length: bytes([byte]) * length,
    st.integers(1, 255),
    st.sampled_from([0, 1, 100, 4096, 5000, 70_000]),
)
open_flags = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR]).flatmap(
    lambda access: st.sets(
        st.sampled_from([os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_NOFOLLOW])
    ).map(lambda extra: access | sum(extra))
)
modes = st.sampled_from([0o600, 0o644, 0o755, 0o4755, 0o2755, 0o1777, 0])
times = st.integers(0, 2**40).map(lambda seconds: seconds * 10**9 % 2**61 + 7)


class Side:
    """One of the two trees, and its open files."""

    def __init__(self, base: bytes) -> None:
        self.base = base
        self.descriptors: list[int] = []

    def path(self, relative: bytes) -> bytes:
        return self.base + b"/" + relative

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        shutil.rmtree(self.base)


def outcome(action: Callable[[], Any]) -> Any:
    """The result, or the name of the error."""
    try:
        return action()
    except OSError as error:
        return type(error).__name__, error.errno


def described(found: os.stat_result) -> tuple[int, ...]:
    """What two file systems must agree on; the size of a directory is each one's own business."""
    size = -1 if stat.S_ISDIR(found.st_mode) else found.st_size
    return found.st_mode, found.st_nlink, found.st_uid, found.st_gid, size


def tree(side: Side, directory: bytes = b"") -> list[object]:
    """Everything below, in order."""
    found: list[object] = []
    for entry in sorted(os.scandir(side.path(directory)), key=lambda e: e.name):
        relative = directory + b"/" + entry.name if directory else entry.name
        status = entry.stat(follow_symlinks=False)
        found.append((relative, described(status)))
        if entry.is_dir(follow_symlinks=False):
            found.extend(tree(side, relative))
        elif entry.is_symlink():
            found.append(os.readlink(entry.path))
        elif entry.is_file(follow_symlinks=False):
            with open(entry.path, "rb") as file:
                found.append(file.read())
    return found


class Differential(RuleBasedStateMachine):
    """The two trees side by side."""

    mounted: Path  # set by the test

    def __init__(self) -> None:
        super().__init__()
        self.open_count = 0
        name = f"case-{os.getpid()}-{next(_numbers)}".encode()
        self.sides = [Side(os.fsencode(self.mounted) + b"/" + name)]
        self.sides.append(Side(os.fsencode(tempfile.mkdtemp()) + b"/" + name))
        for side in self.sides:
            os.mkdir(side.base)

    def teardown(self) -> None:
        try:
            there, here = (tree(side) for side in self.sides)
            assert there == here
        finally:
            for side in self.sides:
                side.close()
            os.rmdir(os.path.dirname(self.sides[1].base))

    def both(self, action: Callable[[Side], Any]) -> Any:
        there, here = (outcome(lambda s=side: action(s)) for side in self.sides)  # type: ignore[misc]
        assert there == here, f"the mount: {there!r}, the local directory: {here!r}"
        return here

    @initialize(data=contents)
    def populate(self, data: bytes) -> None:
        """Two directories with a file each, a file with two links, and one that is open."""
        for side in self.sides:
            for name in (b"a", b"b"):
                os.mkdir(side.path(name))
                with open(side.path(name + b"/a"), "wb") as file:
                    file.write(data)
            os.symlink(b"a", side.path(b"l"))
            os.link(side.path(b"b/a"), side.path(b"c"))
            os.setxattr(side.path(b"c"), "user.a", data[:20])
            side.descriptors.append(os.open(side.path(b"a/b"), os.O_CREAT | os.O_RDWR))
        self.open_count = 1

    # -- names

    @rule(path=paths, mode=modes)
    def mkdir(self, path: bytes, mode: int) -> None:
        self.both(lambda s: os.mkdir(s.path(path), mode | 0o700))

    @rule(path=paths)
    def rmdir(self, path: bytes) -> None:
        self.both(lambda s: os.rmdir(s.path(path)))

    @rule(path=paths)
    def unlink(self, path: bytes) -> None:
        self.both(lambda s: os.unlink(s.path(path)))

    @rule(old=paths, new=paths, flags=st.sampled_from([0, 0, 0, 1, 2, 3]))
    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        self.both(
            lambda s: rename_with(
                flags, Path(os.fsdecode(s.path(old))), Path(os.fsdecode(s.path(new)))
            )
        )

    @rule(old=paths, new=paths)
    def link(self, old: bytes, new: bytes) -> None:
        self.both(lambda s: os.link(s.path(old), s.path(new), follow_symlinks=False))

    @rule(path=paths, pointing_to=st.sampled_from([b"a", b"../b", b"c/a", b"missing", b"."]))
    def symlink(self, path: bytes, pointing_to: bytes) -> None:
        self.both(lambda s: os.symlink(pointing_to, s.path(path)))

    @rule(path=paths)
    def mkfifo(self, path: bytes) -> None:
        # Elsewhere than regular files: opening a pipe would wait for its other end.
        self.both(lambda s: os.mkfifo(s.path(path + b"-pipe")))

    @rule(path=paths)
    def listdir(self, path: bytes) -> None:
        self.both(lambda s: sorted(os.listdir(s.path(path))))

    @rule(path=paths)
    def readlink(self, path: bytes) -> None:
        self.both(lambda s: os.readlink(s.path(path)))

    # -- attributes

    @rule(path=paths, follow=st.booleans())
    def stat(self, path: bytes, follow: bool) -> None:
        self.both(lambda s: described(os.stat(s.path(path), follow_symlinks=follow)))

    @rule(path=paths, mode=modes)
    def chmod(self, path: bytes, mode: int) -> None:
        self.both(lambda s: os.chmod(s.path(path), mode))

    @rule(path=paths, uid=st.sampled_from([-1, 0, 1000]), gid=st.sampled_from([-1, 0, 1000]))
    def chown(self, path: bytes, uid: int, gid: int) -> None:
        self.both(lambda s: os.chown(s.path(path), uid, gid, follow_symlinks=False))

    @rule(path=paths, atime=times, mtime=times)
    def utime(self, path: bytes, atime: int, mtime: int) -> None:
        def act(side: Side) -> tuple[int, int]:
            os.utime(side.path(path), ns=(atime, mtime))
            found = os.stat(side.path(path))
            return found.st_atime_ns, found.st_mtime_ns

        self.both(act)

    @rule(path=paths, size=offsets)
    def truncate(self, path: bytes, size: int) -> None:
        self.both(lambda s: os.truncate(s.path(path), size))

    @rule(
        path=paths,
        name=st.sampled_from(["user.a", "user.b"]),
        value=st.binary(max_size=20),
        flags=st.sampled_from([0, os.XATTR_CREATE, os.XATTR_REPLACE]),
    )
    def setxattr(self, path: bytes, name: str, value: bytes, flags: int) -> None:
        self.both(lambda s: os.setxattr(s.path(path), name, value, flags, follow_symlinks=False))

    @rule(path=paths, name=st.sampled_from(["user.a", "user.b"]))
    def getxattr(self, path: bytes, name: str) -> None:
        self.both(lambda s: os.getxattr(s.path(path), name, follow_symlinks=False))

    @rule(path=paths, name=st.sampled_from(["user.a", "user.b"]))
    def removexattr(self, path: bytes, name: str) -> None:
        self.both(lambda s: os.removexattr(s.path(path), name, follow_symlinks=False))

    @rule(path=paths)
    def listxattr(self, path: bytes) -> None:
        self.both(lambda s: sorted(os.listxattr(s.path(path), follow_symlinks=False)))

    # -- open files

    @rule(path=paths, flags=open_flags, mode=modes)
    def open(self, path: bytes, flags: int, mode: int) -> None:
        def act(side: Side) -> str:
            side.descriptors.append(os.open(side.path(path), flags | os.O_NONBLOCK, mode))
            return "opened"

        if self.both(act) == "opened":
            self.open_count += 1

    def descriptor(self, side: Side, number: int) -> int:
        return side.descriptors[number % self.open_count]

    @precondition(lambda self: self.open_count > 0)
    @rule(number=st.integers(0, 9))
    def close(self, number: int) -> None:
        self.both(lambda s: os.close(s.descriptors.pop(number % self.open_count)))
        self.open_count -= 1

    @precondition(lambda self: self.open_count > 0)
    @rule(number=st.integers(0, 9), offset=offsets, data=contents)
    def pwrite(self, number: int, offset: int, data: bytes) -> None:
        self.both(lambda s: os.pwrite(self.descriptor(s, number), data, offset))

    @precondition(lambda self: self.open_count > 0)
    @rule(number=st.integers(0, 9), data=contents)
    def write(self, number: int, data: bytes) -> None:
        self.both(lambda s: os.write(self.descriptor(s, number), data))

    @precondition(lambda self: self.open_count > 0)
    @rule(number=st.integers(0, 9), offset=offsets, length=st.sampled_from([1, 5000, 100_000]))
    def pread(self, number: int, offset: int, length: int) -> None:
        self.both(lambda s: os.pread(self.descriptor(s, number), length, offset))

    @precondition(lambda self: self.open_count > 0)
    @rule(number=st.integers(0, 9), size=offsets)
    def ftruncate(self, number: int, size: int) -> None:
        self.both(lambda s: os.ftruncate(self.descriptor(s, number), size))

    @precondition(lambda self: self.open_count > 0)
    @rule(number=st.integers(0, 9))
    def fstat(self, number: int) -> None:
        def act(side: Side) -> tuple[int, ...]:
            found = os.fstat(self.descriptor(side, number))
            if stat.S_ISDIR(found.st_mode):
                # One that is removed while open is gone for a remote client.
                return (found.st_mode, 0) if found.st_nlink else (0,)
            return described(found)

        self.both(act)

    @precondition(lambda self: self.open_count > 0)
    @rule(number=st.integers(0, 9))
    def fsync(self, number: int) -> None:
        self.both(lambda s: os.fsync(self.descriptor(s, number)))


def test_the_mount_behaves_as_a_local_directory(mounted: Path) -> None:
    Differential.mounted = mounted
    steps = settings(stateful_step_count=40)
    run_state_machine_as_test(Differential, settings=steps)
