"""A short run of `scripts/crash`, and that each planted fault makes it fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash import faults, power
from tests.crash.cluster import Cluster
from tests.crash.rounds import Rounds

pytestmark = [pytest.mark.mount, pytest.mark.timeout(600)]

ROUNDS_TO_NOTICE = 12
Make = Callable[[Cluster], Cluster]
needs_disks = pytest.mark.skipif(not power.available(), reason="needs root and loop devices")


@pytest.fixture
def made() -> Iterator[Make]:
    """Bring a cluster up that is taken down at the end of the test."""
    clusters: list[Cluster] = []

    def make(cluster: Cluster) -> Cluster:
        clusters.append(cluster)
        cluster.up()
        return cluster

    yield make
    for cluster in clusters:
        cluster.end()


@pytest.mark.parametrize(
    ("targets", "seed"),
    [
        (["client", "chunkserver", "leader"], 1),
        pytest.param(["masters", "chunkservers"], 11, marks=pytest.mark.long),
        (["everything"], 21),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_was_acknowledged_survives_kills_and_stops(
    made: Make, tmp_path: Path, targets: list[str], seed: int
) -> None:
    rounds = Rounds(made(Cluster(tmp_path)), targets)
    for number in range(2):
        outcome = rounds.run(seed + number)
        assert not outcome.facts, str(outcome)
        assert outcome.operations, "the writers did nothing"


@needs_disks
def test_what_was_synced_survives_power_loss(made: Make, tmp_path: Path) -> None:
    rounds = Rounds(made(Cluster(tmp_path, disks=True)), ["power"])
    for number in range(6):
        outcome = rounds.run(31 + number)
        assert not outcome.facts, str(outcome)


LOSS = re.compile(
    r"is lost|are safe|due is|bytes are there|No such file|not the file|the file was synced"
)


def noticed(made: Make, base: Path, fault: str) -> bool:
    """Whether rounds on a cluster with that fault report a loss before long."""
    rounds = Rounds(made(faults.faulty_cluster(base, fault)), faults.ALL[fault], replicas=False)
    outcomes = (rounds.run(seed) for seed in range(ROUNDS_TO_NOTICE))
    return any(LOSS.search("\n".join(outcome.facts)) for outcome in outcomes)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=() if fault == "client-skips-fsync" else pytest.mark.long)
        for fault in faults.SHOWN_BY_KILLS
    ],
)
def test_broken_durability_is_noticed(made: Make, tmp_path: Path, fault: str) -> None:
    assert noticed(made, tmp_path, fault)


@needs_disks
@pytest.mark.long
@pytest.mark.parametrize("fault", faults.SHOWN_BY_POWER_CUTS)
def test_a_missing_fsync_is_noticed_when_power_is_lost(
    made: Make, tmp_path: Path, fault: str
) -> None:
    assert noticed(made, tmp_path, fault)
