"""docs/monitoring.md tells of every metric there is, and of none that is not; so do the alerts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house import ROOT
from tests.metrics.cluster import WatchedCluster, watch

MONITORING = (ROOT / "docs/monitoring.md").read_text()
ALERTS = (ROOT / "docs/alerts.yml").read_text()
NAME = re.compile(r"\b(?:dfs|process)_[a-z_]+\b")
SUFFIXES = ("_bucket", "_count", "_sum")  # of a histogram's samples


def documented() -> list[str]:
    """The names in the first cells of the tables of metrics."""
    tables = MONITORING.partition("\n## Metrics\n")[2].partition("\n## Alerts\n")[0]
    cells = [line.split("|")[1] for line in tables.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names that the processes of a cluster tell."""
    names: list[str] = []

    async def scenario(cluster: WatchedCluster) -> None:
        async with cluster.watched_client() as client:
            await cluster.until_registered(client, 3)
            for node in ("master-1", "chunkserver-1", "client"):
                names.extend((await cluster.scrape(node)).names())

    watch(Path(tmp_path_factory.mktemp("cluster")), scenario)
    return sorted(dict.fromkeys(names))


def test_every_metric_is_documented_once(exposed: list[str]) -> None:
    assert sorted(documented()) == exposed


def test_alerts_look_at_metrics_that_exist(exposed: list[str]) -> None:
    expressions = re.sub(r"(?m)^ *(summary|- alert):.*$", "", ALERTS.partition("groups:")[2])
    asked = [name for name in NAME.findall(expressions) if name.count("_") > 1]
    assert len(asked) > 20
    for name in asked:
        base = next((name.removesuffix(s) for s in SUFFIXES if name.endswith(s)), name)
        assert base in exposed, f"an alert asks for {name}"


def test_every_alert_has_a_section_that_says_what_to_do() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS)
    sections = re.findall(r"(?m)^### (Dfs\w+)\n(?=\w)", MONITORING)
    assert alerts
    assert sorted(sections) == sorted(alerts)


def test_names_keep_to_prometheus_conventions(exposed: list[str]) -> None:
    for name in exposed:
        assert re.fullmatch(
            r"(dfs_(raft|master|chunkserver|client|fuse|rpc|process)|process)_\w+", name
        )
        assert not re.search(r"_(ms|us|kb|mb|percent|count)(_|$)", name), "base units, please"
