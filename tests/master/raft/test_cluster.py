"""Raft nodes in the simulated world: elections, failover, slow disks, snapshots, members."""

from __future__ import annotations

import pytest
import trio

from dfs.errors import Code, Failure
from master.raft import formats
from master.store import JOURNAL
from tests.conftest import ExpectedLogs
from tests.master.raft.cluster import LIMITS, Cluster, address_of, changed, name_of
from tests.master.raft.ledger import Add


async def additions(cluster: Cluster, count: int, client: int = 1) -> None:
    for number in range(1, count + 1):
        await cluster.add(Add(client, number, b"c%d" % client, 1))


def test_three_masters_elect_one_and_apply_the_same() -> None:
    cluster = Cluster(seed=1)

    async def main() -> None:
        await cluster.start()
        await cluster.leader()
        values = [await cluster.add(Add(1, n, b"c", 1)) for n in range(1, 51)]
        assert values == list(range(1, 51))
        await cluster.settled()
        assert len({cluster.digest(id) for id in cluster.ids}) == 1
        assert all(cluster.ledgers[id].value(b"c") == 50 for id in cluster.ids)

    cluster.run(main)


def test_one_master_alone_is_a_cluster() -> None:
    cluster = Cluster(seed=1, count=1)

    async def main() -> None:
        await cluster.start()
        await additions(cluster, 20)
        cluster.crash(1)
        await cluster.restart(1)
        await cluster.leader()
        assert cluster.ledgers[1].value(b"c1") == 20

    cluster.run(main)


def test_failover_after_the_leader_dies_is_bounded() -> None:
    worst = 0.0
    for seed in range(10):
        cluster = Cluster(seed)

        async def main(cluster: Cluster = cluster) -> float:
            await cluster.start()
            old = await cluster.leader()
            await additions(cluster, 5)
            cluster.crash(old.id)
            started = cluster.world.clock.monotonic()
            await cluster.add(Add(2, 1, b"c", 1))
            return cluster.world.clock.monotonic() - started

        worst = max(worst, cluster.run(main))
    assert worst < 3.0  # C6


def test_everything_acknowledged_survives_the_power_loss_of_all() -> None:
    cluster = Cluster(seed=3)

    async def main() -> None:
        await cluster.start()
        await additions(cluster, 30)
        for id in cluster.ids:
            cluster.crash(id)
        for id in cluster.ids:
            await cluster.restart(id)
        await cluster.leader()
        await cluster.settled()
        assert [cluster.ledgers[id].value(b"c1") for id in cluster.ids] == [30, 30, 30]

    cluster.run(main)


def test_a_slow_fsync_causes_no_election_and_no_gap_in_the_lease() -> None:
    """Every fsync takes 20 ms; writes wait for it and nothing else does."""
    cluster = Cluster(seed=4)

    async def main() -> None:
        await cluster.start()
        leader = await cluster.leader()
        term, stop = leader.term, trio.Event()
        for id in cluster.ids:
            cluster.world.disk(name_of(id)).sync_delay_s = 0.020
        unreadable = 0

        async def write(client: int) -> None:
            for number in range(1, 40):
                await cluster.add(Add(client, number, b"c", 1))

        async def read() -> None:
            nonlocal unreadable
            while not stop.is_set():
                unreadable += not leader.may_read()
                await cluster.world.clock.sleep(0.001)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async with trio.open_nursery() as writers:
                for client in range(8):
                    writers.start_soon(write, client)
            stop.set()
        assert leader.term == term
        assert unreadable == 0

    cluster.run(main)


def test_reads_wait_for_no_fsync() -> None:
    """`may_read` and the state are there at once while a flush is under way."""
    cluster = Cluster(seed=5)

    async def main() -> None:
        await cluster.start()
        leader = await cluster.leader()
        await additions(cluster, 3)
        cluster.world.disk(name_of(leader.id)).sync_delay_s = 0.2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster.add, Add(1, 4, b"c1", 1))
            await cluster.world.clock.sleep(0.1)
            assert leader.may_read()
            assert cluster.ledgers[leader.id].value(b"c1") == 3

    cluster.run(main)


