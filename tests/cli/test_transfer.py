"""Copying: nothing half-done under a final name, whatever ends the copy."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from dfs.cli.local_side import LocalSide
from dfs.cli.outcome import Outcome
from dfs.cli.progress import Silent
from dfs.cli.transfer import Manner, Transfer
from dfs.runtime import Buffer
from dfs.runtime.real import RealEnv


class Breaking:
    """A source that gives a block and then fails, or never ends."""

    def __init__(self, error: OSError | None) -> None:
        self._error, self._given = error, False

    async def read(self, length_bytes: int) -> Buffer:
        if self._given:
            if self._error is not None:
                raise self._error
            await trio.sleep_forever()
        self._given = True
        return b"x" * length_bytes

    async def close(self) -> None:
        pass


def transfer(manner: Manner | None = None) -> Transfer:
    side = LocalSide(RealEnv("test"))
    other = LocalSide(RealEnv("test"))
    return Transfer(side, other, manner or Manner(), Silent(), Outcome())


def test_a_failed_copy_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    source = Breaking(OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        trio.run(transfer().pour, source, os.fsencode(target), 0o644, None)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_cancelled_copy_leaves_nothing(tmp_path: Path) -> None:
    async def cancelled() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                path = os.fsencode(tmp_path / "file")
                nursery.start_soon(transfer().pour, Breaking(None), path, 0o644, None)
                await trio.testing.wait_all_tasks_blocked()
                while not os.listdir(tmp_path):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

    trio.run(cancelled)
    assert os.listdir(tmp_path) == []


def test_a_file_that_fails_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    origin, goal = tmp_path / "origin", tmp_path / "goal"
    origin.mkdir()
    for number in range(20):
        (origin / str(number)).write_text(str(number))
    (goal / "7").mkdir(parents=True)
    outcome = Outcome()
    sides = LocalSide(RealEnv("test")), LocalSide(RealEnv("test"))
    copying = Transfer(*sides, Manner(recursive=True), Silent(), outcome)
    trio.run(copying.copy_all, [os.fsencode(origin) + b"/."], os.fsencode(goal))
    assert outcome.failed == 1
    assert "7: Is a directory" in capsys.readouterr().err
    assert {p.name for p in goal.iterdir() if p.is_file()} == {
        str(number) for number in range(20) if number != 7
    }
    assert outcome.exit_code() == 4
