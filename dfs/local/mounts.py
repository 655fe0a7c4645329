"""Mounts kept by a local cluster: whether they answer, mounting and unmounting.

A mount whose process was killed stays in the kernel's table and answers every call with ENOTCONN,
a hung one does not answer at all; so nothing here touches a mount point in this process: a child
does, with a deadline.
"""

from __future__ import annotations

import os
import subprocess

import trio

from dfs.errors import Code, Failure
from dfs.mountinfo import mounted_at as mounted_at
from dfs.runtime import Env


async def answers(env: Env, directory: str, patience_s: float) -> bool:
    """Whether the file system at the directory answers statfs within that time."""
    return await _succeeds(env, ["stat", "-f", "--", directory], patience_s)


async def unmount(env: Env, directory: str, patience_s: float, *, lazy: bool = False) -> None:
    """Take the mount away; `lazy` also while it is in use or dead. Failure EBUSY."""
    flags = ["-u", "-z"] if lazy else ["-u"]
    await _succeeds(env, ["fusermount3", *flags, "--", directory], patience_s)
    if mounted_at(directory) is not None:
        text = f"{directory} is in use and stays mounted; close what uses it, or give --force"
        raise Failure(Code.UNAVAILABLE, text)


async def _succeeds(env: Env, command: list[str], patience_s: float) -> bool:
    with env.clock.move_on_after(patience_s):
        done = await trio.run_process(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return done.returncode == 0
    return False


def prepare_directory(directory: str) -> None:
    """Make the directory to mount at. Raises Failure(CONFIG) when it holds something."""
    try:
        os.makedirs(directory, exist_ok=True)
        names = os.listdir(directory)
    except OSError as error:
        raise Failure(Code.CONFIG, f"cannot mount at {directory}: {error.strerror}") from None
    if names:
        text = f"cannot mount at {directory}: it is not empty, and what it holds would be hidden"
        raise Failure(Code.CONFIG, text)
