"""The judge of the crash test, judged: what it lets pass and what it must not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.crash import content
from tests.crash.cluster import look
from tests.crash.content import BLOCK_BYTES
from tests.crash.model import BLOCKS, LOG, Found, Manifest, Operation, Seen
from tests.crash.writer import Writer

WRITER = 7


def create(number: int, path: str, kind: str = BLOCKS) -> Operation:
    return Operation(number, "create", path, kind=kind, acknowledged=True)


def overwrite(number: int, first: int, count: int = 1, *, acknowledged: bool = True) -> Operation:
    return Operation(
        number, "overwrite", file=1, first=first, count=count, acknowledged=acknowledged
    )


def append(number: int, length_bytes: int) -> Operation:
    return Operation(number, "append", file=1, length_bytes=length_bytes, acknowledged=True)


def done(number: int, do: str, path: str = "", to: str = "", *, file: int = 0) -> Operation:
    return Operation(number, do, path, to, file=file, acknowledged=True)


def begun(number: int, do: str, path: str = "", to: str = "") -> Operation:
    return Operation(number, do, path, to)


def blocks(*stamps: tuple[int, int]) -> bytes:
    """Blocks as (operation, number) pairs; operation 0 is zeros."""
    return b"".join(content.block(WRITER, o, n) if o else bytes(BLOCK_BYTES) for o, n in stamps)


def texts(
    operations: list[Operation], seen: Seen, *, survived: bool = False, power: bool = False
) -> list[str]:
    found = Manifest(WRITER, operations).check(seen, survived=survived, power=power)
    return [violation.text for violation in found]


def file(data: bytes, *, inode: int = 5, links: int = 1) -> Found:
    return Found(inode, links, data)


SYNCED = [create(1, "f"), overwrite(2, 0, 2), done(3, "fsync", file=1), overwrite(4, 1, 2)]


@pytest.mark.parametrize(
    "data",
    [
        blocks((2, 0), (2, 1)),
        blocks((2, 0), (4, 1)),
        blocks((2, 0), (2, 1), (4, 2)),
        blocks((2, 0), (4, 1), (4, 2)),
    ],
)
def test_after_a_crash_unsynced_blocks_are_old_or_new(data: bytes) -> None:
    assert texts(SYNCED, {"f": file(data)}) == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "0 bytes are there, due are blocks: 2 or 3"),
        (blocks((2, 0)), "4096 bytes are there"),
        (blocks((0, 0), (2, 1)), "block 0 is zeros, due is block 0 of operation 2"),
        (blocks((2, 0), (4, 1), (0, 2)), "block 2 is zeros"),
        (blocks((2, 0), (2, 0)), "block 1 is block 0 of operation 2"),
        (blocks((4, 0), (2, 1)), "block 0 is block 0 of operation 4"),
        (blocks((2, 0), (2, 1), (4, 2), (4, 3)), "16384 bytes are there"),
        (blocks((2, 0), (2, 1))[:-1], "8191 bytes are there"),
        (blocks((2, 0))[:100] + blocks((4, 0))[100:] + blocks((2, 1)), "torn"),
    ],
)
def test_lost_doubled_torn_and_misplaced_blocks_are_seen(data: bytes, text: str) -> None:
    found = texts(SYNCED, {"f": file(data)})
    assert any(text in one for one in found), found


def test_a_mount_that_lived_has_everything() -> None:
    whole = blocks((2, 0), (4, 1), (4, 2))
    assert texts(SYNCED, {"f": file(whole)}, survived=True) == []
    assert texts(SYNCED, {"f": file(blocks((2, 0), (2, 1)))}, survived=True)
    failed = [*SYNCED, begun(5, "mkdir", "d0")]
    assert "an error on a mount that lived" in texts(failed, {}, survived=True)[0]


def test_closing_is_safe_from_kills_and_not_from_power_loss() -> None:
    closed = [*SYNCED[:2], done(3, "close", file=1)]
    assert texts(closed, {"f": file(b"")})
    assert texts(closed, {"f": file(b"")}, power=True) == []
    assert texts(closed, {"f": file(bytes(BLOCK_BYTES))}, power=True) == []
    assert texts(SYNCED, {"f": file(bytes(2 * BLOCK_BYTES))}, power=True)


def test_a_file_that_cannot_be_read_is_always_wrong() -> None:
    seen: Seen = {"f": Found(5, 1, b"", "Input/output error")}
    for survived in (True, False):
        (text,) = texts(SYNCED, seen, survived=survived)
        assert text == "f: Input/output error; the file was synced"
    assert texts(SYNCED[:2], seen) == [
        "f: Input/output error; the file holds nothing that was safe"
    ]


LOGGED = [create(1, "f", LOG), append(2, 100), done(3, "fsync", file=1), append(4, 50)]


def log_bytes(*records: tuple[int, int]) -> bytes:
    return b"".join(content.record(WRITER, number, length) for number, length in records)


@pytest.mark.parametrize("length", [100, 101, 149, 150])
def test_a_log_is_cut_short_at_most_where_it_was_not_safe(length: int) -> None:
    assert texts(LOGGED, {"f": file(log_bytes((2, 100), (4, 50))[:length])}) == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (log_bytes((2, 99)), "99 bytes are there, 100 are safe"),
        (log_bytes((2, 100), (4, 50), (4, 50)), "only 150 were ever appended"),
        (log_bytes((2, 100)) + bytes(50), "at byte 100 of 150 it has 50 zeros"),
        (log_bytes((4, 50), (2, 100)), "at byte 11 of 150"),
    ],
)
def test_a_log_with_loss_doubles_or_gaps_is_seen(data: bytes, text: str) -> None:
    found = texts(LOGGED, {"f": file(data)})
    assert any(text in one for one in found), found


NAMES = [create(1, "f"), create(2, "g"), done(3, "mkdir", "d0")]
EMPTY = {"f": file(b""), "g": file(b"", inode=6), "d0": None}


def test_the_operation_under_way_may_be_there_or_not() -> None:
    renaming = [*NAMES, begun(4, "rename", "f", "g")]
    assert texts(renaming, EMPTY) == []
    assert texts(renaming, {"g": file(b""), "d0": None}) == []
    assert texts(renaming, {"f": file(b""), "d0": None}) == ["g is lost"]
    both = {"f": file(b"", links=2), "g": file(b"", links=2), "d0": None}
    assert texts(renaming, both), "a rename done by half"


def test_acknowledged_names_are_not_lost_nor_doubled() -> None:
    assert texts(NAMES, EMPTY) == []
    assert texts(NAMES, {**EMPTY, "h": file(b"", inode=7)}) == ["h is there and should not be"]
    assert texts(NAMES, {"f": EMPTY["f"], "g": EMPTY["g"]}) == ["d0 is lost"]
    assert texts(NAMES, {**EMPTY, "g": EMPTY["f"]})[0] == "g is not the file it should be"
    assert texts(NAMES, {**EMPTY, "g": file(b"", inode=6, links=2)}) == ["g has 2 links, due are 1"]
    assert texts(NAMES, {**EMPTY, "d0": file(b"", inode=8)}) == ["d0 is of another kind"]


def test_directories_take_their_files_along() -> None:
    moved = [*NAMES, done(4, "rename", "f", "d0/f"), done(5, "rename", "d0", "d1")]
    assert texts(moved, {"d1": None, "d1/f": file(b""), "g": file(b"", inode=6)}) == []


def test_a_violation_comes_with_the_history_of_its_file() -> None:
    operations = [*SYNCED, create(5, "g"), done(6, "rename", "f", "h"), done(7, "unlink", "g")]
    manifest = Manifest(WRITER, operations)
    (violation,) = manifest.check({"h": file(blocks((2, 0), (0, 1)))}, survived=False)
    assert [o.number for o in manifest.history(violation)] == [1, 2, 3, 4, 6]
    assert "acknowledged" in str(operations[0])


@pytest.mark.parametrize("seed", range(5))
def test_a_writer_on_a_local_file_system_is_found_right(tmp_path: Path, seed: int) -> None:
    directory, notes = tmp_path / "work", tmp_path / "manifest"
    directory.mkdir()
    descriptor = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    left = [400]

    def stopped() -> bool:
        left[0] -= 1
        return left[0] < 0

    Writer(str(directory), descriptor, WRITER, seed).run(stopped)
    os.close(descriptor)
    manifest = Manifest.load(WRITER, notes)
    assert len({o.do for o in manifest.operations}) > 10
    seen = look(directory)
    assert manifest.check(seen, survived=True) == []
    del seen[next(iter(seen))]
    assert manifest.check(seen, survived=False)
