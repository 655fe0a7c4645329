"""`dfs fsck` on a whole cluster: what is planted is found, and a live cluster raises no alarm."""

from __future__ import annotations

from pathlib import Path

from dfs.cli.checks import Checked
from dfs.messages.checking import Severity
from tests.simulation.cluster import SimCluster
from tests.simulation.test_whole_cluster import content, simulate, write_file


def kinds(checked: Checked) -> list[str]:
    return sorted({f.kind for f in checked.findings})


def test_a_quiet_cluster_is_sound(tmp_path: Path) -> None:
    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client() as client:
            await cluster.until_registered(client, 3)
            for n in range(4):
                await write_file(client, b"file-%d" % n, content(n, 1 << 20))
            for deep in (False, True):
                checked = await cluster.fsck(client, deep=deep)
                assert checked.progress.problem == ""
                assert checked.findings == []
                assert checked.severity is Severity.NOTE
                progress = checked.progress
                assert (progress.inodes, progress.chunks, progress.replicas) == (5, 4, 12)

    simulate(tmp_path, scenario)
