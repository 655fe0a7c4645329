"""Looking at mount points without hanging on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from dfs.errors import Failure
from dfs.local import mounts
from dfs.runtime.real import RealEnv


def test_a_directory_answers_and_nothing_does_not(tmp_path: Path) -> None:
    async def ask(directory: str) -> bool:
        return await mounts.answers(RealEnv("test"), directory, 30.0)

    assert trio.run(ask, str(tmp_path))
    assert not trio.run(ask, str(tmp_path / "none"))


def test_what_a_directory_holds_is_never_hidden(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "mnt"
    mounts.prepare_directory(str(directory))
    mounts.prepare_directory(str(directory))
    (directory / "file").touch()
    with pytest.raises(Failure, match="not empty"):
        mounts.prepare_directory(str(directory))


def test_a_file_is_no_mount_point(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="cannot mount at"):
        mounts.prepare_directory(os.fspath(tmp_path / "file"))