def test_a_deposed_leader_answers_everybody() -> None:
    """H18: those in an entry get OUTCOME_UNKNOWN, those in the queue NOT_LEADER."""
    cluster = Cluster(seed=6)

    async def main() -> None:
        await cluster.start()
        old = await cluster.leader()
        cluster.world.isolate(name_of(old.id))
        codes: list[Code] = []

        async def propose(number: int) -> None:
            try:
                await old.propose(Add(number, 1, b"c", 1))
            except Failure as failure:
                codes.append(failure.code)

        with cluster.world.clock.fail_after(10.0):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(propose, number)
                    await cluster.world.clock.sleep(0.0002)
        assert set(codes) == {Code.OUTCOME_UNKNOWN, Code.NOT_LEADER}
        assert len(codes) == 50

    cluster.run(main)


def test_a_full_queue_refuses_more() -> None:
    cluster = Cluster(seed=7, limits=changed(LIMITS, max_pending=10))

    async def main() -> None:
        await cluster.start()
        leader = await cluster.leader()
        codes: list[Code] = []

        async def propose(number: int) -> None:
            try:
                await leader.propose(Add(number, 1, b"c", 1))
            except Failure as failure:
                codes.append(failure.code)

        async with trio.open_nursery() as nursery:
            for number in range(1, 100):
                nursery.start_soon(propose, number)
        assert codes
        assert set(codes) == {Code.OVERLOADED}

    cluster.run(main)


def test_a_lagging_master_catches_up_by_snapshot() -> None:
    cluster = Cluster(seed=8, limits=changed(LIMITS, compact_entries=60, keep_entries=20))

    async def main() -> None:
        await cluster.start()
        await additions(cluster, 10)
        leader = await cluster.leader()
        away = next(id for id in cluster.ids if id != leader.id)
        cluster.crash(away)
        await additions(cluster, 300, client=2)
        assert leader._core is not None
        assert leader._core.journal.first_index > 100
        await cluster.restart(away)
        await cluster.until(lambda: cluster.nodes[away].applied_index >= leader.applied_index)
        await cluster.settled()
        assert cluster.monitors.seen["snapshot"]
        assert len({cluster.digest(id) for id in cluster.ids}) == 1
        # It is as good as any other now, restart included.
        cluster.crash(away)
        await cluster.restart(away)
        await additions(cluster, 20, client=3)
        await cluster.settled()
        assert len({cluster.digest(id) for id in cluster.ids}) == 1

    cluster.run(main)


def test_the_log_keeps_enough_for_a_short_absence() -> None:
    """H16: who was away for less than `keep_entries` needs no snapshot."""
    cluster = Cluster(seed=9, limits=changed(LIMITS, compact_entries=60, keep_entries=50))

    async def main() -> None:
        await cluster.start()
        await additions(cluster, 200)
        leader = await cluster.leader()
        away = next(id for id in cluster.ids if id != leader.id)
        cluster.crash(away)
        await additions(cluster, 30, client=2)
        await cluster.restart(away)
        await cluster.settled()
        assert not cluster.monitors.seen["snapshot"]
        assert leader._core is not None
        assert len(leader._core.journal) < 100

    cluster.run(main)


