"""The holes of pysyncobj 0.3.17 in electing and deposing leaders: each shown open, and closed.

Also the promises that hold each other up: stickiness, pre-vote, lease; and that what asserts
durability waits for the flush.
"""

from __future__ import annotations

import pytest

from dfs.config import Raft
from dfs.runtime.sim import NodeEnded
from master.raft import formats
from master.raft.core import Core
from master.raft.election import Lease, Stickiness
from master.raft.formats import Member, Message
from master.raft.library import NumberedNode
from master.raft.transport import PeerTransport
from tests.conftest import ExpectedLogs
from tests.master.raft.rig import Rig, entries

BOTH = pytest.mark.parametrize("remedied", [False, True], ids=["open", "closed"])

START = (1, 0)
FIVE = (1, 2, 3, 4, 5)


def candidate(rig: Rig) -> int:
    """Bring it to hold an election; the term of it."""
    rig.pass_time(2.0)
    rig.step()
    for peer in rig.ids[1:]:
        rig.deliver(peer, "prevote_ok", term=rig.core.raftCurrentTerm + 1)
    rig.step()
    assert rig.core.is_candidate()
    return int(rig.core.raftCurrentTerm)


# -- H9


class CountsAll(PeerTransport):
    def _counts(self, node: NumberedNode) -> bool:
        return True


@BOTH
def test_h9_a_vote_counts_once(remedied: bool) -> None:
    rig = Rig(ids=FIVE, transport_class=PeerTransport if remedied else CountsAll)
    term = candidate(rig)
    for _ in range(2):
        rig.deliver(2, "response_vote", term=term)
    assert rig.core.is_leader() is not remedied


@BOTH
def test_h9_only_votes_of_members_count(remedied: bool) -> None:
    rig = Rig(transport_class=PeerTransport if remedied else CountsAll)
    term = candidate(rig)
    rig.deliver(7, "response_vote", term=term)
    assert rig.core.is_leader() is not remedied


# -- H10


class Fickle(PeerTransport):
    def _sticky(self) -> bool:
        return False


def ask_for_vote(rig: Rig, force: bool = False) -> list[Message]:
    ahead = {"last_log_index": 99, "last_log_term": 99}
    rig.deliver(3, "request_vote", term=5, force=force, **ahead)
    rig.step()
    return rig.messages("response_vote", 3)


@BOTH
def test_h10_no_vote_right_after_a_leader_was_heard(remedied: bool) -> None:
    rig = Rig(transport_class=PeerTransport if remedied else Fickle)
    rig.pass_time(5.0)
    rig.append(2, 1, START, [])
    assert bool(ask_for_vote(rig)) is not remedied


@BOTH
def test_h10_no_vote_right_after_a_restart(remedied: bool) -> None:
    """It may have heard a leader just before."""
    rig = Rig(transport_class=PeerTransport if remedied else Fickle)
    rig.restart()
    assert bool(ask_for_vote(rig)) is not remedied


def test_h10_a_vote_is_granted_when_no_leader_was_heard_for_long_enough() -> None:
    rig = Rig()
    rig.append(2, 1, START, [])
    rig.pass_time(0.6)
    assert ask_for_vote(rig)


def test_a_transfer_breaks_stickiness() -> None:
    rig = Rig()
    rig.append(2, 1, START, [])
    assert ask_for_vote(rig, force=True)


def test_a_pre_vote_is_refused_where_a_vote_would_be() -> None:
    ahead = {"last_log_index": 99, "last_log_term": 99}
    rig = Rig()
    rig.append(2, 1, START, [])
    rig.deliver(3, "prevote", term=5, **ahead)
    assert not rig.messages("prevote_ok")
    rig.pass_time(0.6)
    rig.deliver(3, "prevote", term=5, **ahead)
    assert rig.messages("prevote_ok", 3)
    assert rig.core.raftCurrentTerm == 1  # asking changes nothing


def test_a_master_that_was_away_raises_no_term() -> None:
    rig = Rig()
    for _ in range(50):
        rig.pass_time(0.5)
        rig.step()
    assert rig.messages("prevote")
    assert not rig.messages("request_vote")
    assert rig.core.raftCurrentTerm == 0


def test_a_leader_heard_in_between_ends_the_pre_vote() -> None:
    rig = Rig()
    rig.pass_time(2.0)
    rig.step()
    rig.append(2, 1, START, [])
    rig.deliver(3, "prevote_ok", term=1)
    rig.deliver(3, "prevote_ok", term=2)
    rig.step()
    assert not rig.core.is_candidate()


# -- H12


class Silent(PeerTransport):
    def post(self, peer: int, message: Message) -> bool:
        return message["type"] != "stale" and super().post(peer, message)


