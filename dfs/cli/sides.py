"""The two ends of a copy: this machine's files and the cluster's, behind one interface.

`Side` is what the copying in `transfer` asks of either end. Invariant of `create`: what is written
stands under a temporary name in the same directory until `Target.commit` renames it over the
final one, so nobody ever sees half a file; `discard` removes it.
"""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from dfs.runtime import Buffer

TEMPORARY_PREFIX = b".dfs-"
TEMPORARY_SUFFIX = b".part"


@dataclass(frozen=True)
class Node:
    """A file of either side, symlinks not followed unless asked for. Times in nanoseconds."""

    path: bytes
    mode: int
    uid: int
    gid: int
    rdev: int
    size_bytes: int
    atime_ns: int
    mtime_ns: int
    identity: tuple[int, int]  # device and inode: equal means the same file

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def permissions(self) -> int:
        return stat.S_IMODE(self.mode)


class Source(Protocol):
    """A file being read from its start."""

    async def read(self, length_bytes: int) -> Buffer:
        """The next bytes, empty at the end. Valid until the next call."""
        ...

    async def close(self) -> None: ...


class Target(Protocol):
    """A file being written, not yet visible under its name."""

    async def write(self, data: Buffer) -> None: ...

    async def commit(self, like: Node | None, *, sync: bool) -> None:
        """Give it its final name. `like`: take over owner, permissions and times first."""
        ...

    async def discard(self) -> None:
        """Drop what was written."""
        ...


class Side(Protocol):
    """One end of a copy. All raise Failure or OSError naming the path."""

    async def find(self, path: bytes, *, follow: bool = True) -> Node | None:
        """What stands at the path, None for nothing."""
        ...

    async def lies_within(self, path: bytes, directory: Node) -> bool:
        """Whether the path, which may not exist yet, is in the directory, at whatever depth."""
        ...

    def entries(self, directory: Node) -> AsyncIterator[Node]: ...

    async def open(self, node: Node) -> Source: ...

    async def read_link(self, node: Node) -> bytes: ...

    async def create(self, path: bytes, permissions: int) -> Target:
        """Begin a regular file; `permissions` are cut by the umask."""
        ...

    async def make_directory(self, path: bytes, permissions: int) -> None: ...

    async def make_symlink(self, path: bytes, target: bytes) -> None: ...

    async def make_special(self, path: bytes, node: Node) -> None:
        """A fifo, socket or device like `node`."""
        ...

    async def take_over(self, path: bytes, like: Node) -> None:
        """Owner (as far as allowed), permissions and times of `like`; never follows a symlink."""
        ...


def temporary_name(token: bytes) -> bytes:
    """A hidden name that tells where it came from."""
    return TEMPORARY_PREFIX + token.hex().encode() + TEMPORARY_SUFFIX
