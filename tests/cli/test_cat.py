"""`dfs cat`."""

from __future__ import annotations

import os

import pytest

from tests.cli.conftest import Dfs

pytestmark = pytest.mark.mount


def test_files_are_printed_in_order(dfs: Dfs) -> None:
    dfs.write(":/a", b"first\n")
    dfs.write(":/b", b"second\n")
    assert dfs.ok("cat", ":/b", ":/a", ":/b") == ["second", "first", "second"]


def test_symlinks_are_followed_from_the_clusters_root(dfs: Dfs, tmp_path: object) -> None:
    dfs.write(":/a", b"text\n")
    dfs.ok("mkdir", ":/d")
    for name, target in (("absolute", dfs.path(":/a")), ("relative", "../a")):
        link = f"{tmp_path}/{name}"
        os.symlink(target, link)
        dfs.ok("put", "-r", link, f":/d/{name}")
        assert dfs.ok("cat", f":/d/{name}") == ["text"]


def test_a_directory_and_a_missing_file_are_told(dfs: Dfs) -> None:
    assert dfs("cat", ":") == 1
    assert dfs.err == f"dfs: {dfs.here}: Is a directory\n"
    assert dfs("cat", ":/none") == 1
    assert dfs.err == f"dfs: {dfs.path(':/none')}: No such file or directory\n"