@BOTH
def test_h12_a_leader_of_an_older_term_is_told(remedied: bool) -> None:
    rig = Rig(transport_class=PeerTransport if remedied else Silent)
    rig.append(2, 5, START, [])
    rig.append(3, 4, START, [])
    stale = rig.messages("stale", 3)
    assert bool(stale) is remedied
    if not remedied:
        return
    old = Rig(3, transport_class=PeerTransport)
    old.elect()
    old.take(1, stale[0])
    assert not old.core.is_leader()
    assert old.core.raftCurrentTerm == 5
    assert not old.messages("response_vote")  # it stepped down for nobody's sake
    old.step()
    assert old.led == [True, False]


# -- lease


class LongLease(Lease):
    def __init__(self, env: object, limits: Raft) -> None:
        super().__init__(env, Raft(lease_fraction=1.8))  # type: ignore[arg-type]


@BOTH
def test_a_lease_ends_before_anybody_else_can_be_elected(
    remedied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not remedied:
        monkeypatch.setattr("master.raft.core.Lease", LongLease)
    leader, voter = Rig(1), Rig(2)
    leader.elect()
    leader.acknowledge(2, 3, stamp=leader.env.clock.boottime())
    stickiness = Stickiness(voter.env, Raft())
    stickiness.heard_leader()
    overlap = False
    for _ in range(100):
        leader.pass_time(0.01)
        voter.pass_time(0.01)
        overlap |= leader.core.has_lease() and not stickiness.holds()
    assert overlap is not remedied


def test_a_lease_needs_a_majority_of_echoes_and_an_own_entry_applied() -> None:
    rig = Rig(ids=FIVE)
    rig.elect_with(2, 3)
    now = rig.env.clock.boottime()
    assert not rig.core.has_lease()
    for peer in (2, 3):
        rig.core.lease.echoed(peer, now)
        assert rig.core.has_lease() is (peer == 3)
    rig.core.lease.give_up()
    assert not rig.core.has_lease()


def test_a_new_leadership_begins_without_a_lease() -> None:
    rig = Rig()
    rig.elect()
    rig.core.lease.echoed(2, rig.env.clock.boottime())
    assert rig.core.has_lease()
    rig.deliver(2, "stale", term=7)
    rig.elect()
    assert not rig.core.has_lease()


# -- durability before messages


def test_what_asserts_durability_waits_for_the_flush() -> None:
    rig = Rig()
    rig.pass_time(1.0)
    rig.append(2, 1, START, entries(2, 1, "a"))
    rig.core.tick()
    assert not rig.messages("next_node_idx")
    rig.step()
    assert rig.messages("next_node_idx")

    rig.pass_time(1.0)
    rig.deliver(3, "request_vote", term=2, force=False, last_log_index=9, last_log_term=9)
    rig.core.tick()
    assert not rig.messages("response_vote")
    rig.step()
    assert rig.messages("response_vote")


def test_a_vote_survives_a_restart() -> None:
    rig = Rig()
    rig.pass_time(1.0)
    assert ask_for_vote(rig)
    rig.restart()
    rig.sent.clear()
    rig.pass_time(1.0)
    rig.deliver(2, "request_vote", term=5, force=False, last_log_index=99, last_log_term=99)
    rig.step()
    assert not rig.messages("response_vote")


# -- who takes part


def test_a_master_that_is_no_member_neither_votes_nor_campaigns() -> None:
    rig = Rig(id=9, ids=(1, 2, 3))
    rig.pass_time(5.0)
    assert not ask_for_vote(rig)
    rig.step()
    assert not rig.messages("prevote")
    rig.append(2, 1, START, entries(2, 1, "a"))  # but it listens
    rig.step()
    assert rig.core.journal.last_index == 2
    change = formats.pack_change(formats.ADD, Member(9, "m9:1", b"n9"))
    rig.append(2, 1, (2, 1), [(change, 3, 1)])
    assert rig.core.may_vote()


def test_requests_of_strangers_are_ignored() -> None:
    rig = Rig()
    rig.pass_time(5.0)
    ahead = {"last_log_index": 99, "last_log_term": 99}
    rig.deliver(9, "request_vote", term=5, force=True, **ahead)
    rig.deliver(9, "prevote", term=5, **ahead)
    rig.step()
    assert rig.core.raftCurrentTerm == 0
    assert not rig.messages("response_vote", 9)


def test_two_leaders_in_one_term_end_the_process(expected_logs: ExpectedLogs) -> None:
    expected_logs("both lead in term")
    rig = Rig()
    rig.elect()
    with pytest.raises(NodeEnded):
        rig.append(2, rig.core.raftCurrentTerm, START, [])


def test_the_core_is_pysyncobj_without_its_doors() -> None:
    """No pickle is read, no file or socket opened: the methods that would are replaced."""
    replaced = [
        "_SyncObj__applyLogEntries",
        "_SyncObj__parseChangeClusterRequest",
        "_SyncObj__tryLogCompaction",
        "_checkCommandsToApply",
    ]
    assert all(name in vars(Core) for name in replaced)
