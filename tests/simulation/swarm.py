"""One whole run from one seed: a cluster, random clients, random faults, and every check.

`run_seed` raises for the first thing that is wrong; `scripts/simulate` runs many seeds.
"""

from __future__ import annotations

import logging
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

import trio

from dfs.client import Client
from dfs.errors import Failure
from dfs.messages.checking import Finding, Severity
from dfs.runtime.sim import World
from master.check.findings import Kind
from tests.simulation.cluster import Knobs, SimCluster
from tests.simulation.swarm_faults import Faults
from tests.simulation.workloads.worker import SharedFile, Slowest, Worker, Wrong

STALL_LIMIT_S = 5.0
REPAIRED_S = 90.0  # after the last fault
BOTH_STALL_S = 3.0  # more, where a fault of the masters came on top of one of a chunkserver
# Faults that no replica can make up for: what a step may take longer while they last.
HELPLESS_S = {"kill_all": 5.0, "cut_client_from_master": 6.0}
# After a power loss: a replica that had not even its header on disk yet, and is made again.
OF_POWER_LOSS = re.compile("set aside as .* no valid header|has lost its replica of chunk")
OWN_LOGGERS = ("dfs", "master", "chunkserver")


@dataclass
class Outcome:
    """What a run was like."""

    seed: int
    steps: int = 0
    chunks: int = 0
    slowest: Slowest = field(default_factory=Slowest)
    struck: dict[str, int] = field(default_factory=dict)
    overlapped: bool = False
    history: list[str] = field(default_factory=list)
    trace_hash: str = ""


class _Errors(logging.Handler):
    """Collects the ERROR lines of a run: hardly a fault here is worth one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{record.name}: {record.getMessage()}"
        if record.name.split(".")[0] in OWN_LOGGERS and not OF_POWER_LOSS.search(line):
            self.lines.append(line)


def run_seed(
    seed: int,
    directory: Path,
    *,
    seconds: float = 30.0,
    faults: bool = True,
    history: list[str] | None = None,
) -> Outcome:
    """Run one seed for that much virtual time; raises AssertionError (or worse) when it fails.

    `history` receives what the clients did, in order.
    """
    world, outcome, errors = World(seed), Outcome(seed), _Errors()
    if history is not None:
        outcome.history = history
    logging.getLogger().addHandler(errors)
    try:
        world.run(lambda: _run(world, outcome, directory, seconds, faults))
    finally:
        logging.getLogger().removeHandler(errors)
    outcome.trace_hash = world.trace_hash()
    if errors.lines:
        raise Wrong("unexpected ERROR lines:\n  " + "\n  ".join(errors.lines))
    return outcome


def _knobs(seed: int) -> Knobs:
    chance = random.Random(f"{seed}/knobs")
    keep = chance.choice([5, 100])
    return Knobs(
        compact_entries=chance.choice([10, 40, 200]) + keep,
        keep_entries=keep,
        session_ttl_s=20.0,
        packet_bytes=chance.choice([65_536, 256 << 10]),
        reap_batch=chance.choice([2, 256]),
    )


async def _run(
    world: World, outcome: Outcome, directory: Path, seconds: float, faults: bool
) -> None:
    cluster = SimCluster(world, directory, knobs=_knobs(outcome.seed))
    await cluster.start()
    await cluster.until_leader()
    names = ["client-1", "client-2", "client-3"][: random.Random(outcome.seed).randint(2, 3)]
    async with cluster.client("observer") as observer:
        await cluster.until_registered(observer, 3)
        workers = await _work(cluster, outcome, names, seconds, faults)
        await cluster.until_leader()
        await cluster.until_registered(observer, 3)
        await cluster.until_agreed()
        await _check(cluster, outcome, workers, observer)


async def _work(
    cluster: SimCluster, outcome: Outcome, names: list[str], seconds: float, faults: bool
) -> list[Worker]:
    world, harassers = cluster.world, Faults(cluster, outcome.seed, names)
    shared = [SharedFile(b"shared-%d" % n) for n in range(3)]
    workers: list[Worker] = []
    done = [trio.Event() for _ in names]
    until_s = world.clock.monotonic() + seconds

    async def work(name: str, ended: trio.Event) -> None:
        async with cluster.client(name) as client:
            worker = Worker(name, client, world.clock, str(outcome.seed), shared, outcome.history)
            workers.append(worker)
            await worker.begin()
            await worker.run(until_s)
            await worker.close_all()
        ended.set()

    async with trio.open_nursery() as nursery:
        for name, ended in zip(names, done, strict=True):
            nursery.start_soon(work, name, ended)
        nursery.start_soon(_patrol, cluster, until_s)
        if faults:
            nursery.start_soon(harassers.harass_masters, until_s)
            nursery.start_soon(harassers.harass_chunkservers, until_s)
    outcome.struck, outcome.overlapped = harassers.struck, harassers.overlapped
    for worker in workers:
        outcome.steps += worker.steps
        outcome.slowest.note(worker.slowest.seconds, worker.slowest.step)
    return workers


async def _patrol(cluster: SimCluster, until_s: float) -> None:
    """Check the cluster in the middle of the storm: what lacks may lack, no more than that."""
    async with cluster.client("patrol") as client:
        while cluster.world.clock.monotonic() < until_s:
            await cluster.world.clock.sleep(3.0)
            try:
                checked = await cluster.fsck(client)
            except Failure as failure:
                cluster.world.trace("fsck failed", failure.message)
                continue
            _judge(checked.findings, frozenset({Severity.METADATA}))


def _judge(findings: list[Finding], refused: frozenset[Severity]) -> None:
    """Copies of chunks are not made anew yet: that some lack is true, and nothing else is."""
    for finding in findings:
        if Severity(finding.severity) in refused and finding.kind != Kind.TOO_FEW_COPIES:
            raise Wrong(f"fsck: {finding.kind}: {finding.text}")


async def _check(
    cluster: SimCluster, outcome: Outcome, workers: list[Worker], observer: Client
) -> None:
    inodes = [inode for worker in workers for inode in await worker.compare_all(observer)]
    if not await cluster.until_redundant(REPAIRED_S):
        raise Wrong(f"not all is repaired: {cluster.leading().care.settling.counts()}")
    for inode in dict.fromkeys(inodes):
        outcome.chunks += await cluster.check_replicas(observer, inode, 16)
    await cluster.until_clean()
    await cluster.until_agreed()
    cluster.check_invariants()
    checked = await cluster.fsck(observer)
    if checked.progress.problem:
        raise Wrong(f"fsck: {checked.progress.problem}")
    _judge(checked.findings, frozenset(Severity) - {Severity.NOTE})
    live = cluster.live_sessions()
    left = {s: sorted(v.opens) for s, v in live._live.items() if v.opens}
    if left:
        raise Wrong(f"inodes are still noted as open: {left}")
    limit_s = STALL_LIMIT_S + sum(s for kind, s in HELPLESS_S.items() if kind in outcome.struck)
    limit_s += BOTH_STALL_S if outcome.overlapped else 0.0
    if outcome.slowest.seconds > limit_s:
        raise Wrong(f"a stall of {outcome.slowest.seconds:.2f} s: {outcome.slowest.step}")
