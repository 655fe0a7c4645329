"""The cluster's end of a copy, over the client library."""

from __future__ import annotations

import errno
import stat
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from dfs.cli import output
from dfs.cli.access import require
from dfs.cli.cluster import Session
from dfs.cli.sides import Node, temporary_name
from dfs.cli.tree import Place, join, naming
from dfs.errors import Failure, os_failure
from dfs.messages.common import Attributes
from dfs.messages.operations import (
    Create,
    MakeDirectory,
    MakeNode,
    MakeSymlink,
    Rename,
    RenameFlags,
    SetAttributes,
    Unlink,
)
from dfs.permissions import READ
from dfs.runtime import Buffer

if TYPE_CHECKING:
    from dfs.client import OpenFile

TOKEN_BYTES = 8


class ClusterSide:
    """The cluster's files as a `sides.Side`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._client, self._tree = session.client, session.tree

    async def find(self, path: bytes, *, follow: bool = True) -> Node | None:
        found = await self._tree.find_or_none(path, follow=follow)
        return None if found is None else node_of(path, found)

    async def lies_within(self, path: bytes, directory: Node) -> bool:
        found = await self._tree.find_or_none(path)
        if found is not None and found.inode == directory.identity[1]:
            return True
        return await self._tree.is_within(await self._tree.place(path), directory.identity[1])

    async def entries(self, directory: Node) -> AsyncIterator[Node]:
        attributes = await self._tree.find(directory.path)
        async for entry in self._tree.entries(attributes, directory.path):
            yield node_of(join(directory.path, entry.name), entry.attributes)

    async def open(self, node: Node) -> ClusterSource:
        inode = node.identity[1]
        with naming(node.path):
            require(await self._client.attributes(inode), self._session.caller, READ, node.path)
            file = await self._client.open_file(inode, self._session.caller, write=False)
        return ClusterSource(file, node.path)

    async def read_link(self, node: Node) -> bytes:
        with naming(node.path):
            return await self._client.read_link(node.identity[1])

    async def create(self, path: bytes, permissions: int) -> ClusterTarget:
        place = await self._tree.place(path)
        found = await self._tree.at(place)
        if found is not None and stat.S_ISDIR(found.mode):
            raise os_failure(errno.EISDIR, output.quoted(path))
        mode = permissions & 0o777 & ~self._session.umask
        name = temporary_name(self._session.env.random.token(TOKEN_BYTES))
        with naming(path):
            file = await self._client.create_file(
                Create(place.parent, name, mode, exclusive=True, caller=self._session.caller)
            )
        return ClusterTarget(self._session, file, Place(place.parent, name, path), place)

    async def make_directory(self, path: bytes, permissions: int) -> None:
        place = await self._tree.place(path)
        mode = permissions & ~self._session.umask
        with naming(path):
            await self._client.perform(
                MakeDirectory(place.parent, place.name, mode, self._session.caller)
            )

    async def make_symlink(self, path: bytes, target: bytes) -> None:
        place = await self._tree.place(path)
        await self._clear(place)
        with naming(path):
            await self._client.perform(
                MakeSymlink(place.parent, place.name, target, self._session.caller)
            )

    async def make_special(self, path: bytes, node: Node) -> None:
        place = await self._tree.place(path)
        await self._clear(place)
        mode = node.mode & ~self._session.umask
        with naming(path):
            await self._client.perform(
                MakeNode(place.parent, place.name, mode, node.rdev, self._session.caller)
            )

    async def take_over(self, path: bytes, like: Node) -> None:
        attributes = await self._tree.find(path, follow=False)
        await take_over(self._session, attributes.inode, like, path)

    async def _clear(self, place: Place) -> None:
        """Remove what stands where a symlink or special file is to be; EEXIST for a directory."""
        found = await self._tree.at(place)
        if found is None:
            return
        if stat.S_ISDIR(found.mode):
            raise os_failure(errno.EEXIST, output.quoted(place.path))
        with naming(place.path):
            await self._client.perform(Unlink(place.parent, place.name, self._session.caller))


class ClusterSource:
    """A file of the cluster being read from its start."""

    def __init__(self, file: OpenFile, path: bytes) -> None:
        self._file, self._path = file, path
        self._offset = 0

    async def read(self, length_bytes: int) -> Buffer:
        with naming(self._path):
            data = await self._file.read(self._offset, length_bytes)
        self._offset += len(data)
        return data

    async def close(self) -> None:
        with naming(self._path):
            await self._file.close()


class ClusterTarget:
    """A file of the cluster being written under a temporary name."""

    def __init__(self, session: Session, file: OpenFile, temporary: Place, final: Place) -> None:
        self._session, self._file = session, file
        self._temporary, self._final = temporary, final
        self._offset = 0
        self._closed = False

    async def write(self, data: Buffer) -> None:
        with naming(self._final.path):
            await self._file.write(self._offset, data)
        self._offset += len(memoryview(data))

    async def commit(self, like: Node | None, *, sync: bool) -> None:
        with naming(self._final.path):
            if sync:
                await self._file.sync()
            self._closed = True
            await self._file.close()
            if like is not None:
                await take_over(self._session, self._file.inode, like, self._final.path)
            await self._session.client.perform(self._rename())

    async def discard(self) -> None:
        place = self._temporary
        try:
            if not self._closed:
                self._closed = True
                await self._file.close()
        finally:
            await _unlink_quietly(self._session, place)

    def _rename(self) -> Rename:
        old, new = self._temporary, self._final
        flags = int(RenameFlags.NONE)
        return Rename(
            old.parent, old.name, new.parent, new.name, flags, caller=self._session.caller
        )


async def _unlink_quietly(session: Session, place: Place) -> None:
    try:
        await session.client.perform(Unlink(place.parent, place.name, session.caller))
    except Failure as error:
        if error.errno != errno.ENOENT:
            raise


async def take_over(session: Session, inode: int, like: Node, path: bytes) -> None:
    """Owner (as far as allowed), permissions and times of `like`."""
    caller, permissions = session.caller, like.permissions
    if (like.uid, like.gid) != (caller.uid, caller.gid):
        try:
            await session.client.set_attributes(
                SetAttributes(inode, caller, uid=like.uid, gid=like.gid)
            )
        except Failure as error:
            if error.errno != errno.EPERM:
                raise
            permissions &= 0o777  # setuid and setgid must not pass to another owner
    change = SetAttributes(
        inode,
        caller,
        mode=None if stat.S_ISLNK(like.mode) else permissions,
        atime_ns=like.atime_ns,
        mtime_ns=like.mtime_ns,
    )
    with naming(path):
        await session.client.set_attributes(change)


def node_of(path: bytes, attributes: Attributes) -> Node:
    """An inode of the cluster as a side shows it."""
    return Node(
        path=path,
        mode=attributes.mode,
        uid=attributes.uid,
        gid=attributes.gid,
        rdev=attributes.rdev,
        size_bytes=attributes.size_bytes,
        atime_ns=attributes.atime_ns,
        mtime_ns=attributes.mtime_ns,
        identity=(0, attributes.inode),
    )
