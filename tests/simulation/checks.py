"""What must be true of every cluster once the faults are over and the clients have ended.

Redundancy comes back within a bound; replicas are identical; what nobody refers to is gone; the
masters' states are equal and sound in themselves; fsck finds nothing; no session keeps an inode.
"""

from __future__ import annotations

from dfs.client import Client
from dfs.messages.checking import Severity
from master.state import queries
from tests.simulation.stage import Stage

REDUNDANT_S = 150.0  # after the last fault: settling, grace of a dead server, copies
CLEAN_S = 90.0
SESSIONS_S = 30.0  # beyond their time to live
CHUNKS_MAX = 2000


async def check(stage: Stage, observer: Client) -> None:
    """All of it; the first thing that does not hold fails the run."""
    cluster = stage.cluster
    if not await cluster.until_redundant(REDUNDANT_S):
        counts = cluster.leading().care.settling.counts() if cluster.leader() else "no leader"
        stage.broken("repair converges", f"not all is redundant after {REDUNDANT_S:g} s: {counts}")
    await cluster.until_clean(
        CLEAN_S
    )  # first: chunks that are on their way out cannot be asked for
    await _replicas_equal(stage, observer)
    await cluster.until_agreed()
    cluster.check_invariants()
    await _fsck(stage, observer)
    await _sessions_end(stage)


async def _sessions_end(stage: Stage) -> None:
    """Nobody has anything open, once the sessions of those who died have expired."""
    clock, left = stage.world.clock, "nothing"
    with clock.move_on_after(stage.plan.knobs.session_ttl_s + SESSIONS_S) as scope:
        while left:
            live = stage.cluster.live_sessions()._live if stage.cluster.leader() else {}
            left = ", ".join(f"{s}: {sorted(v.opens)}" for s, v in live.items() if v.opens)
            if left:
                await clock.sleep(1.0)
    if scope.cancelled_caught:
        stage.broken("sessions", f"inodes are still noted as open: {left}")


async def _replicas_equal(stage: Stage, observer: Client) -> None:
    tables = stage.cluster.leading().tables
    inodes = (inode for inode, _, _ in queries.chunks_after(tables, (0, 0), CHUNKS_MAX))
    for inode in dict.fromkeys(inodes):
        stage.reach["checked.chunks"] += await stage.cluster.check_replicas(observer, inode, 16)


async def _fsck(stage: Stage, observer: Client) -> None:
    checked = await stage.cluster.fsck(observer)
    if checked.progress.problem:
        stage.broken("fsck", checked.progress.problem)
    for finding in checked.findings:
        if Severity(finding.severity) != Severity.NOTE:
            stage.broken("fsck", f"{finding.kind}: {finding.text}")
