"""Bytes that a dead client wrote beyond a file's end, and never committed, stay unseen."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from dfs.client import open_client
from dfs.messages.common import ROOT
from dfs.messages.operations import SetAttributes
from dfs.runtime import Env
from tests.conftest import ExpectedLogs
from tests.simulation.cluster import SimCluster
from tests.simulation.test_suspicions import open_named
from tests.simulation.test_whole_cluster import content, read_file, simulate, write_file

SYNCED = content(1, 100_000)


async def writes_and_never_commits(
    cluster: SimCluster,
    env: Env,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """A client whose data is on its replicas when `task_status` is told."""
    async with open_client(env, cluster.client_config(), "doomed") as client:
        file = await open_named(client, b"file")
        await file.write(len(SYNCED), content(2, 1_000_000))
        client.send_all()
        while client._files[file.inode]._writes._dirty:
            await cluster.world.clock.sleep(0.01)
        task_status.started("doomed")
        await trio.sleep_forever()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", ["write", "truncate", "leader"])
def test_what_a_dead_client_wrote_beyond_the_end_does_not_appear_in_a_gap(
    tmp_path: Path, how: str, seed: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("chunkserver-|doomed|ended: not heard of")
    end = 800_000

    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client("client-1") as client, cluster.client("reader") as reader:
            await cluster.until_registered(client, 3)
            await write_file(client, b"file", SYNCED, sync=True)
            doomed = partial(writes_and_never_commits, cluster)
            await cluster.world.start("doomed", doomed)
            cluster.world.crash("doomed")
            await cluster.world.clock.sleep(0.1)
            assert (await reader.lookup(reader.root_inode, b"file")).size_bytes == len(SYNCED)
            file = await open_named(client, b"file")
            if how == "leader":
                cluster.world.crash(cluster.leader())
                await cluster.world.clock.sleep(cluster.knobs.session_ttl_s + 5)
            if how == "truncate":
                grown = SetAttributes(file.inode, ROOT, size_bytes=end)
                await client.set_attributes(grown)
            await file.write(end, b"after")
            await file.close()
            expected = SYNCED + bytes(end - len(SYNCED)) + b"after"
            assert await read_file(reader, b"file") == expected
            assert await read_file(client, b"file") == expected
            assert await cluster.check_replicas(client, file.inode, 1) == 1

    simulate(tmp_path, scenario, seed)


@pytest.mark.parametrize("seed", range(2))
def test_what_a_living_client_has_not_committed_yet_survives_anothers_gap(
    tmp_path: Path, seed: int
) -> None:
    async def scenario(cluster: SimCluster) -> None:
        async with cluster.client("client-1") as one, cluster.client("client-2") as two:
            await cluster.until_registered(one, 3)
            await write_file(one, b"file", SYNCED, sync=True)
            theirs = await open_named(two, b"file")
            await theirs.write(len(SYNCED), content(2, 300_000))
            two.send_all()
            await cluster.world.clock.sleep(0.2)
            mine = await open_named(one, b"file")
            await mine.write(500_000, b"mine")
            await mine.close()
            await theirs.close()
            expected = SYNCED + content(2, 300_000) + bytes(100_000) + b"mine"
            assert await read_file(one, b"file") == expected

    simulate(tmp_path, scenario, seed)
