"""A master whose disk fills up: it ends with a clear line, and has what it acknowledged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.driver import Local

pytestmark = [
    pytest.mark.mount,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting small file systems needs root"),
]

DISK_BYTES = 4 << 20
LEFT_BYTES = 150 << 10

# Makes directories one after the other, and says so of each that was acknowledged.
WRITER = """
import os, sys
for n in range(1_000_000):
    os.mkdir(f"{sys.argv[1]}/{n}-{'x' * 200}")
    print(n, flush=True)
"""


@pytest.fixture
def small(local: Local) -> Iterator[Local]:
    """A local cluster of one master, which has a disk of its own, a small one."""
    directory = local.root / "master-1"
    directory.mkdir(parents=True)
    options = f"size={DISK_BYTES},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
    yield local
    local("down", "--force")
    subprocess.run(["umount", directory], check=True)


def test_a_full_disk_ends_the_master_and_loses_nothing(small: Local, tmp_path: Path) -> None:
    local = small
    local.ok("up", "--masters", 1, "--mount", local.mount)
    ballast = local.root / "master-1" / "ballast"
    status = os.statvfs(ballast.parent)
    ballast.write_bytes(bytes(status.f_bavail * status.f_frsize - LEFT_BYTES))
    acknowledged = tmp_path / "acknowledged"
    with acknowledged.open("wb") as told:
        words = [sys.executable, "-c", WRITER, str(local.mount)]
        writer = subprocess.Popen(words, stdout=told)
    try:
        local.until(lambda: ("master", 1) not in local.pids())
        log = (local.root / "logs" / "master-1.log").read_text().splitlines()
        last = [line for line in log if "ends at once" in line][-1]
        assert "the disk refused the Raft log: [Errno 28] No space left on device" in last, last
        assert "what was acknowledged is safe" in last
        ballast.unlink()
        local.ok("up")
        before = len(acknowledged.read_text().split())
        assert before > 50
        local.until(lambda: len(acknowledged.read_text().split()) > before)  # it goes on by itself
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    there = {name.split("-")[0] for name in os.listdir(local.mount)}
    assert set(acknowledged.read_text().split()) <= there
