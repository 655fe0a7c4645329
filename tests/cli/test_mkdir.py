"""`dfs mkdir`."""

from __future__ import annotations

import os

import pytest

from tests.cli.conftest import Dfs

pytestmark = pytest.mark.mount


def test_parents_are_made_when_asked(dfs: Dfs) -> None:
    assert dfs("mkdir", ":/a/b") == 1
    assert dfs.err == f"dfs: {dfs.path(':/a/b')}: No such file or directory\n"
    dfs.ok("mkdir", "-p", ":/a/b")
    dfs.ok("mkdir", "-p", ":/a/b")
    assert dfs("mkdir", ":/a/b") == 1
    assert "File exists" in dfs.err


def test_the_mode_is_what_is_asked_or_what_the_umask_leaves(dfs: Dfs) -> None:
    before = os.umask(0o027)
    try:
        dfs.ok("mkdir", ":/umask")
        dfs.ok("mkdir", "-m", "1777", ":/asked")
    finally:
        os.umask(before)
    modes = [entry["mode"] for entry in dfs.json("stat", ":/umask", ":/asked")]
    assert modes == ["0750", "1777"]
    assert dfs("mkdir", "-m", "9", ":/bad") == 2


def test_a_file_in_the_way_is_told(dfs: Dfs) -> None:
    dfs.write(":/file")
    assert dfs("mkdir", "-p", ":/file/below") == 1
    assert "Not a directory" in dfs.err