def test_a_wiped_master_is_refused_under_its_old_id_and_welcome_under_a_new_one(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("must come back under a new id")
    cluster = Cluster(seed=10, limits=changed(LIMITS, compact_entries=60, keep_entries=20))

    async def main() -> None:
        await cluster.start()
        await additions(cluster, 150)
        leader = await cluster.leader()
        lost = next(id for id in cluster.ids if id != leader.id)
        cluster.crash(lost)
        cluster.wipe(lost)
        await cluster.restart(lost)
        assert "must come back under a new id" in await cluster.ends(lost)

        await leader.remove_master(lost)
        await cluster.start(4)
        await leader.add_master(4, address_of(4))
        await cluster.settled(4, leader.id)
        assert sorted(leader.members()) == sorted({1, 2, 3, 4} - {lost})
        assert cluster.digest(4) == cluster.digest(leader.id)
        # The new one counts: with it and one old one there is a majority.
        third = next(id for id in cluster.alive() if id not in (4, leader.id))
        cluster.crash(third)
        await additions(cluster, 5, client=2)

    cluster.run(main)


def test_a_removed_id_is_never_given_out_again() -> None:
    cluster = Cluster(seed=11)

    async def main() -> None:
        await cluster.start()
        leader = await cluster.leader()
        gone = next(id for id in cluster.ids if id != leader.id)
        await leader.remove_master(gone)
        with pytest.raises(Failure, match="take a new id"):
            await leader.add_master(gone, address_of(gone))
        assert sorted(leader.members()) == sorted(set(cluster.ids) - {gone})
        # The removed one is quiet: no election disturbs the others.
        term = leader.term
        await cluster.world.clock.sleep(10.0)
        assert leader.term == term
        assert leader.may_read()

    cluster.run(main)


def test_a_leader_that_is_to_remove_itself_hands_over_first() -> None:
    cluster = Cluster(seed=12)

    async def main() -> None:
        await cluster.start()
        old = await cluster.leader()
        with pytest.raises(Failure) as caught:
            await old.remove_master(old.id)
        assert caught.value.code is Code.NOT_LEADER
        address = caught.value.detail
        new = next(n for n in cluster.nodes.values() if address_of(n.id) == address)
        await cluster.until(new.may_read)
        await new.remove_master(old.id)
        assert old.id not in new.members()
        await additions(cluster, 5)

    cluster.run(main)


def test_leadership_is_handed_over_without_an_outage() -> None:
    cluster = Cluster(seed=13)

    async def main() -> None:
        await cluster.start()
        old = await cluster.leader()
        await additions(cluster, 5)
        target = next(id for id in cluster.ids if id != old.id)
        await old.transfer(target)
        took_s = await cluster.until(cluster.nodes[target].may_read)
        assert took_s < 0.2
        assert not old.may_read()

    cluster.run(main)


def test_an_orderly_stop_hands_over_and_flushes() -> None:
    cluster = Cluster(seed=14)

    async def main() -> None:
        await cluster.start()
        old = await cluster.leader()
        await additions(cluster, 5)
        await old.stop()
        assert not old.is_leader()
        assert not cluster.stores[old.id].dirty
        cluster.crash(old.id)
        await additions(cluster, 5, client=2)

    cluster.run(main)


def test_a_transfer_to_a_dead_master_fails_and_the_cluster_goes_on() -> None:
    cluster = Cluster(seed=15)

    async def main() -> None:
        await cluster.start()
        old = await cluster.leader()
        target = next(id for id in cluster.ids if id != old.id)
        cluster.world.isolate(name_of(target))
        with pytest.raises(Failure, match="did not take over"):
            await old.transfer(target)
        await additions(cluster, 5)

    cluster.run(main)


def test_five_masters_bear_the_loss_of_two() -> None:
    cluster = Cluster(seed=16, count=5)

    async def main() -> None:
        await cluster.start()
        leader = await cluster.leader()
        other = next(id for id in cluster.ids if id != leader.id)
        await additions(cluster, 10)
        cluster.crash(leader.id)
        cluster.crash(other)
        await additions(cluster, 10, client=2)
        await cluster.restart(leader.id)
        await cluster.restart(other)
        await cluster.settled()
        assert len({cluster.digest(id) for id in cluster.ids}) == 1

    cluster.run(main)


def test_a_torn_journal_is_refused_with_a_clear_sentence(expected_logs: ExpectedLogs) -> None:
    expected_logs("log of this master is damaged")
    cluster = Cluster(seed=17)

    async def main() -> None:
        await cluster.start()
        await additions(cluster, 10)
        await cluster.settled()
        leader = await cluster.leader()
        victim = next(id for id in cluster.ids if id != leader.id)
        cluster.crash(victim)
        store = cluster.world.disk(name_of(victim)).inode("/data/state.mdb").store
        assert store is not None
        del store.tables[JOURNAL][formats.pack_u64(3)]
        await cluster.restart(victim)
        assert "the Raft log of this master is damaged" in await cluster.ends(victim)

    cluster.run(main)


def test_the_same_seed_gives_the_same_run() -> None:
    def trace() -> str:
        cluster = Cluster(seed=18)

        async def main() -> None:
            await cluster.start()
            await additions(cluster, 10)
            cluster.crash((await cluster.leader()).id)
            await additions(cluster, 10, client=2)

        cluster.run(main)
        return cluster.world.trace_hash()

    assert trace() == trace()
