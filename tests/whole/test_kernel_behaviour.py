"""The mount's own tests, which run on a file system in memory, once more on a real cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.driver import Local

TESTS = Path(__file__).parent.parent / "fuse"
FILES = ("test_mounted_files.py", "test_mounted_names.py", "test_differential.py", "test_limits.py")

pytestmark = [pytest.mark.mount, pytest.mark.timeout(900)]


@pytest.fixture
def mount_point() -> Iterator[Path]:
    """Where other users can go too, unlike pytest's own temporary directory."""
    with tempfile.TemporaryDirectory(prefix="dfs-mount-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_the_mount_behaves_on_a_cluster_as_it_does_alone(mount_point: Path, local: Local) -> None:
    local.ok("up", "--mount", mount_point)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *(str(TESTS / name) for name in FILES)],
        env={**os.environ, "DFS_TEST_MOUNT": str(mount_point)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
