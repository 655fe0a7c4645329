"""`dfs find`: what matches."""

from __future__ import annotations

import stat

from dfs.cli.find import matches
from dfs.cli.walk import Visited
from dfs.messages.common import Attributes


def visited(path: bytes, kind: int = stat.S_IFREG) -> Visited:
    return Visited(path, Attributes(1, kind | 0o644, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1), 1)


def test_a_glob_is_about_the_last_name_alone() -> None:
    assert matches(visited(b"/a.py/b.py"), "*.py", None)
    assert not matches(visited(b"/a.py/b"), "*.py", None)
    assert matches(visited(b"/x/\xff.py"), "*.py", None)


def test_a_kind_is_exact() -> None:
    assert matches(visited(b"/d", stat.S_IFDIR), None, "d")
    assert not matches(visited(b"/s", stat.S_IFSOCK), None, "d")
