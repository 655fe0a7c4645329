"""chaos [--minutes M] [--every S]: programs work on a mount while servers and masters are killed.

`cp -a` of a tree, transactions of sqlite, and git (clone, commit, fsck) run over and over on one
mount; meanwhile a chunkserver or a master, in turn, is killed every S seconds and started again
after a few, so that at most one of each is ever down. No program may see an error, and at the end
every copy is compared, the database checked and counted, every clone fsck'ed. Prints the kills, the
longest stall of a small fsynced write, and what was done. Exit code 1 when anything is amiss.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dfs.local.layout import Member
from tests.crash.cluster import Cluster, Unmet, pause

DOWN_S = 3.0
KEPT = 3  # copies and clones that stay on the mount while more are made
TREE = ("asyncio", "json", "logging", "sqlite3", "wsgiref", "email", "unittest")
AUTHOR = ("-c", "user.name=chaos", "-c", "user.email=chaos@localhost")


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command; its output. Unmet when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        told = (done.stderr or done.stdout)[-800:]
        raise Unmet(f"{' '.join(words)}: exit code {done.returncode}: {told}")
    return done.stdout


class Work:
    """One program's work, done over and over in a thread until `stop`; its first error ends it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.count = 0
        self.problem = ""
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__)

    def begin(self) -> None:
        self.place.mkdir()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def finish(self) -> None:
        """Check all that was done. Raises Unmet, OSError, sqlite3.Error."""

    def once(self, number: int) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        while not self._stop.is_set() and not self.problem:
            began = time.monotonic()
            self.attempt(lambda: self.once(self.count))
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.count += not self.problem

    def attempt(self, step: Callable[[], None]) -> None:
        """Do it, and remember the error if there is one."""
        try:
            step()
        except (Unmet, OSError, sqlite3.Error) as error:
            self.problem = self.problem or str(error) or repr(error)


class Copies(Work):
    """cp -a of a tree, compared with it, the older copies removed."""

    def __init__(self, place: Path, tree: Path) -> None:
        super().__init__(place)
        self._tree = tree

    def once(self, number: int) -> None:
        run("cp", "-a", self._tree, self.place / str(number))
        run("diff", "-r", self._tree, self.place / str(number))
        if number >= KEPT:
            run("rm", "-r", self.place / str(number - KEPT))

    def finish(self) -> None:
        for copy in sorted(self.place.iterdir()):
            if int(copy.name) < self.count:
                run("diff", "-r", self._tree, copy)


class Transactions(Work):
    """One row after the other, each in a transaction; now and then all are looked at."""

    def once(self, number: int) -> None:
        with contextlib.closing(self._connect()) as database:
            if number == 0:
                database.execute("create table numbers (n integer primary key, text text)")
            for n in range(number * 20, number * 20 + 20):
                database.execute("begin")
                database.execute("insert into numbers values (?, ?)", (n, f"{n:06}" * 50))
                database.execute("commit")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.place / "data.sqlite", isolation_level=None)

    def finish(self) -> None:
        with contextlib.closing(self._connect()) as database:
            verdict = database.execute("pragma integrity_check").fetchone()[0]
            count, last = database.execute("select count(*), max(n) from numbers").fetchone()
            wrong = database.execute(
                "select count(*) from numbers where text != replace(hex(zeroblob(50)), '00',"
                " printf('%06d', n))"
            ).fetchone()[0]
        if (verdict, count, last, wrong) != ("ok", self.count * 20, self.count * 20 - 1, 0):
            raise Unmet(f"sqlite: {verdict}, {count} rows to {last}, {wrong} of them wrong")


class Clones(Work):
    """git clone, a commit, fsck."""

    def __init__(self, place: Path, repository: Path) -> None:
        super().__init__(place)
        self._repository = repository

    def once(self, number: int) -> None:
        clone = self.place / str(number)
        run("git", "clone", "-q", "--no-hardlinks", self._repository, clone)
        (clone / "chaos.txt").write_text(f"clone {number}\n")
        run("git", "add", "-A", cwd=clone)
        run("git", *AUTHOR, "commit", "-qm", f"clone {number}", cwd=clone)
        self._check(clone)
        if number >= KEPT:
            run("rm", "-r", self.place / str(number - KEPT))

    def _check(self, clone: Path) -> None:
        run("git", "fsck", "--strict", "--no-progress", cwd=clone)
        if status := run("git", "status", "--porcelain", cwd=clone):
            raise Unmet(f"{clone}: not clean: {status[:300]}")

    def finish(self) -> None:
        for clone in sorted(self.place.iterdir()):
            if int(clone.name) < self.count:
                self._check(clone)


