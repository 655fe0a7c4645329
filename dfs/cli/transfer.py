"""Copying between sides: single files, whole trees, streams; one algorithm for put, get and cp.

Several files are in flight at a time, bounded by the configuration. A file that fails is told to
the outcome and the rest goes on. Directories get their times last, when nothing is put into them
any more.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

import trio

from dfs import config
from dfs.cli import output
from dfs.cli.outcome import Outcome
from dfs.cli.progress import Progress
from dfs.cli.sides import Node, Side, Source, Target
from dfs.cli.tree import base_name
from dfs.errors import Code, Failure


@dataclass(frozen=True)
class Manner:
    """How to copy."""

    recursive: bool = False
    preserve: bool = False  # owner, permissions and times
    sync: bool = False  # each file durable before it gets its name
    block_bytes: int = 1 << 20
    parallel_files: int = 8

    def bounded(self, settings: config.Client) -> Manner:
        """The same with the sizes of the configuration."""
        limits = settings.limits
        return dataclasses.replace(
            self, block_bytes=limits.packet_bytes, parallel_files=limits.parallel_files
        )


class Transfer:
    """One command's copying from one side to another."""

    def __init__(
        self, origin: Side, goal: Side, manner: Manner, progress: Progress, outcome: Outcome
    ) -> None:
        self._origin, self._goal = origin, goal
        self._manner, self._progress, self._outcome = manner, progress, outcome

    async def copy_all(self, sources: list[bytes], destination: bytes) -> None:
        """Copy each source to the destination, or into it where it is a directory."""
        found = await self._goal.find(destination)
        into = found is not None and found.is_directory
        if not into and (len(sources) > 1 or destination.endswith(b"/")):
            code = errno.ENOENT if found is None and len(sources) == 1 else errno.ENOTDIR
            raise OSError(code, os.strerror(code), destination)
        for source in sources:
            path = os.path.join(destination, base_name(source)) if into else destination
            try:
                await self._copy_argument(source, path)
            except (Failure, OSError) as error:
                self._outcome.fail(error, source)

    async def _copy_argument(self, source: bytes, path: bytes) -> None:
        # Like cp: a tree is copied with its symlinks, a single file by what it is.
        node = await self._origin.find(source, follow=not self._manner.recursive)
        if node is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        if not node.is_directory:
            await self._copy_node(node, path)
        elif self._manner.recursive:
            await self.copy_tree(node, path)
        else:
            raise OSError(errno.EISDIR, "is a directory (-r copies it)", source)

    async def copy_tree(self, top: Node, destination: bytes) -> None:
        """A directory and all below it."""
        pending, made = [(top, destination)], []
        await self._must_not_contain(top, destination)
        slots = trio.Semaphore(self._manner.parallel_files)
        async with trio.open_nursery() as nursery:
            while pending:
                directory, path = pending.pop()
                try:
                    await self._make_directory(directory, path)
                    made.append((directory, path))
                    async for node in self._origin.entries(directory):
                        below = os.path.join(path, base_name(node.path))
                        if node.is_directory:
                            pending.append((node, below))
                            continue
                        await slots.acquire()
                        nursery.start_soon(self._copy_counted, node, below, slots.release)
                except (Failure, OSError) as error:
                    self._outcome.fail(error, directory.path)
        await self._finish_directories(made[::-1])

    async def _must_not_contain(self, top: Node, destination: bytes) -> None:
        """Refuse to copy a directory into itself, which would never end."""
        if self._origin is self._goal and await self._goal.lies_within(destination, top):
            text = f"{output.quoted(top.path)} cannot be copied into itself"
            raise Failure(Code.ERRNO, text, errno=errno.EINVAL)

    async def _make_directory(self, directory: Node, path: bytes) -> None:
        found = await self._goal.find(path)
        if found is None:
            # Writable by its owner until it is filled; its own permissions come last.
            await self._goal.make_directory(path, directory.permissions & 0o777 | stat.S_IRWXU)
            self._outcome.succeed()
        elif not found.is_directory:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)

    async def _finish_directories(self, made: list[tuple[Node, bytes]]) -> None:
        if not self._manner.preserve:
            return
        for directory, path in made:
            try:
                await self._goal.take_over(path, directory)
            except (Failure, OSError) as error:
                self._outcome.fail(error, path)

    async def _copy_counted(self, node: Node, path: bytes, release: Callable[[], None]) -> None:
        try:
            await self._copy_node(node, path)
        except (Failure, OSError) as error:
            self._outcome.fail(error, path)
        finally:
            release()

    async def _copy_node(self, node: Node, path: bytes) -> None:
        if stat.S_ISREG(node.mode):
            await self._copy_file(node, path)
        elif stat.S_ISLNK(node.mode):
            await self._goal.make_symlink(path, await self._origin.read_link(node))
            await self._take_over(path, node)
        else:
            await self._goal.make_special(path, node)
            await self._take_over(path, node)
        self._outcome.succeed()

    async def _take_over(self, path: bytes, node: Node) -> None:
        if self._manner.preserve:
            await self._goal.take_over(path, node)

    async def _copy_file(self, node: Node, path: bytes) -> None:
        if self._origin is self._goal:
            found = await self._goal.find(path)
            if found is not None and found.identity == node.identity:
                text = f"{output.quoted(path)} is the file itself"
                raise Failure(Code.ERRNO, text, errno=errno.EINVAL)
        self._progress.begin(node.path, node.size_bytes)
        source = await self._origin.open(node)
        try:
            await self.pour(source, path, node.permissions, like=node)
        finally:
            await source.close()

    async def pour(self, source: Source, path: bytes, permissions: int, like: Node | None) -> None:
        """Everything from the source into a file of the goal, which appears when it is whole.

        A file that is replaced hands on its permissions; `permissions` are for a new one.
        """
        found = await self._goal.find(path)
        if found is not None and found.is_directory:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if found is not None:
            permissions = found.permissions
        target = await self._goal.create(path, permissions)
        whole = False
        try:
            await self._pump(source, target)
            await target.commit(like if self._manner.preserve else None, sync=self._manner.sync)
            whole = True
        finally:
            if not whole:
                with trio.CancelScope(shield=True):
                    await target.discard()

    async def _pump(self, source: Source, target: Target) -> None:
        while data := await source.read(self._manner.block_bytes):
            await target.write(data)
            self._progress.advance(len(data))
