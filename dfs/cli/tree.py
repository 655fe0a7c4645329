"""Paths of the cluster walked as one user: from a path to an inode, from a directory to entries.

A path is bytes and starts at the cluster's root, with or without a leading slash. Symlinks are
followed here, an absolute target from the cluster's root. Search permission is checked on every
directory passed. Failures name the path as the user gave it.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfs.cli import output
from dfs.cli.access import require
from dfs.errors import Code, Failure, os_failure
from dfs.messages.common import Attributes, Credentials
from dfs.messages.metadata import DirectoryEntry
from dfs.permissions import EXECUTE, READ

if TYPE_CHECKING:
    from dfs.client import Client

LINKS_MAX = 40  # as the kernel: one more is ELOOP
PAGE_ENTRIES = 1024


@dataclass(frozen=True)
class Place:
    """A name in a directory; something may or may not be there. `path` is for messages."""

    parent: int
    name: bytes
    path: bytes


@contextmanager
def naming(path: bytes) -> Iterator[None]:
    """File system errors from inside are told about `path`, not about inodes."""
    try:
        yield
    except Failure as error:
        if error.code is Code.ERRNO:
            raise os_failure(error.errno, output.quoted(path)) from None
        raise


class Tree:
    """The namespace as the caller may see it."""

    def __init__(self, client: Client, caller: Credentials) -> None:
        self._client = client
        self.caller = caller

    async def find(self, path: bytes, *, follow: bool = True) -> Attributes:
        """What stands at the path; `follow` is about its last component. Failure ENOENT, ..."""
        with naming(path):
            return await self._walk(_components(path), follow or path.endswith(b"/"), path)

    async def find_or_none(self, path: bytes, *, follow: bool = True) -> Attributes | None:
        """Like `find`, None where nothing is."""
        try:
            return await self.find(path, follow=follow)
        except Failure as error:
            if error.errno == errno.ENOENT:
                return None
            raise

    async def place(self, path: bytes) -> Place:
        """Where the last component of the path is or would be; its directory must exist."""
        components = _components(path)
        if not components or components[-1] in (b".", b".."):
            raise os_failure(errno.EINVAL, output.quoted(path) or "/")
        with naming(path):
            parent = await self._walk(components[:-1], True, path)
            self._enter(parent, path)
        return Place(parent.inode, components[-1], path)

    async def at(self, place: Place) -> Attributes | None:
        """What stands at the place, symlinks not followed; None for nothing."""
        try:
            return await self._client.lookup(place.parent, place.name)
        except Failure as error:
            if error.errno == errno.ENOENT:
                return None
            raise

    async def entries(self, directory: Attributes, path: bytes) -> AsyncIterator[DirectoryEntry]:
        """The entries of a directory but `.` and `..`, in its own order."""
        require(directory, self.caller, READ, path)
        cookie, complete = 0, False
        while not complete:
            page = await self._client.read_directory(directory.inode, cookie, PAGE_ENTRIES)
            for entry in page.entries:
                cookie = entry.cookie
                if entry.name not in (b".", b".."):
                    yield entry
            complete = page.complete

    async def is_within(self, place: Place, inode: int) -> bool:
        """Whether the directory of the place is that inode or lies below it."""
        at = place.parent
        while at != inode:
            above = (await self._client.lookup(at, b"..")).inode
            if above == at:
                return False
            at = above
        return True

    async def _walk(self, components: list[bytes], follow: bool, path: bytes) -> Attributes:
        at = await self._client.attributes(self._client.root_inode)
        rest, links = components[::-1], 0
        while rest:
            self._enter(at, path)
            name = rest.pop()
            found = await self._client.lookup(at.inode, name)
            if stat.S_ISLNK(found.mode) and (rest or follow):
                links += 1
                if links > LINKS_MAX:
                    raise os_failure(errno.ELOOP)
                target = await self._client.read_link(found.inode)
                rest += _components(target)[::-1]
                if target.startswith(b"/"):
                    found = await self._client.attributes(self._client.root_inode)
                else:
                    found = at
            at = found
        return at

    def _enter(self, directory: Attributes, path: bytes) -> None:
        if not stat.S_ISDIR(directory.mode):
            raise os_failure(errno.ENOTDIR)
        require(directory, self.caller, EXECUTE, path)


def _components(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def join(directory: bytes, name: bytes) -> bytes:
    """The path of a name in a directory."""
    return directory.rstrip(b"/") + b"/" + name


def base_name(path: bytes) -> bytes:
    """The last component, b"" for a root."""
    return path.rstrip(b"/").rpartition(b"/")[2]
