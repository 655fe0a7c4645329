"""Mountpoints as the operating system sees them: unmounting, read-ahead, what is behind them.

What is mounted is read from the kernel's table (`dfs.mountinfo`), never by looking at the
mountpoint itself: a look at it would be a request to the very process that looks.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

from dfs.errors import Code, Failure, os_failure
from dfs.mountinfo import Mounted
from dfs.mountinfo import mounted_at as mounted_at
from fuse.xattrs import MOUNT_NAME, SYNC_NAME

FILE_SYSTEM_TYPE = "fuse.dfs"
MNT_FORCE = 1
MNT_DETACH = 2


def resolved(directory: str) -> str:
    """The absolute path without symlinks, without a look at the last component.

    That one may be the mount of a dead process, or of one that does not answer.
    """
    parent, name = os.path.split(os.path.abspath(directory))
    return os.path.join(os.path.realpath(parent), name)


def describe(mountpoint: str) -> dict[str, str | int] | None:
    """What the process behind a dfs mount says of itself; None when it is gone.

    It answers by itself, also while its cluster cannot be reached. Raises OSError.
    """
    try:
        answer = json.loads(os.getxattr(mountpoint, MOUNT_NAME))
    except OSError as error:
        # "Transport endpoint is not connected": killed. "Software caused ...": aborted.
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            return None
        raise
    return dict(answer)


def unmount(mountpoint: str, *, lazy: bool) -> None:
    """Unmount; lazily: out of sight at once, ended when nothing uses it any more.

    Raises Failure with errno EBUSY when it is in use, EINVAL when nothing is mounted there.
    """
    if os.geteuid() == 0:
        _umount2(mountpoint, MNT_DETACH if lazy else 0)
        return
    program = shutil.which("fusermount3") or shutil.which("fusermount")
    if program is None:
        raise Failure(Code.CONFIG, "fusermount3 is not installed")
    arguments = [program, "-u", "-q", *(["-z"] if lazy else []), "--", mountpoint]
    ended = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if ended.returncode:
        raise os_failure(errno.EBUSY if mounted_at(mountpoint) else errno.EINVAL, mountpoint)


def _umount2(mountpoint: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(mountpoint), flags) != 0:
        raise os_failure(ctypes.get_errno(), mountpoint)


def sync_file_system(mountpoint: str) -> None:
    """Have the kernel write all its dirty pages of the mount, as far as it can. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs", mountpoint)
    finally:
        os.close(descriptor)


def sync_all(mountpoint: str) -> None:
    """Have a mount make durable all that was written through it. Raises OSError."""
    sync_file_system(mountpoint)
    os.setxattr(mountpoint, SYNC_NAME, b"")


def set_read_ahead(device: str, read_ahead_kb: int) -> None:
    """Raise the kernel's read-ahead on the device `major:minor`. Raises OSError."""
    Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(f"{read_ahead_kb}\n")


def abort(mounted: Mounted) -> None:
    """End a mount by force: whoever waits for it gets an error, and it is gone.

    The only help where its process cannot answer any more, and the last resort there: what was not
    flushed is lost. Raises Failure or OSError.
    """
    if os.geteuid() == 0:
        _umount2(mounted.mountpoint, MNT_FORCE | MNT_DETACH)
        return
    minor = mounted.device.partition(":")[2]
    Path(f"/sys/fs/fuse/connections/{minor}/abort").write_text("1\n")
    unmount(mounted.mountpoint, lazy=True)
