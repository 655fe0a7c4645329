"""The judgement over a cluster's status: is it safe, and if not, what is the matter.

Pure functions of what the masters said. `safe`: every master and server is up and every chunk has
all its replicas. `degraded`: everything works, but a further loss may hurt. `unavailable`: no
leader, nothing can be changed or read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dfs.cli.masters import Answer, leader_among
from dfs.messages.cluster import ClusterStatus, ServerStatus

DISK_FULL_FRACTION = 0.95


@dataclass(frozen=True)
class Health:
    """`state` is safe, degraded or unavailable; one sentence for each thing that is amiss."""

    state: str
    problems: tuple[str, ...]


def judge(answers: Sequence[Answer]) -> Health:
    """The health of the cluster whose masters gave these answers."""
    problems = [f"master at {a.address}: {a.problem}" for a in answers if a.status is None]
    leader = leader_among(answers)
    if leader is None or leader.status is None:
        return Health("unavailable", ("no master leads", *problems))
    if leader.status.recovering:
        source = leader.status.recovering
        problems.append(f"recovering from {source}: nothing can be changed (dfs meta recovered)")
    problems += _unreachable_masters(leader.status, answers)
    for server in leader.status.servers:
        problems += _server_problems(server)
    if leader.status.under_replicated:
        problems.append(f"{leader.status.under_replicated} chunks lack replicas")
    return Health("degraded" if problems else "safe", tuple(problems))


def _unreachable_masters(status: ClusterStatus, answers: Sequence[Answer]) -> list[str]:
    """Masters that the leader misses; not those that did not answer us either."""
    told = {answer.address for answer in answers if answer.status is None}
    return [
        f"master {master.id} at {master.address}: not reachable from the leader"
        for master in status.masters
        if not master.reachable and master.id != status.master and master.address not in told
    ]


def _server_problems(server: ServerStatus) -> list[str]:
    name = f"chunkserver {server.id} at {server.address}"
    if not server.alive:
        return [f"{name}: not alive"]
    problems = []
    for disk in server.disks:
        if not disk.healthy:
            problems.append(f"{name}: disk {disk.path}: {disk.problem or 'failed'}")
        elif disk.free_bytes < disk.total_bytes * (1 - DISK_FULL_FRACTION):
            problems.append(f"{name}: disk {disk.path} is nearly full")
    return problems
