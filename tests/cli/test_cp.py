"""`dfs cp`."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Dfs

pytestmark = pytest.mark.mount


@pytest.fixture
def tree(dfs: Dfs) -> Dfs:
    dfs.ok("mkdir", "-p", ":/a/b")
    dfs.write(":/a/b/file", b"text\n")
    return dfs


def test_a_tree_is_copied(tree: Dfs) -> None:
    tree.ok("cp", "-r", ":/a", ":/c")
    assert tree.ok("cat", ":/c/b/file") == ["text"]
    assert tree.ok("cat", ":/a/b/file") == ["text"]


def test_into_a_directory_it_keeps_its_name(tree: Dfs) -> None:
    tree.ok("cp", ":/a/b/file", ":/a")
    assert tree.ok("ls", ":/a") == ["b", "file"]


def test_a_directory_is_not_copied_into_itself(tree: Dfs) -> None:
    assert tree("cp", "-r", ":/a", ":/a/b/below") == 1
    assert tree.err == f"dfs: {tree.path(':/a')} cannot be copied into itself\n"
    assert tree("cp", "-r", ":/a", ":/a") == 1
    assert tree.ok("find", ":/a", "--type", "d") == [tree.path(":/a"), tree.path(":/a/b")]


def test_a_file_is_not_copied_onto_itself(tree: Dfs) -> None:
    assert tree("cp", ":/a/b/file", ":/a/b") == 1
    assert "is the file itself" in tree.err
    assert tree.ok("cat", ":/a/b/file") == ["text"]
