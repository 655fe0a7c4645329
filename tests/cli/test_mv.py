"""`dfs mv`."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Dfs

pytestmark = pytest.mark.mount


def test_rename_replaces(dfs: Dfs) -> None:
    dfs.write(":/a", b"a\n")
    dfs.write(":/b", b"b\n")
    dfs.ok("mv", ":/a", ":/b")
    assert dfs.ok("ls", ":") == ["b"]
    assert dfs.ok("cat", ":/b") == ["a"]


def test_several_go_into_a_directory(dfs: Dfs) -> None:
    dfs.write(":/a")
    dfs.ok("mkdir", ":/d", ":/e")
    dfs.ok("mv", ":/a", ":/e", ":/d")
    assert dfs.ok("ls", ":/d") == ["a", "e"]


def test_nothing_is_replaced_when_told_so(dfs: Dfs) -> None:
    dfs.write(":/a", b"a\n")
    dfs.write(":/b", b"b\n")
    assert dfs("mv", "-n", ":/a", ":/b") == 1
    assert "File exists" in dfs.err
    assert dfs.ok("cat", ":/b") == ["b"]


def test_several_need_a_directory(dfs: Dfs) -> None:
    dfs.write(":/a")
    dfs.write(":/b")
    assert dfs("mv", ":/a", ":/b", ":/none") == 1
    assert "Not a directory" in dfs.err
