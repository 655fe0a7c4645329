"""Disks that fail under a running server: others take over, or the error reaches the application.

The errors are the real ones of real calls: a library in LD_PRELOAD lets chosen calls on one
server's disk fail (`faulty.c`), and ext4's own debugging switches kill a whole disk or make it
read-only under the server's feet.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash import power
from tests.crash.cluster import until
from tests.disks.rig import Rig
from tests.marks import always

pytestmark = [pytest.mark.mount, pytest.mark.timeout(300)]
needs_disks = pytest.mark.skipif(not power.available(), reason="needs root and loop devices")

DATA = os.urandom(3 << 20)
NEW = os.urandom(1 << 20)
STALL_MAX_S = 6.0
PATIENCE_S = 6.0
REASONS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    made.up()
    yield made
    made.cluster.end()


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Rig]:
    """One whose mount does not try for a minute what cannot succeed."""
    made = Rig(tmp_path)
    made.up(patience_s=PATIENCE_S)
    yield made
    made.cluster.end()


@pytest.fixture
def rig_with_disks(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, disks=True)
    made.up()
    yield made
    made.cluster.end()


def write_on(rig: Rig, trouble: Callable[[], None]) -> None:
    """Write and sync in the middle of a file before and after the trouble; never an error."""
    descriptor = os.open(rig.path, os.O_RDWR)
    try:
        os.pwrite(descriptor, NEW, 1 << 20)
        trouble()
        for number in range(8):
            began = time.monotonic()
            os.pwrite(descriptor, NEW[number * 4096 : (number + 1) * 4096], number * 300_000)
            os.fsync(descriptor)
            assert time.monotonic() - began < STALL_MAX_S
        os.pwrite(descriptor, NEW, len(DATA))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def expected() -> bytes:
    """The file after `write_on`."""
    data = bytearray(DATA)
    data[1 << 20 : 2 << 20] = NEW
    for number in range(8):
        at = number * 300_000
        data[at : at + 4096] = NEW[number * 4096 : (number + 1) * 4096]
    return bytes(data) + NEW


@pytest.mark.parametrize(
    "error",
    always(
        ("write EIO", "write ENOSPC", "write EROFS", "sync EIO", "read EIO"),
        "write ENOSPC",
        "sync EIO",
    ),
)
def test_writers_see_no_error_while_one_disk_works(rig: Rig, error: str) -> None:
    call, reason = error.split()
    rig.write(DATA)
    # With one disk left that has room it would be ENOSPC: a full cluster keeps two replicas.
    bad = 1 if reason == "ENOSPC" else 2
    write_on(rig, lambda: rig.fail(rig.copies()[:bad], call, REASONS[reason]))
    assert rig.read() == expected()
    rig.mend()
    rig.restart(rig.cluster.chunkservers(), lambda: None)
    assert rig.read() == expected()
    assert not rig.chunk()["problems"]


@pytest.mark.parametrize("call", always(("read", "write", "sync"), "read"))
def test_readers_see_no_error_while_one_disk_works(rig: Rig, call: str) -> None:
    rig.write(DATA)
    rig.fail(rig.copies()[:2], call, errno.EIO)
    for _ in range(3):
        assert rig.read() == DATA


def test_new_files_go_to_the_disks_that_work(rig: Rig) -> None:
    rig.write(DATA)
    rig.fail(rig.copies()[:2], "write", errno.EIO)
    for number in range(6):
        rig.write(NEW, f"new-{number}")
        assert rig.read(f"new-{number}") == NEW


@pytest.mark.parametrize(
    "error", always(("write EIO", "write ENOSPC", "sync EIO"), "write ENOSPC", "sync EIO")
)
def test_an_error_of_all_disks_reaches_the_application(impatient: Rig, error: str) -> None:
    call, reason = error.split()
    impatient.write(DATA)
    impatient.fail(impatient.copies(), call, REASONS[reason])
    start = len(DATA) - len(NEW) // 2  # half of it overwrites, half of it appends
    descriptor = os.open(impatient.path, os.O_RDWR)
    try:
        os.pwrite(descriptor, NEW, start)
        with pytest.raises(OSError, match=os.strerror(REASONS[reason])):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    impatient.mend()
    impatient.restart(impatient.cluster.chunkservers(), lambda: None)
    found = impatient.read()
    assert found[:start] == DATA[:start], "what was safe before is damaged"
    assert len(found) >= len(DATA)
    for at in range(start, len(found), 4096):
        old, new = DATA[at : at + 4096], NEW[at - start : at - start + 4096]
        assert found[at : at + 4096] in (old, new), f"the block at {at}"
    impatient.write(NEW)
    assert impatient.read() == NEW


@pytest.mark.long
def test_a_read_that_no_disk_can_serve_is_eio(impatient: Rig) -> None:
    impatient.write(DATA)
    impatient.fail(impatient.copies(), "read", errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        open_and_read(impatient.path)
    impatient.mend()
    impatient.restart(impatient.cluster.chunkservers(), lambda: None)
    until(lambda: open_and_read(impatient.path) == DATA, "the file is back")


def open_and_read(path: Path) -> bytes:
    """Past the kernel's pages."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(descriptor, 1 << 20, 0) + os.pread(descriptor, 2 << 20, 1 << 20)
    finally:
        os.close(descriptor)


@needs_disks
@pytest.mark.parametrize("end", ["dead", "read-only"])
def test_a_disk_that_ends_under_a_writer_is_done_without(rig_with_disks: Rig, end: str) -> None:
    rig = rig_with_disks
    rig.write(DATA)
    copy = rig.copies()[0]
    disk = rig.cluster.disks[rig.cluster.root.data(copy.member)]
    write_on(rig, disk.cut if end == "dead" else lambda: disk.remount("abort"))
    assert rig.read() == expected()
    assert copy.member.id in [member.id for member in rig.cluster.chunkservers()]
