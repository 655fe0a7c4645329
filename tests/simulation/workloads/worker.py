"""Random clients: each works on a tree of its own, checked after every step, and on shared files.

In its own tree a client knows every answer beforehand (`model`), whatever happens to masters and
chunkservers meanwhile. Shared files are used by one client at a time, opened and closed each time:
who opens must see what the one before closed. All choices come from one seed.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from dfs.client import Client, OpenFile
from dfs.errors import Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.common import ROOT, Attributes
from dfs.messages.operations import (
    Create,
    MakeDirectory,
    MakeLink,
    MakeSymlink,
    Operation,
    RemoveDirectory,
    Rename,
    SetAttributes,
    Unlink,
)
from dfs.runtime.clock import Clock
from tests.client.sparse import SparseBytes
from tests.simulation.model import Directory, File, Path, Symlink, Tree

MAX_HANDLES = 6
MAX_FILES = 20
MAX_BYTES = 400_000
NAMES = tuple(f"n{i}".encode() for i in range(8))


@dataclass
class Slowest:
    """The longest step so far, and which it was."""

    seconds: float = 0.0
    step: str = ""

    def note(self, seconds: float, step: str) -> None:
        if seconds > self.seconds:
            self.seconds, self.step = seconds, step


@dataclass
class _Handle:
    file: OpenFile
    node: File


class Wrong(AssertionError):
    """The file system did what it must not; the message says which client did what."""


@dataclass(eq=False)
class SharedFile:
    """A file that several clients use in turn."""

    name: bytes
    content: SparseBytes | None = None  # None: does not exist yet
    turn: trio.Lock = field(default_factory=trio.Lock)
    doubtful: bool = False  # its last user died with it

    def renew(self) -> None:
        """Nobody knows what is in it: go on with another one."""
        self.name += b"+"
        self.content, self.doubtful = None, False


class Worker:
    """One client at work. `root` is the inode of its own directory."""

    def __init__(
        self,
        name: str,
        client: Client,
        clock: Clock,
        seed: str,
        shared: list[SharedFile],
        history: list[str],
    ) -> None:
        self.name, self.client = name, client
        self.tree = Tree()
        self.root = 0
        self.slowest = Slowest()
        self.steps = 0
        self._clock = clock
        self._random = random.Random(f"{seed}/{name}")
        self._shared = shared
        self._handles: list[_Handle] = []
        self._doing = ""
        self._history = history

    async def begin(self) -> None:
        """Make the directory to work in."""
        made = await self.client.perform(
            MakeDirectory(self.client.root_inode, self.name.encode(), 0o755, ROOT)
        )
        assert isinstance(made, Attributes)
        self.root = made.inode

    async def run(self, until_s: float, per_second: float = 20.0) -> None:
        """Take random steps until then."""
        while self._clock.monotonic() < until_s:
            await self.step()
            await self._clock.sleep(self._random.expovariate(per_second))

    async def step(self) -> None:
        choices: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (6, self._create),
            (3, self._make_directory),
            (1, self._make_symlink),
            (3, self._rename),
            (3, self._unlink),
            (2, self._remove_directory),
            (2, self._link),
            (4, self._truncate),
            (14, self._write),
            (4, self._append),
            (10, self._read),
            (4, self._sync),
            (2, self._flush),
            (6, self._close),
            (5, self._open),
            (5, self._stat),
            (3, self._list),
            (6 if self._shared else 0, self._use_shared),
        ]
        weights, steps = zip(*choices, strict=True)
        [chosen] = self._random.choices(steps, weights)
        self._doing = chosen.__name__.lstrip("_")
        began = self._clock.monotonic()
        try:
            await chosen()
        except Failure as failure:
            now = self._clock.monotonic()
            text = f"{self.name}, after {now - began:.2f} s: {self._doing}: {failure!r}"
            raise Wrong(text) from failure
        took_s = self._clock.monotonic() - began
        if self._doing != "wait":  # for a turn, which is no stall
            self.slowest.note(took_s, f"{self.name}: {self._doing}")
        self._history.append(f"{began:.3f} {self.name}: {self._doing} ({took_s:.3f} s)")
        self.steps += 1

    # -- names

    async def _create(self) -> None:
        if len(self.tree.all(File)) >= MAX_FILES or len(self._handles) >= MAX_HANDLES:
            await self._unlink()
            return
        path = self._new_path()
        self._doing = f"create {path!r}"
        node = File()
        parent = await self._inode(path[:-1])
        operation = Create(parent, path[-1], 0o644, True, ROOT)
        made: list[OpenFile] = []

        async def create() -> None:
            made.append(await self.client.create_file(operation))

        await self._expect(self.tree.create(path, node), create)
        if made:
            self._handles.append(_Handle(made[0], node))

    async def _make_directory(self) -> None:
        path = self._new_path()
        self._doing = f"mkdir {path!r}"
        operation = MakeDirectory(await self._inode(path[:-1]), path[-1], 0o755, ROOT)
        await self._perform(self.tree.create(path, Directory()), operation)

    async def _make_symlink(self) -> None:
        path, target = self._new_path(), self._random.randbytes(10).replace(b"\0", b"0")
        self._doing = f"symlink {path!r}"
        operation = MakeSymlink(await self._inode(path[:-1]), path[-1], target, ROOT)
        await self._perform(self.tree.create(path, Symlink(target)), operation)

    async def _rename(self) -> None:
        old, new = self._any_path(), self._new_path()
        self._doing = f"rename {old!r} to {new!r}"
        parents = await self._inode(old[:-1]), await self._inode(new[:-1])
        operation = Rename(parents[0], old[-1], parents[1], new[-1], 0, ROOT)
        await self._perform(self.tree.rename(old, new), operation)

    async def _unlink(self) -> None:
        path = self._any_path()
        self._doing = f"unlink {path!r}"
        operation = Unlink(await self._inode(path[:-1]), path[-1], ROOT)
        await self._perform(self.tree.unlink(path), operation)

    async def _remove_directory(self) -> None:
        path = self._any_path((Directory,))
        self._doing = f"rmdir {path!r}"
        operation = RemoveDirectory(await self._inode(path[:-1]), path[-1], ROOT)
        await self._perform(self.tree.remove_directory(path), operation)

    async def _link(self) -> None:
        files = self.tree.all(File)
        if not files:
            await self._create()
            return
        old, new = self._random.choice(files), self._new_path()
        self._doing = f"link {old!r} to {new!r}"
        inode, parent = await self._inode(old), await self._inode(new[:-1])
        await self._perform(self.tree.link(old, new), MakeLink(inode, parent, new[-1], ROOT))

    async def _stat(self) -> None:
        """Look at any path; handles may have written what the master does not know."""
        path = self._any_path((File, Directory, Symlink))
        self._doing = f"stat {path!r}"
        node = self.tree.find(path)
        parent = await self._inode(path[:-1])
        try:
            found = await self.client.lookup(parent, path[-1])
        except Failure as failure:
            self._check(failure.errno == errno.ENOENT and node is None, f"{failure!r}")
            return
        if isinstance(node, File):
            self._check(found.size_bytes == node.content.size, f"size {found.size_bytes}")
            self._check(found.nlink == node.links, f"{found.nlink} links")
        elif isinstance(node, Symlink):
            self._check(await self.client.read_link(found.inode) == node.target, "other target")
        else:
            self._check(node is not None, "it should not exist")

    async def _list(self) -> None:
        path = self._random.choice(self.tree.all(Directory))
        self._doing = f"list {path!r}"
        page = await self.client.read_directory(await self._inode(path), 0, 1000)
        names = sorted(e.name for e in page.entries if e.name not in (b".", b".."))
        self._check(names == sorted(self.tree.directory(path).entries), f"{names}")

    # -- contents

    async def _open(self) -> None:
        files = self.tree.all(File)
        if not files or len(self._handles) >= MAX_HANDLES:
            await self._close()
            return
        path = self._random.choice(files)
        self._doing = f"open {path!r}"
        node = self.tree.find(path)
        assert isinstance(node, File)
        file = await self.client.open_file(await self._inode(path), ROOT, write=True)
        self._handles.append(_Handle(file, node))
        self._check(file.attributes.size_bytes == node.content.size, "another size")

    async def _close(self) -> None:
        if not self._handles:
            await self._create()
            return
        handle = self._handles.pop(self._random.randrange(len(self._handles)))
        self._doing = f"close inode {handle.file.inode}"
        await handle.file.close()

    async def _write(self) -> None:
        handle = self._handle()
        if handle is None:
            await self._open()
            return
        data = self._data()
        await self._write_at(handle, self._offset(handle.node.content, len(data)), data)

    async def _append(self) -> None:
        handle = self._handle()
        if handle is None:
            await self._open()
            return
        await self._write_at(handle, handle.node.content.size, self._data())

    async def _write_at(self, handle: _Handle, offset: int, data: bytes) -> None:
        self._doing = f"write inode {handle.file.inode} at {offset}, {len(data)} bytes"
        await handle.file.write(offset, data)
        handle.node.content.write(offset, data)

    async def _truncate(self) -> None:
        handle = self._handle()
        if handle is None:
            await self._open()
            return
        content = handle.node.content
        size = self._random.choice(
            [0, content.size // 2, content.size, self._offset(content, 0), CHUNK_BYTES + 1000]
        )
        self._doing = f"truncate inode {handle.file.inode} to {size}"
        await self.client.set_attributes(SetAttributes(handle.file.inode, ROOT, size_bytes=size))
        content.truncate(size)

    async def _read(self) -> None:
        handle = self._handle()
        if handle is None:
            await self._open()
            return
        content = handle.node.content
        offset = max(0, self._offset(content, 0) - self._random.randrange(5000))
        length = self._random.choice([1, 4096, 100_000, MAX_BYTES])
        self._doing = f"read inode {handle.file.inode} at {offset}, {length} bytes"
        self._compare(bytes(await handle.file.read(offset, length)), content, offset, length)

    async def _sync(self) -> None:
        if handle := self._handle():
            self._doing = f"fsync inode {handle.file.inode}"
            await handle.file.sync()

    async def _flush(self) -> None:
        if handle := self._handle():
            self._doing = f"flush inode {handle.file.inode}"
            await handle.file.flush()

    # -- shared files

    async def _use_shared(self) -> None:
        shared = self._random.choice(self._shared)
        async with shared.turn:
            began = self._clock.monotonic()
            if shared.doubtful:
                shared.renew()
            shared.doubtful = True  # until it is done
            if shared.content is None:
                await self._make_shared(shared)
            elif self._random.random() < 0.5:
                await self._read_shared(shared, shared.content)
            else:
                await self._change_shared(shared, shared.content)
            shared.doubtful = False
            self.slowest.note(self._clock.monotonic() - began, f"{self.name}: {self._doing}")
        self._doing = "wait"

    async def _make_shared(self, shared: SharedFile) -> None:
        self._doing = f"create shared {shared.name!r}"
        operation = Create(self.client.root_inode, shared.name, 0o644, True, ROOT)
        file = await self.client.create_file(operation)
        await file.close()
        shared.content = SparseBytes()

    async def _read_shared(self, shared: SharedFile, content: SparseBytes) -> None:
        self._doing = f"read shared {shared.name!r}"
        file = await self._open_shared(shared)
        await self._read_all(file, content)
        await file.close()

    async def _change_shared(self, shared: SharedFile, content: SparseBytes) -> None:
        self._doing = f"change shared {shared.name!r}"
        file = await self._open_shared(shared)
        self._check(file.attributes.size_bytes == content.size, "another size")
        if self._random.random() < 0.4:
            size = self._random.randrange(content.size + 1)
            self._doing += f", cut to {size}"
            operation = SetAttributes(file.inode, ROOT, size_bytes=size, through_handle=True)
            await self.client.set_attributes(operation)
            content.truncate(size)
        for _ in range(self._random.randrange(3)):
            data = self._data()
            offset = self._offset(content, len(data))
            self._doing += f", write {len(data)} at {offset}"
            await file.write(offset, data)
            content.write(offset, data)
        if self._random.random() < 0.3:
            await file.sync()
        await file.close()

    async def _open_shared(self, shared: SharedFile) -> OpenFile:
        found = await self.client.lookup(self.client.root_inode, shared.name)
        return await self.client.open_file(found.inode, ROOT, write=True)

    # -- the end

    async def close_all(self) -> None:
        """Close every handle."""
        while self._handles:
            await self._close()

    async def compare_all(self, reader: Client) -> list[int]:
        """Read the whole tree through another client; the inodes of its files."""
        inodes: list[int] = []
        waiting: list[tuple[Path, int]] = [((), self.root)]
        while waiting:
            path, inode = waiting.pop()
            self._doing = f"final look at {path!r}"
            page = await reader.read_directory(inode, 0, 1000)
            found = {e.name: e for e in page.entries if e.name not in (b".", b"..")}
            expected = self.tree.directory(path).entries
            self._check(sorted(found) == sorted(expected), f"{sorted(found)}")
            for name, node in expected.items():
                child = found[name].attributes.inode
                if isinstance(node, Directory):
                    waiting.append(((*path, name), child))
                elif isinstance(node, File):
                    self._doing = f"final look at {(*path, name)!r}"
                    file = await reader.open_file(child, ROOT, write=False)
                    await self._read_all(file, node.content)
                    await file.close()
                    inodes.append(child)
        return inodes

    # -- inside

    async def _read_all(self, file: OpenFile, content: SparseBytes) -> None:
        size = file.attributes.size_bytes
        self._check(size == content.size, f"size {size}, not {content.size}")
        # Long holes are not read through: what lies around the chunk border and at the end is.
        for offset in (0, CHUNK_BYTES - MAX_BYTES, max(0, size - 2 * MAX_BYTES)):
            data = bytes(await file.read(offset, 2 * MAX_BYTES))
            self._compare(data, content, offset, 2 * MAX_BYTES)

    async def _perform(self, expected: int, operation: Operation) -> None:
        async def perform() -> None:
            await self.client.perform(operation)

        await self._expect(expected, perform)

    async def _expect(self, expected: int, perform: Callable[[], Awaitable[None]]) -> None:
        try:
            await perform()
            answer = 0
        except Failure as failure:
            if failure.errno != expected:
                raise
            answer = failure.errno
        self._check(answer == expected, f"answers {answer}, not {expected}")

    def _check(self, holds: bool, text: str) -> None:
        if not holds:
            raise Wrong(f"{self.name}: {self._doing}: {text}")

    def _compare(self, data: bytes, content: SparseBytes, offset: int, length: int) -> None:
        expected = content.read(offset, length)
        if data != expected:
            at = next(
                (i for i, (a, b) in enumerate(zip(data, expected, strict=False)) if a != b),
                min(len(data), len(expected)),
            )
            lengths = f"{len(data)} bytes, {len(expected)} expected"
            zeros = not any(data[at : at + 100])
            raise Wrong(
                f"{self.name}: {self._doing}: [{offset}, {offset + length}) differs at"
                f" {offset + at} ({lengths}; zeros: {zeros})"
            )

    async def _inode(self, path: Path) -> int:
        """Walk there by lookups; every part of the path exists."""
        inode = self.root
        for name in path:
            inode = (await self.client.lookup(inode, name)).inode
        return inode

    def _new_path(self) -> Path:
        parents = [p for p in self.tree.all(Directory) if len(p) < 4]
        return (*self._random.choice(parents), self._random.choice(NAMES))

    def _any_path(self, kinds: tuple[type, ...] = (File, Symlink, Directory)) -> Path:
        """The path of something that exists, mostly."""
        found = [path for path in self.tree.all(kinds) if path]
        if not found or self._random.random() < 0.1:
            return self._new_path()
        return self._random.choice(found)

    def _handle(self) -> _Handle | None:
        return self._random.choice(self._handles) if self._handles else None

    def _data(self) -> bytes:
        size = self._random.choice([1, 100, 4096, 65_536, 70_000, 150_000, 300_000])
        return self._random.randbytes(size)

    def _offset(self, content: SparseBytes, length: int) -> int:
        size = content.size
        return max(
            0,
            self._random.choice(
                [
                    0,
                    self._random.randrange(size + 1) if size < CHUNK_BYTES else 4096,
                    size,
                    min(size, MAX_BYTES) + self._random.randrange(100_000),
                    CHUNK_BYTES - length // 2 if self._random.random() < 0.2 else 65_536,
                ]
            ),
        )
