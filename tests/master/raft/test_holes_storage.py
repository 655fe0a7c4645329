"""The holes of pysyncobj 0.3.17 in what is on disk and how it is applied: open, and closed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pysyncobj import SyncObj
from pysyncobj.config import SERIALIZER_STATE
from pysyncobj.journal import FileJournal
from pysyncobj.serializer import Serializer

from dfs.config import Raft
from dfs.errors import Failure
from dfs.messages.cluster import SnapshotPiece
from dfs.rpc import Connection
from dfs.runtime.disk import File
from dfs.runtime.sim import NodeEnded
from master.raft import RaftNode
from master.raft.core import Core
from master.raft.library import NumberedNode
from master.raft.snapshots import SnapshotFetch
from tests.conftest import ExpectedLogs
from tests.master.raft.cluster import LIMITS, Cluster, changed, name_of
from tests.master.raft.ledger import Add, Explode
from tests.master.raft.rig import Rig, command, entries
from tests.master.raft.test_cluster import additions

BOTH = pytest.mark.parametrize("remedied", [False, True], ids=["open", "closed"])

START = (1, 0)


# -- H4 and H5


class DumpLoader:
    """pysyncobj's way: a dump beside the journal, loaded at the first tick."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self.deserialize = load

    def checkSerializing(self) -> tuple[int, None]:
        return SERIALIZER_STATE.NOT_SERIALIZING, None

    def setTransmissionData(self, data: object) -> bool:
        return True


class LoadsDump(Core):
    """Restarts as stock pysyncobj does, with the dump of an earlier moment."""

    def _restart_at(self, applied: int) -> None:
        super()._restart_at(applied)
        dump: tuple[Any, ...] = (None, (command("b"), 3, 1), (command("a"), 2, 1), set())
        setattr(self, "_SyncObj__serializer", DumpLoader(lambda: dump))  # noqa: B010
        self._SyncObj__needLoadDumpFile = True
        self._SyncObj__conf.fullDumpFile = os.devnull if os.path.isfile(os.devnull) else __file__


@BOTH
def test_h4_a_restart_keeps_the_journal(remedied: bool) -> None:
    """The dump is older than the journal's beginning, as after a crash between the two writes."""
    rig = Rig(core_class=Core if remedied else LoadsDump)
    rig.core._SyncObj__needLoadDumpFile = False
    rig.append(2, 1, START, entries(2, 1, "a", "b", "acknowledged"))
    rig.step()
    assert rig.messages("next_node_idx")[-1]["next_node_idx"] == 5
    rig.restart()
    rig.step()
    kept = rig.core.journal.last_index == 4
    assert kept is remedied


def test_h5_stock_acknowledges_a_snapshot_that_failed_to_load() -> None:
    rig = Rig()

    def fail() -> None:
        raise OSError("corrupt")

    setattr(rig.core, "_SyncObj__serializer", DumpLoader(fail))  # noqa: B010 - mypy knows ours
    offer = {"type": "append_entries", "term": 2, "commit_index": 1, "serialized": (b"", 1, True)}
    rig.core._SyncObj__onMessageReceived(NumberedNode(3), offer)
    rig.step()
    assert rig.messages("next_node_idx", 3)[-1]["success"]


def lagging(seed: int, damage: Callable[[Cluster, int], None]) -> Cluster:
    """Run a cluster until a master must install a snapshot, with that damage done to it."""
    cluster = Cluster(seed, limits=changed(LIMITS, compact_entries=60, keep_entries=20))

    async def main() -> None:
        await cluster.start()
        leader = await cluster.leader()
        away = next(id for id in cluster.ids if id != leader.id)
        cluster.crash(away)
        await additions(cluster, 200)
        damage(cluster, away)
        await cluster.restart(away)
        await cluster.until(
            lambda: (
                away not in cluster.alive()
                or cluster.nodes[away].applied_index == leader.applied_index
            )
        )

    cluster.world.run(main, limit_s=300.0)
    return cluster


