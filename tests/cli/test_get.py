"""`dfs get`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Dfs

pytestmark = pytest.mark.mount
DATA = bytes(range(256)) * 10_000


@pytest.fixture
def tree(dfs: Dfs, tmp_path: Path) -> Dfs:
    local = tmp_path / "origin"
    (local / "sub").mkdir(parents=True)
    (local / "sub" / "data").write_bytes(DATA)
    os.chmod(local / "sub" / "data", 0o604)
    os.utime(local / "sub" / "data", ns=(5, 6))
    os.symlink("nowhere", local / "dangling")
    dfs.ok("put", "-r", "-p", local, ":/tree")
    return dfs


def test_a_file_comes_back(tree: Dfs, tmp_path: Path) -> None:
    tree.ok("get", ":/tree/sub/data", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == DATA
    assert sorted(os.listdir(tmp_path)) == ["back", "origin"]


def test_a_tree_comes_back_as_it_was(tree: Dfs, tmp_path: Path) -> None:
    tree.ok("get", "-r", "-p", ":/tree", tmp_path / "back")
    back = tmp_path / "back" / "sub" / "data"
    assert back.read_bytes() == DATA
    assert (stat.S_IMODE(back.stat().st_mode), back.stat().st_mtime_ns) == (0o604, 6)
    assert os.readlink(tmp_path / "back" / "dangling") == "nowhere"


def test_standard_output(tree: Dfs) -> None:
    assert tree("get", ":/tree/sub/data", "-") == 0
    assert tree.out == DATA


def test_what_is_missing_leaves_no_file(tree: Dfs, tmp_path: Path) -> None:
    assert tree("get", ":/none", tmp_path / "back") == 1
    assert os.listdir(tmp_path) == ["origin"]


def test_a_directory_that_is_not_there_is_told_by_its_name(tree: Dfs, tmp_path: Path) -> None:
    target = tmp_path / "none" / "back"
    assert tree("get", ":/tree/sub/data", target) == 1
    assert tree.err == f"dfs: {target}: No such file or directory\n"
