"""This machine's end of a copy. Everything that may wait for a disk runs in a worker thread."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import AsyncIterator

from dfs.cli.sides import Node, temporary_name
from dfs.runtime import Buffer, Env

TOKEN_BYTES = 8


class LocalSide:
    """Local files as a `sides.Side`."""

    def __init__(self, env: Env) -> None:
        self._env = env

    async def find(self, path: bytes, *, follow: bool = True) -> Node | None:
        try:
            status = os.stat(path, follow_symlinks=follow or path.endswith(b"/"))
        except FileNotFoundError:
            return None
        return _node(path, status)

    async def lies_within(self, path: bytes, directory: Node) -> bool:
        return await self._env.run_blocking(lambda: _lies_within(path, directory.path))

    async def entries(self, directory: Node) -> AsyncIterator[Node]:
        names = await self._env.run_blocking(lambda: sorted(os.listdir(directory.path)))
        for name in names:
            path = os.path.join(directory.path, name)
            yield _node(path, os.lstat(path))

    async def open(self, node: Node) -> LocalSource:
        descriptor = os.open(node.path, os.O_RDONLY | os.O_CLOEXEC)
        return LocalSource(self._env, descriptor)

    async def read_link(self, node: Node) -> bytes:
        return os.readlink(node.path)

    async def create(self, path: bytes, permissions: int) -> LocalTarget:
        name = temporary_name(self._env.random.token(TOKEN_BYTES))
        temporary = os.path.join(os.path.dirname(path), name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(temporary, flags, permissions & 0o777)
        except OSError as error:
            # The temporary name would tell a person nothing.
            raise OSError(error.errno, error.strerror, path) from None
        return LocalTarget(self._env, descriptor, temporary, path)

    async def make_directory(self, path: bytes, permissions: int) -> None:
        os.mkdir(path, permissions)

    async def make_symlink(self, path: bytes, target: bytes) -> None:
        _remove_unless_directory(path)
        os.symlink(target, path)

    async def make_special(self, path: bytes, node: Node) -> None:
        _remove_unless_directory(path)
        os.mknod(path, node.mode, node.rdev)

    async def take_over(self, path: bytes, like: Node) -> None:
        take_over(path, like)


class LocalSource:
    """A local file, pipe or terminal being read."""

    def __init__(self, env: Env, descriptor: int) -> None:
        self._env, self._descriptor = env, descriptor

    async def read(self, length_bytes: int) -> Buffer:
        return await self._env.run_blocking(lambda: os.read(self._descriptor, length_bytes))

    async def close(self) -> None:
        os.close(self._descriptor)


class LocalTarget:
    """A local file being written under a temporary name."""

    def __init__(self, env: Env, descriptor: int, temporary: bytes, path: bytes) -> None:
        self._env, self._descriptor = env, descriptor
        self._temporary, self._path = temporary, path

    async def write(self, data: Buffer) -> None:
        await self._env.run_blocking(lambda: write_all(self._descriptor, data))

    async def commit(self, like: Node | None, *, sync: bool) -> None:
        if sync:
            await self._env.run_blocking(lambda: os.fsync(self._descriptor))
        os.close(self._descriptor)
        self._descriptor = -1
        if like is not None:
            take_over(self._temporary, like)
        os.rename(self._temporary, self._path)
        if sync:
            directory = os.path.dirname(self._path) or b"."
            await self._env.run_blocking(lambda: _sync_directory(directory))

    async def discard(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)


def write_all(descriptor: int, data: Buffer) -> None:
    """Write every byte to a descriptor that may take fewer at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def take_over(path: bytes, like: Node) -> None:
    """Owner, permissions and times of `like`; without the right to chown, the owner stays."""
    try:
        os.chown(path, like.uid, like.gid, follow_symlinks=False)
        permissions = like.permissions
    except PermissionError:
        # Setuid and setgid bits must not pass to another owner.
        permissions = like.permissions & 0o777
    if not stat.S_ISLNK(like.mode):
        os.chmod(path, permissions)
    os.utime(path, ns=(like.atime_ns, like.mtime_ns), follow_symlinks=False)


def _node(path: bytes, status: os.stat_result) -> Node:
    return Node(
        path=path,
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        rdev=status.st_rdev,
        size_bytes=status.st_size,
        atime_ns=status.st_atime_ns,
        mtime_ns=status.st_mtime_ns,
        identity=(status.st_dev, status.st_ino),
    )


def _remove_unless_directory(path: bytes) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None


def _lies_within(path: bytes, directory: bytes) -> bool:
    inner, outer = os.path.realpath(path), os.path.realpath(directory)
    return os.path.commonpath([inner, outer]) == outer


def _sync_directory(path: bytes) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
