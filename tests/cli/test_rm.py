"""`dfs rm`."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Dfs

pytestmark = pytest.mark.mount


@pytest.fixture
def tree(dfs: Dfs) -> Dfs:
    dfs.ok("mkdir", "-p", ":/a/b/c", ":/keep")
    for name in ("a/1", "a/2", "a/b/3", "keep/4"):
        dfs.write(f":/{name}", b"x")
    return dfs


def test_a_tree_goes_and_nothing_else(tree: Dfs) -> None:
    tree.ok("rm", "-r", "-y", ":/a")
    assert tree.ok("find", ":", "--type", "f") == [tree.path(":/keep/4")]
    assert tree.ok("ls", ":") == ["keep"]


def test_a_directory_needs_recursion(tree: Dfs) -> None:
    assert tree("rm", ":/a") == 1
    assert "-r removes directories" in tree.err
    assert tree.ok("ls", ":/a") == ["1", "2", "b"]


def test_what_is_missing_is_an_error_unless_forced(tree: Dfs) -> None:
    assert tree("rm", ":/none") == 1
    assert tree("rm", ":/none", ":/keep/4") == 4
    tree.ok("rm", "-f", ":/none", ":/keep/4/below")


def test_the_root_is_not_removed(tree: Dfs) -> None:
    assert tree("rm", "-r", "-y", "/") == 1
    assert tree.ok("ls", ":") == ["a", "keep"]
