"""Real power loss for real processes: every server has a disk of its own that forgets.

A kill loses nothing that was written, since the page cache is the kernel's. So each server's data
directory is an ext4 file system on a loop device, and the power is cut by ext4's own shutdown
ioctl, which the kernel's developers test crashes with: from then on the disk answers EIO, and what
was never synced is gone when it is mounted again. Needs root and loop devices.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_LOG_FLUSH = struct.pack("I", 2)
_IMAGE_BYTES = 1 << 30  # sparse
_OPTIONS = "loop,commit=600"  # nothing is to become durable by the mere passing of time


def available() -> bool:
    """Whether this machine lets us make such disks."""
    return os.geteuid() == 0 and os.path.exists("/dev/loop-control")


class Disk:
    """An ext4 file system in a file, mounted at a directory."""

    def __init__(self, image: Path, directory: Path) -> None:
        self._image, self.directory = image, directory

    def make(self) -> None:
        self._image.parent.mkdir(parents=True, exist_ok=True)
        with open(self._image, "wb") as file:
            file.truncate(_IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", self._image)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.mount()
        (self.directory / "lost+found").rmdir()

    def mount(self) -> None:
        _run("mount", "-o", _OPTIONS, self._image, self.directory)

    def remount(self, option: str) -> None:
        _run("mount", "-o", f"remount,{option}", self.directory)

    def cut(self) -> None:
        """From now on every access is EIO, and what was not synced is lost."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def come_back(self) -> None:
        """Mount it anew after `cut`; nobody may have it open."""
        self.unmount()
        self.mount()

    def unmount(self) -> None:
        if os.path.ismount(self.directory):
            _run("umount", self.directory)


def make_disks(images: Path, directories: Sequence[str]) -> dict[str, Disk]:
    """A disk for each of these directories."""
    made = {path: Disk(images / f"{Path(path).name}.img", Path(path)) for path in directories}
    for disk in made.values():
        disk.make()
    return made


def _run(*command: object) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
