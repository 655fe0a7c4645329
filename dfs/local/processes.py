"""Processes of the cluster: starting them, knowing them again, ending exactly them.

A process is remembered as pid and start time (with the boot it was started in), so that a pid
which the system gave to somebody else is never mistaken. Signals go through a pidfd opened before
that check, so the process checked is the process signalled, and its end is waited for by the
kernel's word, not by asking again and again.

Pid file, ROOT/run/NAME.json: {"pid": int, "started_ticks": int, "boot": text}
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import trio

from dfs.local.layout import Member, Root
from dfs.local.state import write_file
from dfs.runtime import Env

_STATE, _START_TIME = 0, 19  # fields of /proc/PID/stat, counted from the one after the name
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Process:
    """One started process, told from all others."""

    pid: int
    started_ticks: int
    boot: str

    @property
    def alive(self) -> bool:
        """Whether it runs still; a zombie does not."""
        return find(self.pid) == self


def find(pid: int) -> Process | None:
    """The process that has this pid now, None when there is none or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name stands in parentheses and may itself hold blanks and parentheses.
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[_STATE] in ("Z", "X"):
        return None
    with open(_BOOT_ID, encoding="ascii") as file:
        return Process(pid, int(fields[_START_TIME]), file.read().strip())


def remembered(root: Root, member: Member) -> Process | None:
    """The process last started as this member, running or not; None for none."""
    try:
        with open(root.pid_file(member), encoding="utf-8") as file:
            return Process(**json.load(file))
    except (FileNotFoundError, TypeError, ValueError):
        return None


def running(root: Root, member: Member) -> Process | None:
    """The member's process if it runs."""
    process = remembered(root, member)
    return process if process is not None and process.alive else None


def start(root: Root, member: Member, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start `dfs ARGUMENTS` in a session of its own, its output appended to the member's log."""
    with open(root.log(member), "ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "dfs.cli.main", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    process = find(child.pid)
    if process is not None:
        write_file(root.pid_file(member), json.dumps(asdict(process)) + "\n")
    return child


async def end(env: Env, process: Process, patience_s: float) -> bool:
    """SIGTERM, and SIGKILL if it runs on for that long; whether it ended by itself."""
    with _pidfd(process) as descriptor:
        if descriptor is None:
            return True
        _signal(descriptor, signal.SIGTERM)
        if await _ended(env, descriptor, patience_s):
            return True
        _signal(descriptor, signal.SIGKILL)
        await _ended(env, descriptor, patience_s)
        return False


async def ended(env: Env, process: Process, patience_s: float) -> bool:
    """Wait for a process to end by itself; False when it runs on for that long."""
    with _pidfd(process) as descriptor:
        return descriptor is None or await _ended(env, descriptor, patience_s)


async def _ended(env: Env, descriptor: int, patience_s: float) -> bool:
    with env.clock.move_on_after(patience_s) as scope:
        await trio.lowlevel.wait_readable(descriptor)
    return not scope.cancelled_caught


@contextmanager
def _pidfd(process: Process) -> Iterator[int | None]:
    """A descriptor of exactly this process, None when it has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor if process.alive else None
    finally:
        os.close(descriptor)


def _signal(descriptor: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return  # it has just ended, which is what the signal is for


def last_lines(path: str, count: int, max_bytes: int = 8192) -> list[str]:
    """The end of a log file."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - max_bytes))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
