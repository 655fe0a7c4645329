"""crash [--rounds N] [--seed S] [--keep] [--only TARGETS]: what was acknowledged survives.

Starts a cluster of 3 masters, 4 chunkservers and two mounts in a temporary directory; writers in
several processes write on the mounts and note what was acknowledged, while SIGKILL and SIGSTOP hit
the targets in an order that follows from the seed. After each round every fact is checked. A round
takes 3 to 10 s; its line tells what was done. A failing one shows the facts that do not hold and
the history of the file concerned, keeps the directory, and ends the run with exit code 1.

The targets whose names begin with `power` (not among the default ones: they need root) give each
server an ext4 of its own on a loop device and make it forget what was never synced.

Round i of seed S is the only round of seed S + i: `--rounds 1 --seed S+i`.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.crash import faults, power
from tests.crash.cluster import Cluster, Unmet
from tests.crash.disturbances import POWER_TARGETS, TARGETS
from tests.crash.rounds import Rounds


@contextlib.contextmanager
def workplace(keep: list[bool], *, disks: bool, fault: str = "") -> Iterator[Cluster]:
    """A cluster in a temporary directory; stopped at the end, and removed unless `keep` says so."""
    base = Path(tempfile.mkdtemp(prefix="dfs-crash-"))
    cluster = faults.faulty_cluster(base, fault) if fault else Cluster(base, disks=disks)
    try:
        yield cluster
    finally:
        with contextlib.suppress(Unmet):
            cluster.end()
        if keep[0]:
            print(f"kept: {base}")
        else:
            shutil.rmtree(base, ignore_errors=True)


def run(cluster: Cluster, seed: int, count: int, targets: list[str], replicas: bool) -> int:
    """The rounds, until one fails; the exit code."""
    cluster.up()
    rounds = Rounds(cluster, targets, replicas=replicas)
    for number in range(count):
        outcome = rounds.run(seed + number)
        print(f"{number + 1}/{count} {'FAILED' if outcome.facts else 'ok'} {outcome}", flush=True)
        if outcome.facts:
            return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="crash", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--keep", action="store_true", help="keep the directory in any case")
    known = [*TARGETS, *POWER_TARGETS]
    parser.add_argument("--only", default=",".join(TARGETS), help="of: " + ",".join(known))
    parser.add_argument(
        "--no-replicas", action="store_true", help="do not compare the replicas of each chunk"
    )
    parser.add_argument("--plant", choices=list(faults.ALL), help="break it, and see it noticed")
    options = parser.parse_args()
    targets = faults.ALL[options.plant] if options.plant else options.only.split(",")
    unknown = [target for target in targets if target not in known]
    if unknown:
        parser.error(f"no such target: {unknown[0]}")
    disks = any(target in POWER_TARGETS for target in targets)
    if disks and not power.available():
        parser.error("power cuts need root and loop devices")
    # Ended from outside, it still stops the cluster that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    keep = [True]
    with workplace(keep, disks=disks, fault=options.plant or "") as cluster:
        try:
            failed = run(cluster, options.seed, options.rounds, targets, not options.no_replicas)
        except Unmet as error:
            print(f"FAILED: {error}", flush=True)
            failed = 1
        keep[0] = bool(failed) or options.keep
    return failed


if __name__ == "__main__":
    sys.exit(main())
