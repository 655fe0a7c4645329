"""Rules that no mutant breaks first: another one always shows it before. Each fires here."""

from __future__ import annotations

from pathlib import Path

import pytest

from chunkserver import format as layout
from dfs.messages.chunks import ReadChunk
from dfs.runtime.sim import World
from dfs.runtime.sim.inode import Inode
from tests.simulation.cluster import SimCluster
from tests.simulation.history import History
from tests.simulation.monitors.chunks import ChunkMonitor
from tests.simulation.monitors.raft import RaftMonitor
from tests.simulation.plan import Plan
from tests.simulation.stage import Stage
from tests.simulation.violations import Violation

NAME, HANDLE = "chunkserver-1", 7


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    world = World(1)
    return Stage(Plan(1, "none"), world, SimCluster(world, tmp_path), History(world.clock))


def test_two_leaders_of_a_term_are_seen(stage: Stage) -> None:
    monitor = RaftMonitor(stage)
    monitor._check_leader(1, 5)
    monitor._check_leader(1, 5)
    monitor._check_leader(2, 6)
    with pytest.raises(Violation, match=r"raft\.leader"):
        monitor._check_leader(2, 5)


def test_a_replica_that_goes_back_is_seen(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor, replica = ChunkMonitor(stage), Inode()
    monkeypatch.setattr(monitor, "_file", lambda name, handle: replica)
    for version in (3, 4):
        replica.write(layout.pack_header(layout.Header(version, HANDLE, version, 0, 0)), 0)
        monitor._check_read(NAME, ReadChunk(HANDLE, version, 0, 1))
    replica.write(layout.pack_header(layout.Header(5, HANDLE, 3, 0, 0)), 0)
    with pytest.raises(Violation, match=r"chunks\.version"):
        monitor._check_read(NAME, ReadChunk(HANDLE, 3, 0, 1))
