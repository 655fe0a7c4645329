"""What a tree of the file system should look like: names, kinds and contents, in memory.

`Tree` is the directory of one client, changed by nobody else, so that every answer is known
beforehand. Each operation answers the errno that the file system must answer (0: none) and, when
that is 0, is carried out.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from tests.client.sparse import SparseBytes


@dataclass(eq=False)
class File:
    content: SparseBytes = field(default_factory=SparseBytes)
    links: int = 1


@dataclass(eq=False)
class Symlink:
    target: bytes


@dataclass(eq=False)
class Directory:
    entries: dict[bytes, Node] = field(default_factory=dict)


Node = File | Symlink | Directory
Path = tuple[bytes, ...]


class Tree:
    """A directory tree; paths are tuples of names below its root."""

    def __init__(self) -> None:
        self.root = Directory()

    def find(self, path: Path) -> Node | None:
        node: Node | None = self.root
        for name in path:
            if not isinstance(node, Directory):
                return None
            node = node.entries.get(name)
        return node

    def directory(self, path: Path) -> Directory:
        node = self.find(path)
        assert isinstance(node, Directory)
        return node

    def all(self, kind: type[Node] | tuple[type[Node], ...]) -> list[Path]:
        """The paths of all nodes of a kind, the root included, in a fixed order."""
        found: list[Path] = []
        waiting: list[tuple[Path, Node]] = [((), self.root)]
        while waiting:
            path, node = waiting.pop()
            if isinstance(node, kind):
                found.append(path)
            if isinstance(node, Directory):
                waiting += [((*path, name), child) for name, child in sorted(node.entries.items())]
        return found

    # -- operations

    def create(self, path: Path, node: Node) -> int:
        parent = self.directory(path[:-1])
        if path[-1] in parent.entries:
            return errno.EEXIST
        parent.entries[path[-1]] = node
        return 0

    def link(self, old: Path, new: Path) -> int:
        node = self.find(old)
        assert isinstance(node, File)
        answer = self.create(new, node)
        node.links += not answer
        return answer

    def unlink(self, path: Path) -> int:
        parent = self.directory(path[:-1])
        node = parent.entries.get(path[-1])
        if node is None:
            return errno.ENOENT
        if isinstance(node, Directory):
            return errno.EISDIR
        del parent.entries[path[-1]]
        if isinstance(node, File):
            node.links -= 1
        return 0

    def remove_directory(self, path: Path) -> int:
        parent = self.directory(path[:-1])
        node = parent.entries.get(path[-1])
        if node is None:
            return errno.ENOENT
        if not isinstance(node, Directory):
            return errno.ENOTDIR
        if node.entries:
            return errno.ENOTEMPTY
        del parent.entries[path[-1]]
        return 0

    def rename(self, old: Path, new: Path) -> int:
        node, there = self.find(old), self.find(new)
        if node is None:
            return errno.ENOENT
        if isinstance(node, Directory) and new[: len(old)] == old and new != old:
            return errno.EINVAL
        if new != old and old[: len(new)] == new:
            return errno.ENOTEMPTY  # a directory above
        if there is not None and there is not node:
            if isinstance(there, Directory) and not isinstance(node, Directory):
                return errno.EISDIR
            if isinstance(node, Directory) and not isinstance(there, Directory):
                return errno.ENOTDIR
            if isinstance(there, Directory) and there.entries:
                return errno.ENOTEMPTY
        if there is node:
            return 0  # two names of one inode: rename does nothing
        if isinstance(there, File):
            there.links -= 1
        del self.directory(old[:-1]).entries[old[-1]]
        self.directory(new[:-1]).entries[new[-1]] = node
        return 0
