"""What is set aside: named, listed, bounded, and emptied by operators only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chunkserver.quarantine import Quarantine
from dfs.layout import BLOCK_BYTES
from dfs.runtime.real import RealEnv
from tests.conftest import ExpectedLogs

LIMIT_BYTES = 4 * BLOCK_BYTES


@pytest.fixture(autouse=True)
def logs(expected_logs: ExpectedLogs) -> None:
    expected_logs("set aside as")


@pytest.fixture
def quarantine(tmp_path: Path) -> Quarantine:
    made = Quarantine(RealEnv("node"), str(tmp_path / "quarantine"), LIMIT_BYTES)
    made.load()
    return made


def reloaded(quarantine: Quarantine) -> Quarantine:
    made = Quarantine(RealEnv("node"), quarantine.path, LIMIT_BYTES)
    made.load()
    return made


def test_a_block_is_kept_with_its_reason(quarantine: Quarantine) -> None:
    quarantine.add_block(0xAB, 7, b"bad bytes", "checksum mismatch")
    for each in (quarantine, reloaded(quarantine)):
        (file,) = each.page("", 10)
        assert file.name == "00000000000000ab.b7.0"
        assert (file.handle, file.block, file.bytes) == (0xAB, 7, 9)
        assert file.why == "checksum mismatch"
        assert file.when_ns > 1_700_000_000 * 10**9
        assert (each.blocks, each.replicas) == (1, 0)
    assert (Path(quarantine.path) / file.name).read_bytes() == b"bad bytes"
    note = json.loads((Path(quarantine.path) / f"{file.name}.note").read_text())
    assert (note["magic"], note["format"]) == ("dfs quarantine note", 1)


def test_a_replica_file_is_moved(quarantine: Quarantine, tmp_path: Path) -> None:
    (tmp_path / "replica").write_bytes(b"whatever it is")
    quarantine.add_replica(str(tmp_path / "replica"), 0xAB, "no valid header")
    assert not (tmp_path / "replica").exists()
    (file,) = reloaded(quarantine).page("", 10)
    assert (file.handle, file.block, file.bytes, file.why) == (0xAB, -1, 14, "no valid header")


def test_names_are_never_used_twice(quarantine: Quarantine) -> None:
    quarantine.add_block(1, 7, b"one", "")
    again = reloaded(quarantine)
    again.add_block(1, 7, b"two", "")
    contents = [(Path(again.path) / file.name).read_bytes() for file in again.page("", 10)]
    assert contents == [b"one", b"two"]


def test_the_oldest_blocks_go_when_there_is_no_room(
    quarantine: Quarantine, expected_logs: ExpectedLogs
) -> None:
    expected_logs("quarantine is full")
    for block in range(6):
        quarantine.add_block(1, block, bytes(BLOCK_BYTES), "")
    assert [file.block for file in quarantine.page("", 10)] == [2, 3, 4, 5]
    again = reloaded(quarantine)
    again.add_block(2, 9, bytes(BLOCK_BYTES), "")
    assert [file.block for file in again.page("", 10)] == [3, 4, 5, 9]
    assert len(list(Path(quarantine.path).iterdir())) == 8  # their notes are gone too


def test_replicas_stay_and_so_does_the_newest_block(
    quarantine: Quarantine, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("quarantine")
    for handle in range(3):
        (tmp_path / "replica").write_bytes(bytes(2 * BLOCK_BYTES))
        quarantine.add_replica(str(tmp_path / "replica"), handle, "")
    quarantine.add_block(9, 1, bytes(BLOCK_BYTES), "")
    quarantine.add_block(9, 2, bytes(BLOCK_BYTES), "")
    assert (quarantine.replicas, quarantine.blocks) == (3, 1)
    assert quarantine.page("", 10)[-1].block == 2


def test_it_is_listed_in_pages_and_strangers_are_left_alone(quarantine: Quarantine) -> None:
    (Path(quarantine.path) / "notes of an operator.txt").write_text("mine")
    for block in range(5):
        quarantine.add_block(1, block, b"x", "")
    again, after, seen = reloaded(quarantine), "", []
    while page := again.page(after, 2):
        seen += [file.block for file in page]
        after = page[-1].name
    assert seen == [0, 1, 2, 3, 4]


def test_a_file_without_a_usable_note_is_listed_all_the_same(quarantine: Quarantine) -> None:
    quarantine.add_block(1, 0, b"x", "why")
    quarantine.add_block(1, 1, b"x", "why")
    (Path(quarantine.path) / f"{1:016x}.b0.0.note").unlink()
    (Path(quarantine.path) / f"{1:016x}.b1.1.note").write_text("{")
    assert [(f.block, f.when_ns) for f in reloaded(quarantine).page("", 9)] == [(0, 0), (1, 0)]


def test_an_operator_can_empty_it(
    quarantine: Quarantine, tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("cleared by an operator: 2 files, 10 bytes")
    (tmp_path / "replica").write_bytes(b"replica")
    quarantine.add_replica(str(tmp_path / "replica"), 1, "")
    quarantine.add_block(1, 0, b"xyz", "")
    assert quarantine.clear() == (2, 10)
    assert list(Path(quarantine.path).iterdir()) == []
    assert quarantine.total_bytes == 0
