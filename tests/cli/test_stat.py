"""`dfs stat`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Dfs

pytestmark = pytest.mark.mount


def test_everything_about_a_file(dfs: Dfs) -> None:
    dfs.write(":/file", b"12345")
    (found,) = dfs.json("stat", ":/file")
    assert (found["type"], found["size_bytes"], found["nlink"]) == ("file", 5, 1)
    assert (found["uid"], found["gid"]) == (os.getuid(), os.getgid())
    lines = dfs.ok("stat", ":/file")
    assert lines[0].split() == ["path", dfs.path(":/file")]


def test_a_symlink_is_shown_itself_unless_followed(dfs: Dfs, tmp_path: Path) -> None:
    dfs.write(":/file", b"12345")
    os.symlink("file", tmp_path / "link")
    dfs.ok("put", "-r", tmp_path / "link", ":/link")
    assert dfs.json("stat", ":/link")[0]["type"] == "symlink"
    assert dfs.json("stat", "-L", ":/link")[0]["size_bytes"] == 5


def test_a_loop_of_symlinks_ends(dfs: Dfs, tmp_path: Path) -> None:
    os.symlink("loop", tmp_path / "loop")
    dfs.ok("put", "-r", tmp_path / "loop", ":/loop")
    assert dfs("stat", "-L", ":/loop") == 1
    assert "Too many levels of symbolic links" in dfs.err


def test_any_name_can_be_asked_for(dfs: Dfs, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff \n'\"")
    (tmp_path / name).write_bytes(b"x")
    dfs.ok("put", tmp_path / name, ":")
    assert dfs.json("ls", ":")[0]["name"] == name
    assert dfs.json("stat", f":/{name}")[0]["size_bytes"] == 1
