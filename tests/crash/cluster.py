"""The cluster under test: `dfs local` with several mounts, and the signals that hit it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dfs.local import mounts, processes
from dfs.local.layout import CHUNKSERVER, MASTER, MOUNT, Member, Root
from tests.crash.model import Found, Seen
from tests.crash.power import Disk, make_disks

PATIENCE_S = 60.0
REPOSITORY = Path(__file__).resolve().parent.parent.parent


class Unmet(Exception):
    """The cluster did not do what every round rests on."""


class Cluster:
    """Masters, chunkservers and mounts below one directory. `up` starts what does not run.

    `environment` is added to that of its processes. With `disks` each server has a disk of its
    own, whose power can be cut.
    """

    def __init__(
        self,
        base: Path,
        *,
        mounts: int = 2,
        chunkservers: int = 4,
        environment: Mapping[str, str] | None = None,
        disks: bool = False,
    ) -> None:
        self.base, self.root = base, Root(str(base / "root"))
        self.mounts = [base / f"mnt-{number}" for number in range(1, mounts + 1)]
        self._chunkservers = chunkservers
        self._environment = {**os.environ, **(environment or {})}
        self._ever_up = False
        self.disks: dict[str, Disk] = {}
        if disks:
            os.makedirs(self.root.path, mode=0o700)
            directories = [self.root.data(member) for member in self.servers()]
            self.disks = make_disks(base / "disks", directories)

    # -- its command line

    def dfs(self, *arguments: object, accept: Sequence[int] = (0,)) -> str:
        """Run `dfs` and give its output. Unmet when it ends with another exit code."""
        words = [sys.executable, "-m", "dfs.cli.main", *map(str, arguments)]
        environment = {**self._environment, "DFS_CONFIG": self.root.client_config}
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        if done.returncode not in accept:
            told = (done.stderr or done.stdout)[-1000:]
            raise Unmet(f"dfs {' '.join(words[3:])}: exit code {done.returncode}: {told}")
        return done.stdout

    def up(self) -> None:
        """Start and mount whatever is missing, and wait until all of it works."""
        start = ("local", "up", "--root", self.root.path)
        if self._ever_up:
            self.dfs(*start)
            return
        for mount in self.mounts:
            self.dfs(*start, "--chunkservers", self._chunkservers, "--mount", mount)
        self._ever_up = True

    def end(self) -> None:
        """Stop and unmount everything, whatever state it is in."""
        try:
            self.dfs("local", "down", "--root", self.root.path, "--force")
        finally:
            for mount in self.mounts:
                take_away(mount)
            for disk in self.disks.values():
                disk.unmount()

    # -- its processes

    def chunkservers(self) -> list[Member]:
        return [Member(CHUNKSERVER, number) for number in range(1, self._chunkservers + 1)]

    def masters(self) -> list[Member]:
        return [Member(MASTER, number) for number in (1, 2, 3)]

    def servers(self) -> list[Member]:
        return [*self.masters(), *self.chunkservers()]

    def clients(self) -> list[Member]:
        return [Member(MOUNT, number) for number in range(1, len(self.mounts) + 1)]

    def leader(self) -> Member | None:
        """The master that leads just now, if any does."""
        status = json.loads(self.dfs("local", "status", "--root", self.root.path, "--json"))
        leading = (p["id"] for p in status["processes"] if p["leader"] and p["alive"])
        return next((Member(MASTER, number) for number in leading), None)

    def signal(self, member: Member, number: signal.Signals) -> bool:
        """Signal exactly that process; False when it does not run. SIGKILL waits for its end."""
        process = processes.remembered(self.root, member)
        if process is None:
            return False
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return False
        try:
            if not process.alive:
                return False
            signal.pidfd_send_signal(descriptor, number)
            if number is signal.SIGKILL:
                select.select([descriptor], [], [], PATIENCE_S)
        finally:
            os.close(descriptor)
        return True

    def cut_power(self, members: Sequence[Member]) -> None:
        """The power of these servers goes, at one moment, and comes back; they are not started."""
        for member in members:
            self.signal(member, signal.SIGSTOP)  # so that nobody sees an error of a dying disk
        for member in members:
            self.disks[self.root.data(member)].cut()
        for member in members:
            self.signal(member, signal.SIGKILL)
        for member in members:
            self.disks[self.root.data(member)].come_back()

    # -- what it says of itself

    def digests(self) -> list[tuple[int, str]]:
        """(applied index, hash of the state) of every master that answers."""
        status = json.loads(self.dfs("status", "--digest", "--json", accept=range(8)))
        told = [master["status"] for master in status["masters"] if master["status"]]
        return [(master["applied_index"], master["state_digest"]) for master in told]

    def masters_differ(self) -> str:
        """Wait until all have applied as much; what differs then, "" for nothing."""
        told: list[tuple[int, str]] = []

        def level() -> bool:
            told[:] = self.digests()
            return len(told) == 3 and len({index for index, _ in told}) == 1

        until(level, "all masters at one applied index")
        return "" if len({digest for _, digest in told}) == 1 else f"the masters differ: {told}"

    def info(self, paths: Iterable[str]) -> list[dict[str, Any]]:
        """What `dfs info` says of files."""
        told: list[dict[str, Any]] = json.loads(self.dfs("info", "--json", *paths, accept=range(8)))
        return told

    def replicas_differ(self, paths: Iterable[str]) -> str:
        """Wait until every chunk's replicas are alike; what is amiss still, "" for nothing."""
        names, found = list(paths), [""]
        if not names:
            return ""

        def alike() -> bool:
            told = self.info(names)
            problems = [_problems(file) for file in told]
            found[0] = "; ".join(problem for problem in problems if problem)
            if len(told) != len(names):
                found[0] += f"; {len(names) - len(told)} files cannot be inspected"
            return not found[0]

        try:
            until(alike, "replicas alike", 20.0)
        except Unmet:
            return found[0]
        return ""


