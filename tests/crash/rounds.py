"""Rounds of the crash test: writers write, the cluster is hit, everything is checked.

A round: writers start in fresh directories, the disturbances of its plan fall, what was killed is
started again, the writers go on for a while and stop. Then, through every mount, each writer's
directory must be what its manifest allows (`model`); the masters' states must be equal and the
replicas of each chunk alike. What earlier rounds left must still be what it was.

A round follows from its seed as far as chance is ours; which operation a blow meets is not. So a
failure shows the plan, the violated facts and the history of the file concerned, and all of it
(manifests, logs, data) is kept.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dfs.local.layout import Member
from tests.crash import disturbances
from tests.crash.cluster import REPOSITORY, Cluster, Unmet, look, pause
from tests.crash.disturbances import Disturbance
from tests.crash.model import Found, Manifest, Seen

WRITERS_PER_MOUNT = 2
KEPT_ROUNDS = 3  # directories of earlier rounds that are looked at again
HISTORY_LINES = 40
STOP_TIMEOUT_S = 90.0  # longer than a client retries


@dataclass(slots=True)
class Writer:
    """A writer's process and where it works."""

    number: int
    mount: Member
    directory: Path
    manifest: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Let it finish its operation, close its files and end. Unmet when it hangs."""
        try:
            self.process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Unmet(f"writer {self.number} hangs in an operation") from None

    def noted(self) -> Manifest:
        return Manifest.load(self.number, self.manifest)


@dataclass(slots=True)
class Outcome:
    """What one round did, and what did not hold."""

    seed: int
    blows: Sequence[Disturbance]
    operations: int = 0
    took_s: float = 0.0
    facts: list[str] = field(default_factory=list)  # violated ones

    def __str__(self) -> str:
        plan = ", then ".join(map(str, self.blows))
        head = f"seed {self.seed}: {self.operations} operations, {self.took_s:.1f} s: {plan}"
        return "\n".join([head, *self.facts])


@dataclass(frozen=True, slots=True)
class _Left:
    """What an earlier round left, as it was found right after it."""

    directory: str  # within the mounts
    seen: Seen


class Rounds:
    """Rounds on one cluster, which is up."""

    def __init__(
        self,
        cluster: Cluster,
        targets: Sequence[str] = disturbances.TARGETS,
        *,
        replicas: bool = True,
    ) -> None:
        self._cluster, self._targets, self._replicas = cluster, targets, replicas
        self._left: list[list[_Left]] = []
        self._count = 0

    def run(self, seed: int) -> Outcome:
        """One round. Unmet when the cluster itself does not come back."""
        began = time.monotonic()
        chance = random.Random(seed)
        outcome = Outcome(seed, disturbances.plan(chance, self._targets))
        self._count += 1
        writers = self._start_writers(chance)
        try:
            killed = disturbances.carry_out(self._cluster, outcome.blows)
            self._cluster.up()
            pause(0.3)
        finally:
            for writer in writers:
                writer.stop()
        power = any(blow.is_power_cut for blow in outcome.blows)
        outcome.facts = self._check(writers, killed, power=power)
        outcome.operations = sum(len(writer.noted().operations) for writer in writers)
        self._forget_old()
        outcome.took_s = time.monotonic() - began
        return outcome

    def _start_writers(self, chance: random.Random) -> list[Writer]:
        made: list[Writer] = []
        for member, mount in zip(self._cluster.clients(), self._cluster.mounts, strict=True):
            for _ in range(WRITERS_PER_MOUNT):
                number = len(made) + 1
                made.append(self._start_writer(number, member, mount, chance.getrandbits(32)))
        return made

    def _start_writer(self, number: int, member: Member, mount: Path, seed: int) -> Writer:
        name = f"round-{self._count}-writer-{number}"
        directory, manifest = mount / name, self._cluster.base / f"{name}.manifest"
        directory.mkdir()
        manifest.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.crash.writer", "--directory", str(directory)]
        command += ["--manifest", str(manifest), "--number", str(number), "--seed", str(seed)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=REPOSITORY)
        return Writer(number, member, directory, manifest, process)

    # -- checking

    def _check(
        self, writers: Sequence[Writer], killed: Sequence[Member], *, power: bool
    ) -> list[str]:
        facts: list[str] = []
        left: list[_Left] = []
        for writer in writers:
            survived = writer.mount not in killed
            facts += self._check_writer(writer, left, survived=survived, power=power)
        for earlier in [found for kept in self._left for found in kept]:
            facts += self._check_again(earlier)
        self._left.append(left)
        facts += [fact for fact in (self._cluster.masters_differ(),) if fact]
        paths = [f"/{found.directory}/{path}" for found in left for path in _files(found.seen)]
        if self._replicas:
            facts += [fact for fact in (self._cluster.replicas_differ(paths),) if fact]
        return facts

    def _check_writer(
        self, writer: Writer, left: list[_Left], *, survived: bool, power: bool
    ) -> list[str]:
        """Through each mount; all must see the same."""
        manifest, name = writer.noted(), writer.directory.name
        facts: list[str] = []
        for mount in self._cluster.mounts:
            try:
                seen = look(mount / name)
            except OSError as error:
                facts.append(f"writer {writer.number} by {mount.name}: {error}")
                continue
            for violation in manifest.check(seen, survived=survived, power=power):
                history = manifest.history(violation)[-HISTORY_LINES:]
                facts.append(f"writer {writer.number} by {mount.name}: {violation.text}")
                facts += [f"    {operation}" for operation in history]
            if mount == self._cluster.mounts[0]:
                left.append(_Left(name, seen))
        return facts

    def _check_again(self, earlier: _Left) -> list[str]:
        mount = self._cluster.mounts[self._count % len(self._cluster.mounts)]
        try:
            seen = look(mount / earlier.directory)
        except OSError as error:
            return [f"{earlier.directory}, right before, by {mount.name}: {error}"]
        differing = [
            path for path in {**earlier.seen, **seen} if _differs(earlier.seen, seen, path)
        ]
        text = f"{earlier.directory} is not what it was a round before, by {mount.name}"
        return [f"{text}: {path}" for path in differing]

    def _forget_old(self) -> None:
        """Keep the tree, and the time that a round takes, from growing."""
        while len(self._left) > KEPT_ROUNDS:
            for gone in self._left.pop(0):
                shutil.rmtree(self._cluster.mounts[0] / gone.directory)


def _differs(before: Seen, after: Seen, path: str) -> bool:
    missing = Found(0, 0, b"")
    return before.get(path, missing) != after.get(path, missing)


def _files(seen: Seen) -> Iterator[str]:
    """One name of each file."""
    inodes: dict[int, str] = {}
    for path, found in seen.items():
        if found is not None:
            inodes.setdefault(found.inode, path)
    yield from inodes.values()
