"""Finding the leader, reporting, orders, and heartbeats that nothing delays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from dfs.messages.cluster import FetchReplica
from tests.chunkserver.cluster import (
    Leader,
    Site,
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
            while 1 not in made.leader.registered:
                await made.leader.until_heard()
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
            await made.leader.until_heartbeats(1)
            made.leader.known = {1: 1}
            made.leader.registered[1].close()
            await site.world.clock.sleep(25)
            assert made.servers["cs1"].store.has(2)
            made.leader.known = {1: 1, 3: 1}  # a slow master has caught up
            await site.world.clock.sleep(10)
            kept = [h for h in (1, 2, 3) if made.servers["cs1"].store.has(h)]
            assert kept == [1, 3]

    site.run(main)


def test_a_copy_whose_chunk_is_deleted_before_it_is_a_member_goes_too() -> None:
    """It was reported while it was under way, and told to stay."""
    site = simulated_site()

    async def main(site: Site) -> None:
        async with cluster(site, ("cs1", "cs2"), unknown_grace_s=10) as made:
            while set(made.leader.registered) != {1, 2}:
                await made.leader.until_heard()
            await made.client.write(made.chain[:1], 7, 0, b"data")
            copy = FetchReplica(7, 1, made.chain[:1], 0)
            await made.leader.registered[2].call(copy, timeout_s=10)
            await made.leader.until_heartbeats(6)
            assert any(r.handle == 7 for report in made.leader.reports for r in report.replicas)
            made.leader.known = {}
            while made.servers["cs2"].store.has(7):
                await made.leader.until_heard()

    site.run(main)