def _problems(file: dict[str, Any]) -> str:
    amiss = [
        f"{file['path']} chunk {c['index']} ({c['handle']:x}): {problem}"
        for c in file["chunks"]
        for problem in c["problems"]
    ]
    amiss += [
        f"{file['path']} chunk {c['index']} ({c['handle']:x}) has no replica"
        for c in file["chunks"]
        if not c["replicas"]
    ]
    return "; ".join(amiss)


def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> float:
    """Wait for the condition; how long that took. Unmet when it does not come about."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > patience_s:
            raise Unmet(f"{what}: not within {patience_s:.0f} s")
        pause(0.05)
    return time.monotonic() - began


def pause(seconds: float) -> None:
    """Let the processes under test go on for a while; nothing that is judged waits for it."""
    threading.Event().wait(seconds)


def look(directory: Path) -> Seen:
    """Everything in a directory, with its contents. Raises OSError when names cannot be read."""
    seen: Seen = {}
    for parent, names, files in os.walk(directory, onerror=_raise):
        inside = os.path.relpath(parent, directory)
        prefix = "" if inside == "." else f"{inside}/"
        for name in names:
            seen[prefix + name] = None
        for name in files:
            seen[prefix + name] = _read(os.path.join(parent, name))
    return seen


def _raise(error: OSError) -> None:
    raise error


def _read(path: str) -> Found:
    status = os.stat(path)
    try:
        with open(path, "rb") as file:
            return Found(status.st_ino, status.st_nlink, file.read())
    except OSError as error:
        return Found(status.st_ino, status.st_nlink, b"", error.strerror or repr(error))


def take_away(directory: Path) -> None:
    """Leave no mount behind, whatever state it is in."""
    while mounts.mounted_at(str(directory)) is not None:
        subprocess.run(["fusermount3", "-u", "-z", "--", str(directory)], check=False)
