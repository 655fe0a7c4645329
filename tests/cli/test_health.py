"""The judgement over a cluster: what counts as safe, degraded, unavailable."""

from __future__ import annotations

import dataclasses

from dfs.cli.health import judge
from dfs.cli.masters import Answer, leader_among
from dfs.messages.cluster import ClusterStatus, DiskReport, MasterStatus, ServerStatus

DISK = DiskReport("/data", 100, 50, 0, healthy=True)
SERVERS = tuple(ServerStatus(i, f"s{i}", "z", True, (DISK,), 0) for i in (1, 2, 3))
MASTERS = tuple(
    MasterStatus(i, f"m{i}", "leader" if i == 1 else "follower", True) for i in (1, 2, 3)
)


def status(master: int = 1, **changes: object) -> ClusterStatus:
    made = ClusterStatus(
        "c", master, 1, "m1", 3, 10, 10, MASTERS, SERVERS, 0, 1, 0, under_replicated=0
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def answers(leader: ClusterStatus) -> list[Answer]:
    return [Answer("m1", leader), Answer("m2", status(2)), Answer("m3", status(3))]


def test_all_well_is_safe() -> None:
    assert judge(answers(status())).state == "safe"


def test_a_silent_master_degrades_and_is_named_once() -> None:
    masters = (*MASTERS[:2], dataclasses.replace(MASTERS[2], reachable=False))
    silent = [*answers(status(masters=masters))[:2], Answer("m3", None, "refused")]
    health = judge(silent)
    assert health.state == "degraded"
    assert health.problems == ("master at m3: refused",)


def test_a_dead_server_a_failed_disk_and_missing_replicas_are_each_told() -> None:
    failed = dataclasses.replace(DISK, healthy=False, problem="EIO")
    full = dataclasses.replace(DISK, free_bytes=1)
    servers = (
        dataclasses.replace(SERVERS[0], alive=False),
        dataclasses.replace(SERVERS[1], disks=(failed, full)),
        SERVERS[2],
    )
    health = judge(answers(status(servers=servers, under_replicated=4)))
    assert health.state == "degraded"
    assert len(health.problems) == 4


def test_without_a_leader_nothing_works() -> None:
    lost = [Answer("m1", status(1, leader=0)), Answer("m2", None, "timeout")]
    health = judge(lost)
    assert health.state == "unavailable"
    assert health.problems[0] == "no master leads"


def test_of_two_who_say_they_lead_the_higher_term_does() -> None:
    deposed, new = Answer("m1", status(1, term=3)), Answer("m2", status(2, leader=2, term=4))
    assert leader_among([deposed, new]) is new
    assert leader_among([]) is None


def test_damaged_blocks_are_told() -> None:
    damaged = dataclasses.replace(DISK, damaged_blocks=3)
    servers = (dataclasses.replace(SERVERS[0], disks=(damaged,)), *SERVERS[1:])
    health = judge(answers(status(servers=servers)))
    assert health.problems == ("chunkserver 1 at s1: disk /data has 3 damaged blocks",)
