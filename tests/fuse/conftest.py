"""`mounted`: a directory on a real mount. Of a file system in memory, or of whatever is named by
DFS_TEST_MOUNT (a directory on a mounted cluster), so that the same tests judge both.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.fuse.processes import mount_process

GIVEN_MOUNT = "DFS_TEST_MOUNT"
_numbers = count(1)


@pytest.fixture(scope="session")
def mount_root() -> Iterator[Path]:
    """The top of a mount that lives as long as the test run."""
    given = os.environ.get(GIVEN_MOUNT)
    if given:
        yield Path(given)
        return
    # Not pytest's own temporary directory, which keeps other users out.
    with tempfile.TemporaryDirectory(prefix="dfs-mount-", ignore_cleanup_errors=True) as name:
        base = Path(name)
        base.chmod(0o755)
        with mount_process(base / "root", base / "log"):
            yield base / "root"


@pytest.fixture
def mounted(mount_root: Path) -> Iterator[Path]:
    """An empty directory on the mount, the test's own."""
    directory = mount_root / f"test-{os.getpid()}-{next(_numbers)}"
    directory.mkdir()
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)
