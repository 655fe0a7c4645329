"""Directory trees that are built, moved about and torn down, many steps at a time.

Each client has a place of its own and knows every answer. Siblings are made and removed together,
so that changes wait for each other and go out in one message; subtrees are renamed as a whole. A
tree that was torn down leaves nothing: its last rmdir succeeds, and its place is empty at the end.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from dfs.client import Client
from dfs.messages.common import ROOT, Attributes
from dfs.messages.metadata import DirectoryEntry
from dfs.messages.operations import (
    Create,
    MakeDirectory,
    Operation,
    RemoveDirectory,
    Rename,
    Unlink,
)
from tests.simulation.stage import Stage
from tests.simulation.workloads.common import make_directory, pace, recorded

PER_SECOND = 0.3  # trees, of some fifty operations
DEPTH_MAX, NODES_MAX, MOVES_MAX = 6, 10, 4
LIST_MAX = 1000


@dataclass(eq=False)
class _Directory:
    inode: int
    directories: dict[bytes, _Directory] = field(default_factory=dict)
    files: list[bytes] = field(default_factory=list)

    def walk(self) -> Iterator[_Directory]:
        """Itself and all below it."""
        yield self
        for below in self.directories.values():
            yield from below.walk()


class _Lost(Exception):
    """The session expired: what was asked for last is in doubt."""


class Teardown:
    """The workload; see the module."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._root = 0
        self._tidy: dict[str, None] = {}  # of clients that left theirs tidy

    async def prepare(self, client: Client) -> None:
        self._root = await make_directory(client, client.root_inode, b"teardown")

    async def work(self, name: str, life: int, client: Client) -> None:
        chance, attempt = self._stage.chance(f"teardown/{name}/{life}"), 0
        while self._stage.now_s() < self._stage.until_s:
            attempt += 1
            who = f"{name}.{life}.{attempt}"
            try:
                await _Site(self._stage, name, client, chance).work(self._root, who)
                self._tidy[who] = None
            except* _Lost:
                self._stage.reach["teardown.lost"] += 1

    async def check(self, observer: Client) -> None:
        page = await observer.read_directory(self._root, 0, LIST_MAX)
        for entry in page.entries:
            tidy = entry.name.decode() in self._tidy
            if tidy and (entry.attributes.nlink != 2 or await self._is_full(observer, entry)):
                self._stage.broken("what is torn down is gone", f"{entry}")
            self._stage.reach["checked.places"] += tidy

    async def _is_full(self, observer: Client, entry: DirectoryEntry) -> bool:
        inode = entry.attributes.inode
        return len((await observer.read_directory(inode, 0, LIST_MAX)).entries) > 2


class _Site:
    """One client in one place."""

    def __init__(self, stage: Stage, who: str, client: Client, chance: random.Random) -> None:
        self._stage, self._who, self._client, self._chance = stage, who, client, chance
        self._made = 0

    async def work(self, root: int, name: str) -> None:
        place = _Directory(await self._make(root, name.encode()))
        while self._stage.now_s() < self._stage.until_s:
            self._made = 0
            await self._build(place, 0)
            await self._move(place)
            await self._compare(place)
            await self._tear_down(place)
            self._stage.reach["checked.teardowns"] += 1
            await pace(self._stage, self._chance, PER_SECOND)

    async def _build(self, directory: _Directory, depth: int) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self._chance.randint(0, 2)):
                nursery.start_soon(self._create, directory, b"f%d" % number)
            for number in range(self._chance.randint(0 if depth else 1, 3)):
                if depth < DEPTH_MAX and self._made < NODES_MAX:
                    self._made += 1
                    nursery.start_soon(self._grow, directory, b"d%d" % number, depth)

    async def _grow(self, directory: _Directory, name: bytes, depth: int) -> None:
        below = _Directory(await self._make(directory.inode, name))
        directory.directories[name] = below
        await self._build(below, depth + 1)

    async def _create(self, directory: _Directory, name: bytes) -> None:
        await self._do("create", Create(directory.inode, name, 0o644, True, ROOT), 0)
        directory.files.append(name)

    async def _move(self, place: _Directory) -> None:
        """Hang subtrees elsewhere; into themselves they cannot go."""
        for number in range(self._chance.randint(0, MOVES_MAX)):
            parents = [d for d in place.walk() if d.directories]
            if not parents:
                return
            parent, to = self._chance.choice(parents), self._chance.choice(list(place.walk()))
            name, new = self._chance.choice(list(parent.directories)), b"m%d" % number
            inside = to in parent.directories[name].walk()
            rename = Rename(parent.inode, name, to.inode, new, 0, ROOT)
            await self._do("rename", rename, errno.EINVAL if inside else 0)
            if not inside:
                to.directories[new] = parent.directories.pop(name)

    async def _compare(self, place: _Directory) -> None:
        for directory in place.walk():
            async with recorded(self._stage, self._who, "walk", directory.inode, judged=True) as op:
                page = await self._client.read_directory(directory.inode, 0, LIST_MAX)
                found = {entry.name: entry.attributes for entry in page.entries}
                op.answer = sorted(found)
            if op.is_open:
                raise _Lost
            expected = {b".", b"..", *directory.directories, *directory.files}
            links = found[b"."].nlink if op.answer else 0
            if op.errno or found.keys() != expected or links != 2 + len(directory.directories):
                text = f"{op}: expected {sorted(expected)}, {2 + len(directory.directories)} links"
                self._stage.broken("trees are as their clients know them", text, [op])

    async def _tear_down(self, place: _Directory) -> None:
        """Empty the directory, siblings together."""
        async with trio.open_nursery() as nursery:
            for name in place.files:
                nursery.start_soon(self._do, "unlink", Unlink(place.inode, name, ROOT), 0)
            for name, below in place.directories.items():
                nursery.start_soon(self._fell, place, name, below)
        place.files.clear()
        place.directories.clear()

    async def _fell(self, parent: _Directory, name: bytes, below: _Directory) -> None:
        remove = RemoveDirectory(parent.inode, name, ROOT)
        if (below.files or below.directories) and self._chance.random() < 0.2:
            await self._do("rmdir", remove, errno.ENOTEMPTY)
        await self._tear_down(below)
        await self._do("rmdir", remove, 0)

    async def _make(self, parent: int, name: bytes) -> int:
        made = await self._do("mkdir", MakeDirectory(parent, name, 0o755, ROOT), 0)
        assert isinstance(made, Attributes)
        return made.inode

    async def _do(self, action: str, operation: Operation, expected: int) -> object:
        answer: object = None
        async with recorded(self._stage, self._who, f"tree.{action}", operation, judged=True) as op:
            answer = await self._client.perform(operation)
            op.answer = "done"
        if op.is_open:
            raise _Lost
        if op.errno != expected:
            text = f"{op}, not errno {expected}"
            self._stage.broken("trees are as their clients know them", text, [op])
        return answer
