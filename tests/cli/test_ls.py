"""`dfs ls`."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Dfs

pytestmark = pytest.mark.mount


@pytest.fixture
def tree(dfs: Dfs) -> Dfs:
    dfs.ok("mkdir", "-p", ":/b/c", ":/a")
    dfs.write(":/b/file", b"12345")
    dfs.write(":/.hidden")
    return dfs


def test_names_are_sorted_and_dot_names_hidden(tree: Dfs) -> None:
    assert tree.ok("ls", ":") == ["a", "b"]
    assert tree.ok("ls", "-a", ":") == [".hidden", "a", "b"]


def test_a_file_is_shown_by_the_path_given(tree: Dfs) -> None:
    assert tree.ok("ls", ":/b/file") == [tree.path(":/b/file")]


def test_directories_below_are_headed_by_their_paths(tree: Dfs) -> None:
    here = tree.here
    lines = tree.ok("ls", "-R", ":")
    assert lines == [
        f"{here}:", "a", "b", "", f"{here}/a:", "", f"{here}/b:", "c", "file", "", f"{here}/b/c:",
    ]  # fmt: skip


def test_the_long_form_has_mode_links_size_and_name(tree: Dfs) -> None:
    line = tree.ok("ls", "-l", ":/b")[1].split()
    assert line[0] == "-rw-r--r--"
    assert (line[1], line[4], line[-1]) == ("1", "5", "file")


def test_json_has_every_entry_with_its_path(tree: Dfs) -> None:
    found = {entry["name"]: entry for entry in tree.json("ls", "-R", ":")}
    assert set(found) == {"a", "b", "c", "file"}
    assert found["file"]["path"] == tree.path(":/b/file")
    assert found["file"]["size_bytes"] == 5
    assert found["c"]["type"] == "directory"


def test_what_is_missing_is_told_and_the_rest_listed(tree: Dfs) -> None:
    assert tree("ls", ":/none") == 1
    assert tree.err == f"dfs: {tree.path(':/none')}: No such file or directory\n"
    assert tree("ls", ":/none", ":/b/file") == 4
    assert tree.out.decode().splitlines() == [tree.path(":/b/file")]
