"""Path names, as the kernel would walk them: for whoever works without a mount.

Every directory on the way must be searchable for the caller. Symlinks are followed wherever they
stand in the middle, at the end when asked for; absolute targets start at the root of this file
system. A trailing slash asks for a directory.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass

from dfs.client.client import Client
from dfs.errors import Failure, os_failure
from dfs.layout import NAME_MAX_BYTES, PATH_MAX_BYTES
from dfs.messages.common import Attributes, Credentials
from dfs.permissions import EXECUTE, may

LINKS_MAX = 40  # as in Linux


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory, whether or not anything is there."""

    parent: Attributes
    name: bytes
    attributes: Attributes | None


async def resolve(
    client: Client, path: bytes, caller: Credentials, follow: bool = True
) -> Attributes:
    """The inode that a path names. A last symlink itself unless `follow`.

    Raises Failure: ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG.
    """
    entry = await _Walk(client, caller, path).run(path, follow=follow)
    if entry.attributes is None:
        raise os_failure(errno.ENOENT, _shown(path))
    return entry.attributes


async def parent_of(client: Client, path: bytes, caller: Credentials) -> Entry:
    """The directory and name that a path's last component stands for, to make or remove it.

    A symlink there is not followed. Raises like `resolve`; EINVAL for the root and for paths that
    end in `.` or `..`, which are no names to make or remove.
    """
    entry = await _Walk(client, caller, path).run(path.rstrip(b"/") or path, follow=False)
    if entry.name in (b"", b".", b".."):
        raise os_failure(errno.EINVAL, _shown(path))
    return entry


class _Walk:
    """One resolution: counts the symlinks, and keeps the path for the errors."""

    def __init__(self, client: Client, caller: Credentials, path: bytes) -> None:
        if len(path) >= PATH_MAX_BYTES:
            raise os_failure(errno.ENAMETOOLONG, f"path of {len(path)} bytes")
        if not path:
            raise os_failure(errno.ENOENT, "empty path")
        self._client, self._caller, self._path = client, caller, path
        self._links = 0

    async def run(self, path: bytes, *, follow: bool) -> Entry:
        root = await self._client.attributes(self._client.root_inode)
        entry = Entry(root, b"", root)
        rest = _components(path)
        while rest:
            name = rest.pop(0)
            directory = entry.attributes
            if directory is None:
                raise os_failure(errno.ENOENT, self._about)
            entry = await self._step(directory, name)
            if self._is_link(entry) and (rest or follow):
                target = await self._follow(entry)
                if target.startswith(b"/"):
                    entry = Entry(root, b"", root)
                else:
                    entry = Entry(directory, b"", directory)
                rest[:0] = _components(target)
        return entry

    @property
    def _about(self) -> str:
        return _shown(self._path)

    def _is_link(self, entry: Entry) -> bool:
        return entry.attributes is not None and stat.S_ISLNK(entry.attributes.mode)

    async def _step(self, directory: Attributes, name: bytes) -> Entry:
        if not stat.S_ISDIR(directory.mode):
            raise os_failure(errno.ENOTDIR, self._about)
        if not may(directory, self._caller, EXECUTE):
            raise os_failure(errno.EACCES, self._about)
        if len(name) > NAME_MAX_BYTES:
            raise os_failure(errno.ENAMETOOLONG, self._about)
        if not name or name == b".":
            return Entry(directory, b".", directory)
        try:
            found = await self._client.lookup(directory.inode, name)
        except Failure as failure:
            if failure.errno != errno.ENOENT:
                raise
            return Entry(directory, name, None)
        return Entry(directory, name, found)

    async def _follow(self, entry: Entry) -> bytes:
        self._links += 1
        if self._links > LINKS_MAX:
            raise os_failure(errno.ELOOP, self._about)
        assert entry.attributes is not None
        return await self._client.read_link(entry.attributes.inode)


def _components(path: bytes) -> list[bytes]:
    """The names to walk; a trailing slash stands as an empty one, which only a directory has."""
    names = [name for name in path.split(b"/") if name]
    return [*names, b""] if names and path.endswith(b"/") else names


def _shown(path: bytes) -> str:
    return path.decode(errors="backslashreplace")