class Probe(Work):
    """A small file written, synced and read back: `longest_s` is the longest stall."""

    def once(self, number: int) -> None:
        path = self.place / "probe"
        with open(path, "w") as file:
            file.write(f"{number}\n")
            file.flush()
            os.fsync(file.fileno())
        if path.read_text() != f"{number}\n":
            raise Unmet(f"probe {number} read back something else")
        self._stop.wait(0.05)


@dataclass(slots=True)
class Report:
    """What happened."""

    kills: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    took_s: float = 0.0
    done: dict[str, int] = field(default_factory=dict)
    longest_stall_s: float = 0.0

    def __str__(self) -> str:
        did = ", ".join(f"{count} {name}" for name, count in self.done.items())
        rates = ", ".join(
            f"{60 * count / max(self.took_s, 1e-6):.0f} {name}/min"
            for name, count in self.done.items()
        )
        return "\n".join(
            [
                f"{len(self.kills)} kills: {', '.join(self.kills)}",
                f"in {self.took_s:.0f} s: {did} ({rates})",
                f"longest stall of a small synced write: {self.longest_stall_s:.2f} s",
                *(f"AMISS: {problem}" for problem in self.problems),
            ]
        )


def prepare(base: Path, parts: Sequence[str]) -> tuple[Path, Path]:
    """A tree to copy and a repository to clone, outside of the mount."""
    tree, repository = base / "tree", base / "repository"
    ignore = shutil.ignore_patterns("__pycache__", "test")
    for part in parts:
        source = Path(sysconfig.get_path("stdlib")) / part
        shutil.copytree(source, tree / part, symlinks=True, ignore=ignore)
    shutil.copytree(tree, repository, symlinks=True)
    for command in (("init", "-q"), ("add", "-A"), (*AUTHOR, "commit", "-qm", "all")):
        run("git", *command, cwd=repository)
    return tree, repository


def chaos(
    cluster: Cluster,
    work: Sequence[Work],
    minutes: float,
    every_s: float,
    victims: Sequence[Member],
) -> Report:
    """Let all work, kill in turn, stop, and check. The cluster is up."""
    report, began = Report(), time.monotonic()
    for one in work:
        one.begin()
    try:
        for kill in _kills(cluster, minutes, every_s, victims):
            report.kills.append(kill)
            if any(one.problem for one in work):
                break
    except Unmet as error:
        report.problems.append(str(error))
    for one in work:
        one.stop()
    report.took_s = time.monotonic() - began
    for one in work:
        if not one.problem:
            one.attempt(one.finish)
        if one.problem:
            report.problems.append(f"{type(one).__name__}: {one.problem}")
        report.done[type(one).__name__.lower()] = one.count
    report.longest_stall_s = max(one.longest_s for one in work if isinstance(one, Probe))
    report.problems += filter(None, [cluster.masters_differ()])
    return report


def _kills(
    cluster: Cluster, minutes: float, every_s: float, victims: Sequence[Member]
) -> Iterator[str]:
    """Kill a chunkserver or a master, in turn; start it again; name it."""
    ends_at, number = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < ends_at:
        began = time.monotonic()
        number += 1
        chosen = cluster.leader() if number % 2 else victims[number // 2 % len(victims)]
        if chosen is None:
            chosen = random.choice(cluster.masters())
        cluster.signal(chosen, signal.SIGKILL)
        pause(DOWN_S)
        cluster.up()
        yield chosen.name
        pause(max(0.0, began + every_s - time.monotonic()))


def all_work(mount: Path, tree: Path, repository: Path) -> list[Work]:
    return [
        Copies(mount / "copies", tree),
        Transactions(mount / "sqlite"),
        Clones(mount / "git", repository),
        Probe(mount / "probe"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--every", type=float, default=10.0, metavar="S")
    parser.add_argument("--keep", action="store_true", help="keep the directory in any case")
    parser.add_argument("--one", action="store_true", help="always the same chunkserver")
    options = parser.parse_args()
    # Ended from outside, it still stops the cluster that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    base = Path(tempfile.mkdtemp(prefix="dfs-chaos-"))
    cluster, failed = Cluster(base, mounts=1), True
    try:
        tree, repository = prepare(base, TREE)
        cluster.up()
        victims = cluster.chunkservers()[: 1 if options.one else None]
        work = all_work(cluster.mounts[0], tree, repository)
        report = chaos(cluster, work, options.minutes, options.every, victims)
        print(report)
        failed = bool(report.problems)
    finally:
        cluster.end()
        if failed or options.keep:
            print(f"kept: {base}")
        else:
            shutil.rmtree(base, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