def test_h5_a_snapshot_that_cannot_be_installed_ends_the_process(
    expected_logs: ExpectedLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_logs("could not be installed")

    def refuse(self: SnapshotFetch, own: object) -> None:
        raise OSError(5, "the disk is broken")

    monkeypatch.setattr(SnapshotFetch, "adopt", refuse)
    cluster = lagging(1, lambda *_: None)
    (ending,) = [reason for _, reason in cluster.world.endings if reason.startswith("fatal")]
    assert "could not be installed" in ending


# -- H11


class AppliesAgain(Core):
    """Stock pysyncobj's loop, which repeats what raised at every tick."""

    attempts = 0

    def _SyncObj__applyLogEntries(self) -> bool:
        return bool(SyncObj._SyncObj__applyLogEntries(self))

    def _SyncObj__doApplyCommand(self, entry: bytes) -> None:
        AppliesAgain.attempts += 1
        raise ZeroDivisionError


def test_h11_stock_repeats_a_failed_command_for_ever() -> None:
    AppliesAgain.attempts = 0
    rig = Rig(core_class=AppliesAgain)
    rig.append(2, 1, START, entries(2, 1, "boom"), commit=2)
    for _ in range(5):
        with contextlib.suppress(ZeroDivisionError):
            rig.step()
    assert AppliesAgain.attempts == 5


def test_h11_a_command_that_cannot_be_applied_ends_the_process(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("cannot be applied")
    expected_logs("entry 3")
    cluster = Cluster(seed=2, count=1)

    async def main() -> None:
        await cluster.start()
        node = await cluster.leader()
        with cluster.world.clock.move_on_after(5.0):
            await node.propose(Explode())

    cluster.world.run(main)
    (ending,) = cluster.world.endings
    assert "cannot be applied" in ending[1]


# -- H13 and H14


def test_h13_stock_renames_an_unfinished_dump(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(b"the old, whole one")

    def begin(name: str, data: object) -> None:  # an asynchronous serializer: it has only begun
        Path(name).write_bytes(b"half")

    stock = Serializer(str(dump), 1 << 16, False, begin, lambda name: None, None)
    stock.serialize((None, None), 7)
    assert dump.read_bytes() == b"half"


def test_h13_an_offered_snapshot_is_always_a_whole_one() -> None:
    """A crash at each sync of the copying leaves no half file under the offered name."""
    for nth in range(1, 6):
        cluster = Cluster(seed=3, count=1)

        async def main(cluster: Cluster = cluster, nth: int = nth) -> None:
            await cluster.start()
            await additions(cluster, 20)
            node = await cluster.leader()
            await node.create_snapshot()
            offer = node._source.offer
            assert offer is not None
            await additions(cluster, 20, client=2)
            cluster.world.disk(name_of(1)).crash_at_sync(nth)
            with contextlib.suppress(NodeEnded), cluster.world.clock.move_on_after(5.0):
                await node.create_snapshot()
            cluster.world.disk(name_of(1)).crash_at_sync(0)
            if not cluster.world.is_alive(name_of(1)):
                media = cluster.world.disk(name_of(1))
                if media.exists("/data/snapshot.mdb"):
                    assert media.inode("/data/snapshot.mdb").size == offer.total_bytes
                await cluster.restart(1)
            await cluster.leader()
            assert cluster.ledgers[1].value(b"c1") == 20

        cluster.run(main)


class Trusting(SnapshotFetch):
    async def _pieces(self, source: Connection, file: File) -> SnapshotPiece:
        first = await super()._pieces(source, file)
        flipped = bytearray(1)
        file.pread_into(memoryview(flipped), first.total_bytes // 2)
        file.pwrite([bytes([flipped[0] ^ 1])], first.total_bytes // 2)
        return first


class Unchecked(Trusting):
    async def fetch(self, source: Connection) -> None:
        file = self._emptied()
        await self._pieces(source, file)
        file.datasync()
        file.close()


@BOTH
def test_h14_a_damaged_snapshot_is_not_installed(
    remedied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("master.raft.node.SnapshotFetch", Trusting if remedied else Unchecked)
    accepted: list[bool] = []
    cluster = Cluster(seed=4, limits=changed(LIMITS, compact_entries=60, keep_entries=20))

    async def main() -> None:
        await cluster.start()
        leader = await cluster.leader()
        await additions(cluster, 50)
        await leader.create_snapshot()
        other = next(id for id in cluster.ids if id != leader.id)
        link = cluster.nodes[other].links.get(leader.id)
        assert link is not None
        try:
            await cluster.nodes[other]._fetch.fetch(link.connection)
        except Failure:
            accepted.append(False)
        else:
            accepted.append(True)

    cluster.run(main)
    assert accepted == [not remedied]


def test_h14_a_fetch_begins_anew_when_its_source_is_gone(expected_logs: ExpectedLogs) -> None:
    expected_logs("no snapshot from master")
    cluster = Cluster(
        seed=5,
        limits=changed(LIMITS, compact_entries=60, keep_entries=20, snapshot_piece_bytes=512),
    )

    async def main() -> None:
        await cluster.start()
        leader = await cluster.leader()
        away = next(id for id in cluster.ids if id != leader.id)
        cluster.crash(away)
        await additions(cluster, 200)
        await cluster.restart(away)
        await cluster.until(lambda: bool(cluster.monitors.seen["snapshot"]))
        await cluster.world.clock.sleep(0.003)  # in the middle of it
        cluster.crash(leader.id)
        third = next(id for id in cluster.ids if id not in (away, leader.id))
        await cluster.until(
            lambda: (
                cluster.nodes[away].applied_index >= 200
                and cluster.nodes[third].applied_index == cluster.nodes[away].applied_index
            )
        )
        await cluster.restart(leader.id)
        await cluster.settled()
        assert len({cluster.digest(id) for id in cluster.ids}) == 1

    cluster.run(main)


# -- H15 and H16


class Killed(Exception):
    """The process ends here."""


def test_h15_stock_loses_entries_when_killed_while_trimming(tmp_path: Path) -> None:
    journal = FileJournal(str(tmp_path / "journal"))
    for index in range(1, 11):
        journal.add(b"entry", index, 1)
    added = 0

    def add(*args: object) -> None:
        nonlocal added
        added += 1
        if added == 3:
            raise Killed
        FileJournal.add(journal, *args)

    journal.add = add
    with pytest.raises(Killed):
        journal.deleteEntriesTo(5)
    again = FileJournal(str(tmp_path / "journal"))
    assert [entry[1] for entry in again[:]] != list(range(6, 11))


def test_h15_trimming_is_atomic() -> None:
    """Killed before the flush, the log is the old one; after it, the new one; never between."""
    rig = Rig(limits=Raft(compact_entries=8, keep_entries=4))
    rig.append(2, 1, START, entries(2, 1, *"abcdefghij"), commit=1)
    rig.step()
    before = rig.log()
    rig.append(2, 1, (11, 1), [], commit=11)
    rig.core.tick()  # applies, trims, and is killed
    assert rig.core.journal.first_index > 1
    rig.restart()
    assert rig.log() == before
    assert rig.core.raftLastApplied == 1
    rig.append(2, 1, (11, 1), [], commit=11)
    rig.step()
    after = rig.log()
    rig.restart()
    assert rig.log() == after
    assert rig.core.raftLastApplied == 11


@pytest.mark.parametrize("keep", [2, 200], ids=["open", "closed"])
def test_h16_a_short_absence_needs_no_snapshot(keep: int) -> None:
    cluster = Cluster(seed=6, limits=changed(LIMITS, compact_entries=210, keep_entries=keep))

    async def main() -> None:
        await cluster.start()
        await additions(cluster, 205)
        leader = await cluster.leader()
        away = next(id for id in cluster.ids if id != leader.id)
        cluster.crash(away)
        await additions(cluster, 20, client=2)
        await cluster.restart(away)
        await cluster.settled()

    cluster.run(main)
    assert bool(cluster.monitors.seen["snapshot"]) is (keep == 2)


# -- H18


class Forgetful(RaftNode):
    def leadership_changed(self, leads: bool) -> None:
        self.on_leadership(leads)


@BOTH
def test_h18_a_deposed_leader_leaves_nobody_waiting(
    remedied: bool, expected_logs: ExpectedLogs
) -> None:
    expected_logs("has gone silent")
    cluster = Cluster(seed=7)
    cluster._node = type("Node", (RaftNode if remedied else Forgetful,), dict(vars(cluster._node)))
    answered: list[str] = []

    async def main() -> None:
        await cluster.start()
        old = await cluster.leader()
        cluster.world.isolate(name_of(old.id))
        with cluster.world.clock.move_on_after(20.0):
            try:
                await old.propose(Add(1, 1, b"c", 1))
            except Failure as failure:
                answered.append(failure.code.name)

    cluster.run(main)
    assert answered == (["OUTCOME_UNKNOWN"] if remedied else [])


# -- the monitors themselves


class SendsBeforeFlush(RaftNode):
    async def _flush(self, core: Core | None) -> None:
        if core is not None:
            core.transport.release()
        await super()._flush(core)


def test_the_monitors_see_a_message_that_overtakes_its_flush() -> None:
    cluster = Cluster(seed=8)
    cluster._node = type("Node", (SendsBeforeFlush,), dict(vars(cluster._node)))

    async def main() -> None:
        await cluster.start()
        await additions(cluster, 5)

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group around it
        cluster.run(main)
    assert "before it is on disk" in str(_leaves(caught.value)) or "votes in" in str(
        _leaves(caught.value)
    )


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
