"""`dfs du`: sums of directories, hard links once."""

from __future__ import annotations

import stat

from dfs.cli.du import Sums
from dfs.cli.walk import Visited
from dfs.messages.common import Attributes


def entry(
    path: bytes, depth: int, size: int, *, inode: int = 0, nlink: int = 1, kind: int = stat.S_IFREG
) -> Visited:
    made = Attributes(inode, kind, nlink, 0, 0, 0, size, 0, 0, 0, 0, 1, allocated_bytes=2 * size)
    return Visited(path, made, depth)


def summed(entries: list[Visited], *, apparent: bool = True) -> list[tuple[bytes, int]]:
    sums = Sums(apparent)
    for visited in entries:
        sums.add(visited)
    sums.end()
    return sums.finished


TREE = [
    entry(b"/a", 0, 1, kind=stat.S_IFDIR),
    entry(b"/a/b", 1, 1, kind=stat.S_IFDIR),
    entry(b"/a/b/x", 2, 10),
    entry(b"/a/c", 1, 1, kind=stat.S_IFDIR),
    entry(b"/a/z", 1, 100),
]


def test_a_directory_counts_itself_and_all_below() -> None:
    assert summed(TREE) == [(b"/a/b", 11), (b"/a/c", 1), (b"/a", 113)]


def test_allocated_bytes_unless_the_apparent_ones_are_asked_for() -> None:
    assert summed(TREE, apparent=False)[-1] == (b"/a", 226)


def test_a_file_with_two_names_counts_once() -> None:
    twice = [entry(b"/a/b/x", 2, 10, inode=9, nlink=2), entry(b"/a/z", 1, 10, inode=9, nlink=2)]
    tree = [TREE[0], TREE[1], twice[0], twice[1]]
    assert summed(tree) == [(b"/a/b", 11), (b"/a", 12)]


def test_a_single_file_is_its_own_sum() -> None:
    assert summed([entry(b"/f", 0, 5)]) == [(b"/f", 5)]
