"""Damaged replica files: no reader ever sees wrong bytes, zeros, or an error while one is good."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dfs.layout import BLOCK_BYTES
from tests.crash.cluster import until
from tests.disks.rig import DAMAGES, Copy, Rig, flip_data, vanish
from tests.marks import always

pytestmark = [pytest.mark.mount, pytest.mark.timeout(300)]

DATA = b"".join(b"%08d" % number for number in range(50_000))
MENDED_S = 60.0
EIO = os.strerror(errno.EIO)
UNDER_A_SERVER = ("flipped data", "zeroed data", "truncated", "vanished")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    made.up()
    yield made
    made.cluster.end()


def damage(copies: list[Copy], how: Callable[[Path], None]) -> None:
    for copy in copies:
        how(copy.path)


@pytest.mark.parametrize("kind", always(DAMAGES, "flipped data", "vanished"))
def test_two_damaged_replicas_of_three_are_read_around(rig: Rig, kind: str) -> None:
    rig.write(DATA)
    bad = rig.copies()[:2]
    rig.restart([copy.member for copy in bad], lambda: damage(bad, DAMAGES[kind]))
    for _ in range(3):
        assert rig.read() == DATA
    assert rig.path.read_bytes() == DATA


@pytest.mark.parametrize("kind", always(UNDER_A_SERVER, "zeroed data"))
def test_damage_under_a_running_server_is_read_around(rig: Rig, kind: str) -> None:
    rig.write(DATA)
    damage(rig.copies()[:2], DAMAGES[kind])
    for _ in range(3):
        assert rig.read() == DATA


@pytest.mark.parametrize("kind", always(DAMAGES, "flipped headers"))
def test_writers_see_no_error_while_one_replica_is_good(rig: Rig, kind: str) -> None:
    rig.write(DATA)
    bad = rig.copies()[:2]
    rig.restart([copy.member for copy in bad], lambda: damage(bad, DAMAGES[kind]))
    descriptor = os.open(rig.path, os.O_RDWR)
    try:
        os.pwrite(descriptor, b"new!", BLOCK_BYTES + 5000)  # into the damaged block
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    due = DATA[: BLOCK_BYTES + 5000] + b"new!" + DATA[BLOCK_BYTES + 5004 :]
    assert rig.read() == due


@pytest.mark.parametrize("kind", always(DAMAGES, "flipped data", "truncated"))
def test_a_damaged_replica_is_replaced(rig: Rig, kind: str) -> None:
    rig.write(DATA)
    assert rig.sound(3)
    bad = rig.copies()[:1]
    rig.restart([bad[0].member], lambda: damage(bad, DAMAGES[kind]))

    def replaced() -> bool:
        assert rig.read() == DATA
        return rig.sound(3)

    until(replaced, "the replica is whole again", MENDED_S)
    rig.restart(rig.cluster.chunkservers(), lambda: None)
    until(lambda: rig.sound(3), "the replica is whole after a restart, too", MENDED_S)


def test_a_damaged_block_is_kept_in_quarantine(rig: Rig) -> None:
    rig.write(DATA)
    damage(rig.copies()[:1], flip_data)

    def quarantined() -> bool:
        assert rig.read() == DATA
        return bool(rig.quarantined())

    until(quarantined, "the damaged block is set aside", MENDED_S)


def read_range(path: Path, offset: int, length_bytes: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        return os.pread(descriptor, length_bytes, offset)
    finally:
        os.close(descriptor)


def test_where_no_replica_is_good_that_range_alone_is_eio(rig: Rig) -> None:
    rig.write(DATA)
    copies = rig.copies()
    rig.restart([copy.member for copy in copies], lambda: damage(copies, flip_data))
    with pytest.raises(OSError, match=EIO):
        read_range(rig.path, BLOCK_BYTES, BLOCK_BYTES)
    assert read_range(rig.path, 0, BLOCK_BYTES) == DATA[:BLOCK_BYTES]
    rest = len(DATA) - 2 * BLOCK_BYTES
    assert read_range(rig.path, 2 * BLOCK_BYTES, rest) == DATA[2 * BLOCK_BYTES :]


def test_a_range_without_a_good_replica_can_be_written_anew(rig: Rig) -> None:
    rig.write(DATA)
    copies = rig.copies()
    rig.restart([copy.member for copy in copies], lambda: damage(copies, flip_data))
    descriptor = os.open(rig.path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, DATA[BLOCK_BYTES : 2 * BLOCK_BYTES], BLOCK_BYTES)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    assert rig.read() == DATA


def test_a_file_all_of_whose_replicas_vanished_is_eio_and_never_zeros(rig: Rig) -> None:
    rig.write(DATA)
    copies = rig.copies()
    rig.restart([copy.member for copy in copies], lambda: damage(copies, vanish))
    with pytest.raises(OSError, match=EIO):
        rig.path.read_bytes()
