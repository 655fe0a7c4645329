"""The state machine against the kernel's own file system, see `kernel_oracle`.

Run where the kernel is the one whose rules were taken: ext4 on Linux 6.7 or newer (older ones
treat setgid of strangers and modes of symlinks differently), as root with all capabilities.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = 300


def reason_to_skip(directory: Path) -> str:
    """Why this machine cannot be the judge, or ""."""
    if os.geteuid() != 0:
        return "acting as several users needs root"
    release = os.uname().release.split(".")
    if (int(release[0]), int(release[1])) < (6, 7):
        return "the kernel is older than 6.7"
    command = ["stat", "-f", "-c", "%T", str(directory)]
    kind = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if kind != "ext2/ext3":
        return f"the temporary directory is on {kind}, not on ext4"
    probe = directory / "device"
    try:
        os.mknod(probe, 0o20600, os.makedev(1, 3))
        os.setxattr(probe, b"trusted.probe", b"")
    except PermissionError:
        return "this root lacks capabilities"
    probe.unlink()
    return ""


@pytest.mark.parametrize("seed", [3, 20, 24])
def test_random_operations_do_what_the_kernel_does(tmp_path: Path, seed: int) -> None:
    """In a process of its own, because it changes its user all the time."""
    reason = reason_to_skip(tmp_path)
    if reason:
        pytest.skip(reason)
    command = [sys.executable, "-m", "tests.master.state.kernel_oracle", str(tmp_path)]
    done = subprocess.run(
        [*command, str(seed), str(STEPS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Rename ok" in done.stdout
