"""What happens to the cluster while the writers write: who is hit, how, in which order.

A round's `Plan` follows from its random numbers alone: one to three disturbances with pauses
between. A `kill` is SIGKILL; the cluster is brought back at the end of the plan. A `stop` is
SIGSTOP, and SIGCONT after a while, which may be long enough for the others to count it as dead.
Where the servers have disks of their own there are also power cuts: of everything at once (with the
clients' machines), of one chunkserver, of one master.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from dfs.local.layout import MOUNT, Member
from tests.crash.cluster import Cluster, pause

KILL, STOP = "kill", "stop"
TARGETS = ("client", "chunkserver", "leader", "masters", "chunkservers", "everything")
POWER_TARGETS = ("power", "power-chunkserver", "power-master")
GAP_MAX_S = 0.9
HOLD_MAX_S = 4.0  # longer than a write chain waits for a link, about a client's own patience


@dataclass(frozen=True)
class Disturbance:
    """One blow. `hold_s` is how long a stop lasts, `gap_s` what passes before it falls."""

    target: str
    how: str
    gap_s: float
    hold_s: float
    seed: int

    @property
    def is_power_cut(self) -> bool:
        return self.target in POWER_TARGETS

    def __str__(self) -> str:
        if self.is_power_cut:
            return f"{self.target} cut after {self.gap_s:.2f} s"
        lasting = f" for {self.hold_s:.1f} s" if self.how == STOP else ""
        return f"{self.how} {self.target}{lasting} after {self.gap_s:.2f} s"


def plan(chance: random.Random, targets: Sequence[str]) -> list[Disturbance]:
    """The disturbances of one round."""
    return [
        Disturbance(
            chance.choice(targets),
            KILL if chance.random() < 0.7 else STOP,
            chance.uniform(0.05, GAP_MAX_S),
            chance.uniform(0.3, HOLD_MAX_S) if chance.random() < 0.5 else 0.3,
            chance.getrandbits(32),
        )
        for _ in range(chance.choice((1, 1, 2, 3)))
    ]


def carry_out(cluster: Cluster, blows: Sequence[Disturbance]) -> list[Member]:
    """Let them fall; the mounts that were killed."""
    killed: list[Member] = []
    for blow in blows:
        pause(blow.gap_s)
        chance = random.Random(blow.seed)
        members = _members(cluster, blow.target, chance)
        if blow.is_power_cut:
            members = _cut_power(cluster, blow.target, chance)
        elif blow.how == STOP:
            _stop(cluster, members, blow.hold_s)
            continue
        for member in members:
            if cluster.signal(member, signal.SIGKILL) and member.role == MOUNT:
                killed.append(member)
    return killed


def _cut_power(cluster: Cluster, target: str, chance: random.Random) -> list[Member]:
    """Cut it; whom else that kills."""
    if target != "power":
        role = cluster.masters() if target == "power-master" else cluster.chunkservers()
        cluster.cut_power([chance.choice(role)])
        return []
    # The clients' machines go first, or they would see the others go.
    for client in cluster.clients():
        cluster.signal(client, signal.SIGSTOP)
    cluster.cut_power(cluster.servers())
    return cluster.clients()


def _stop(cluster: Cluster, members: Sequence[Member], hold_s: float) -> None:
    try:
        for member in members:
            cluster.signal(member, signal.SIGSTOP)
        pause(hold_s)
    finally:
        for member in members:
            cluster.signal(member, signal.SIGCONT)


def _members(cluster: Cluster, target: str, chance: random.Random) -> list[Member]:
    """Whom it hits, in the order in which it hits them."""
    if target in POWER_TARGETS:
        return []
    if target == "client":
        return [chance.choice(cluster.clients())]
    if target == "chunkserver":
        return [chance.choice(cluster.chunkservers())]
    if target == "leader":
        leader = cluster.leader()
        return [] if leader is None else [leader]
    everybody = {
        "masters": cluster.masters(),
        "chunkservers": cluster.chunkservers(),
        "everything": [*cluster.servers(), *cluster.clients()],
    }[target]
    return chance.sample(everybody, len(everybody))
