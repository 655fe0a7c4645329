"""Finding the leader, reporting, orders, and heartbeats that nothing delays."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from dfs.messages.chunks import InspectReplica
from dfs.runtime import Buffer
from dfs.runtime.real import RealDisk, RealEnv
from dfs.runtime.real.disk import RealFile
from tests.chunkserver.cluster import (
    Leader,
    Site,
    TestClient,
    chunkserver_config,
    cluster,
    real_site,
    running,
    simulated_site,
    start_leader,
)
from tests.conftest import ExpectedLogs


@pytest.fixture(params=["real", "simulated"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return real_site(tmp_path) if request.param == "real" else simulated_site()


def test_registers_reports_in_pages_and_beats(site: Site) -> None:
    async def main(site: Site) -> None:
        async with cluster(site, ("cs1",), report_page=4) as made:
            for handle in range(10):
                await made.client.write(made.chain, handle, 0, b"d" * (handle + 1))
            made.leader.reports.clear()
            made.leader.registered[1].close()  # makes it come again
            while not any(r.last for r in made.leader.reports):
                await made.leader.until_heard()
            pages = made.leader.reports
            assert [len(p.replicas) for p in pages] == [4, 4, 2]
            assert [p.last for p in pages] == [False, False, True]
            told = [(r.handle, r.version, r.length_bytes) for p in pages for r in p.replicas]
            assert told == [(h, 1, h + 1) for h in range(10)]
            beats = await made.leader.until_heartbeats(3)
            assert beats[-1].disks[0].replicas == 10
            assert beats[-1].stalled_s < 1

    site.run(main)


def test_follows_the_leader_to_another_master(site: Site, expected_logs: ExpectedLogs) -> None:
    expected_logs("heartbeat to .* failed: another leads")

    async def main(site: Site) -> None:
        async with trio.open_nursery() as nursery:
            one, two = site.address("master1"), site.address("master2")
            first = await start_leader(nursery, site.env("master1"), one)
            second = await start_leader(nursery, site.env("master2"), two, Leader(leads=False))
            second.leader_address = one
            config = chunkserver_config(
                1, site.address("cs1"), (site.directory("cs1"),), one, heartbeat_s=0.05
            )
            config = replace(config, masters=(one, two))
            async with running(site.env("cs1"), config):
                await first.until_heartbeats(2)
                first.leads, first.leader_address, second.leads = False, two, True
                await second.until_heartbeats(2)
                assert [r.server for r in second.registrations] == [1]
            nursery.cancel_scope.cancel()

    site.run(main)


def test_registers_again_with_a_leader_that_forgot_it(
    site: Site, expected_logs: ExpectedLogs
) -> None:
    expected_logs("register first")

    async def main(site: Site) -> None:
        async with cluster(site, ("cs1",)) as made:
            await made.leader.until_heartbeats(1)
            made.leader.registered.clear()
            await made.leader.until_heartbeats(1)
            assert len(made.leader.registrations) == 2

    site.run(main)


def test_unknown_replicas_go_only_after_the_grace_and_a_second_answer(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("the master does not know 2 replicas")
    site = simulated_site()

    async def main(site: Site) -> None:
        assert site.world is not None
        async with cluster(site, ("cs1",), unknown_grace_s=30) as made:
            for handle in (1, 2, 3):
                await made.client.write(made.chain, handle, 0, b"data")
            made.leader.known = {1: 1}
            made.leader.registered[1].close()
            await site.world.clock.sleep(25)
            assert made.servers["cs1"].store.has(2)
            made.leader.known = {1: 1, 3: 1}  # a slow master has caught up
            await site.world.clock.sleep(10)
            kept = [h for h in (1, 2, 3) if made.servers["cs1"].store.has(h)]
            assert kept == [1, 3]

    site.run(main)


# -- a disk that hangs


class HangingFile(RealFile):
    """Writes wait while the gate is closed."""

    gate: threading.Event

    def pwrite(self, buffers: Sequence[Buffer], offset: int) -> None:
        self.gate.wait()
        super().pwrite(buffers, offset)


class HangingDisk(RealDisk):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.gate = threading.Event()
        self.gate.set()

    def open(self, path: str, *, write: bool = False, create: bool = False) -> RealFile:
        file = super().open(path, write=write, create=create)
        if path.startswith(self.path):
            file.__class__ = HangingFile
            file.gate = self.gate  # type: ignore[attr-defined]
        return file


class HangingEnv(RealEnv):
    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.hanging = HangingDisk(path)

    @property
    def disk(self) -> RealDisk:
        return self.hanging


@pytest.mark.parametrize("inline", [True, False], ids=["in the event loop", "in threads"])
def test_hanging_disk_delays_no_heartbeat_and_is_told(tmp_path: Path, inline: bool) -> None:
    async def main(site: Site) -> None:
        env = HangingEnv("cs1", str(tmp_path / "bad"))
        async with trio.open_nursery() as nursery:
            leader = await start_leader(nursery, site.env("master"), site.address("master"))
            config = chunkserver_config(
                1,
                site.address("cs1"),
                (str(tmp_path / "bad"),),
                site.address("master"),
                inline_below_s=10.0 if inline else 0.0,
            )
            opener = threading.Timer(1.5, env.hanging.gate.set)
            # The server in a thread of its own: in the first case its loop hangs as well.
            server = functools.partial(trio.run, _serve_until_told, env, config, leader)
            nursery.start_soon(trio.to_thread.run_sync, server)
            await leader.until_heartbeats(2)
            client = TestClient(site.env("client"), nursery)
            await client.write((site.address("cs1"),), 1, 0, b"data")
            env.hanging.gate.clear()
            opener.start()
            nursery.start_soon(client.write, (site.address("cs1"),), 1, 0, b"more")
            beats = await leader.until_heartbeats(20)  # 20 x 0.05 s, while the disk hangs
            assert not env.hanging.gate.is_set()
            assert beats[-1].stalled_s > 0.5
            await trio.to_thread.run_sync(env.hanging.gate.wait)
            while leader.heartbeats[-1].stalled_s > 0:
                await leader.until_heartbeats(1)
            leader.leads = False
            nursery.cancel_scope.cancel()

    real_site(tmp_path).run(main)


async def _serve_until_told(env: RealEnv, config: object, leader: Leader) -> None:
    async with running(env, config):  # type: ignore[arg-type]
        while leader.leads:
            await env.clock.sleep(0.01)


def test_hanging_disk_does_not_stop_another_disk(tmp_path: Path) -> None:
    async def main(site: Site) -> None:
        env = HangingEnv("cs1", str(tmp_path / "bad"))
        async with trio.open_nursery() as nursery:
            await start_leader(nursery, site.env("master"), site.address("master"))
            directories = (str(tmp_path / "bad"), str(tmp_path / "good"))
            config = chunkserver_config(
                1, site.address("cs1"), directories, site.address("master"), inline_below_s=0.0
            )
            client = TestClient(site.env("client"), nursery)
            address = site.address("cs1")
            async with running(env, config) as server:
                for handle in range(4):
                    await client.write((address,), handle, 0, b"data")
                bad = [h for h in range(4) if server.store.find(h).directory.path == directories[0]]
                good = [h for h in range(4) if h not in bad]
                env.hanging.gate.clear()
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(client.write, (address,), bad[0], 0, b"late")
                    await client.write((address,), good[0], 0, b"soon")
                    assert await client.read(address, good[0], 0, 9) == b"soon"
                    await client.pool.call(address, InspectReplica(good[0]), timeout_s=5)
                    env.hanging.gate.set()
            nursery.cancel_scope.cancel()

    real_site(tmp_path).run(main)
