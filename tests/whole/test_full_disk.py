"""Full chunkserver disks: ENOSPC to the writer, nothing lost, and recovery after space is freed."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.driver import Local

pytestmark = [
    pytest.mark.mount,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting small file systems needs root"),
]

DISK_BYTES = 160 << 20
RESERVE_BYTES = 64 << 20  # the chunkserver's own default
FILE_BYTES = 16 << 20


@pytest.fixture
def small_disks(local: Local) -> Iterator[Local]:
    """A local cluster each of whose chunkservers has a disk of its own, a small one."""
    directories = [local.root / f"chunkserver-{n}" for n in (1, 2, 3)]
    for directory in directories:
        directory.mkdir(parents=True)
        options = f"size={DISK_BYTES},mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
    yield local
    local("down", "--force")
    for directory in directories:
        subprocess.run(["umount", directory], check=True)


def fill(directory: Path) -> tuple[list[Path], int]:
    """Write files until one fails; the whole ones, and the errno of the failure."""
    written: list[Path] = []
    for n in range(DISK_BYTES // FILE_BYTES + 1):
        path = directory / f"file-{n}"
        try:
            with path.open("wb") as file:
                file.write(content(n))
                os.fsync(file.fileno())
        except OSError as error:
            return written, error.errno or 0
        written.append(path)
    return written, 0


def content(n: int) -> bytes:
    return bytes([n + 1]) * FILE_BYTES


def test_full_disks_are_enospc_and_recover(small_disks: Local) -> None:
    local = small_disks
    local.ok("up", "--mount", local.mount)
    written, reason = fill(local.mount)
    assert reason == errno.ENOSPC
    assert len(written) >= (DISK_BYTES - RESERVE_BYTES) // FILE_BYTES - 2
    for n, path in enumerate(written):
        assert path.read_bytes() == content(n), f"{path} was damaged by a full disk"
    for path in local.mount.iterdir():
        path.unlink()
    local.until(lambda: fill(local.mount)[1] == errno.ENOSPC and (local.mount / "file-3").exists())
    assert (local.mount / "file-3").read_bytes() == content(3)
