"""Plain values for tests of judgement and rendering: a cluster that is well, and changes to it."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from dfs.cli.masters import Answer
from dfs.messages.cluster import (
    ClusterStatus,
    DiskReport,
    MasterStatus,
    RepairClass,
    RepairStatus,
    ServerMode,
    ServerRepair,
    ServerStatus,
)

M = TypeVar("M")

DISK = DiskReport("/data", 100, 50, 8, healthy=True)
SERVERS = tuple(ServerStatus(i, f"s{i}", "z", True, (DISK,), 8) for i in (1, 2, 3))
MASTERS = tuple(
    MasterStatus(i, f"m{i}", "leader" if i == 1 else "follower", True) for i in (1, 2, 3)
)
IDLE = RepairStatus((), (), 0.0, 0, 0.0)


def but(value: M, **changes: Any) -> M:
    """The same message with other fields."""
    changed: M = dataclasses.replace(value, **changes)  # type: ignore[type-var]
    return changed


def status(master: int = 1, **changes: Any) -> ClusterStatus:
    """What a master of a cluster of three and three says; master 1 leads."""
    made = ClusterStatus("c", master, 1, "m1", 3, 10, 10, MASTERS, SERVERS, 0, 1, 8, 0, copies=3)
    return but(made, **changes)


def answers(leader: ClusterStatus, repair: RepairStatus | None = IDLE) -> list[Answer]:
    """All three masters answer, the first one leads."""
    return [Answer("m1", leader, repair=repair), Answer("m2", status(2)), Answer("m3", status(3))]


def servers(**of_the_first: Any) -> tuple[ServerStatus, ...]:
    """The three servers, the first one otherwise."""
    return (but(SERVERS[0], **of_the_first), *SERVERS[1:])


def queue(**chunks: int) -> tuple[RepairClass, ...]:
    """Classes of the repair queue by name (`_` for `-`)."""
    return tuple(RepairClass(n.replace("_", "-"), c, 0, 0) for n, c in chunks.items())


def said(
    mode: ServerMode = ServerMode.IN_SERVICE, replicas: int = 8, disk: str = "", **more: float
) -> RepairStatus:
    """A leader that says this of server 1, or of its disk, and has nothing else to do."""
    return but(IDLE, servers=(ServerRepair(1, disk, mode, replicas, **more),))
