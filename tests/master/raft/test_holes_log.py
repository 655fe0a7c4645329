"""The holes of pysyncobj 0.3.17 in keeping the log: each shown open, and closed.

Every test runs twice: once with the remedy switched off, where the fault must appear, and once as
it is. So a remedy that is lost, and a test that could not fail, are both found.
"""

from __future__ import annotations

from typing import Any

import pytest

from dfs.config import Master, Raft, Rpc
from dfs.errors import Code, Failure
from dfs.runtime.sim import NodeEnded
from master.raft import formats
from master.raft.core import Core, check_limits
from master.raft.formats import Member, Message
from master.raft.library import NumberedNode
from master.raft.membership import Membership, stored_members
from master.raft.proposals import Proposals
from master.raft.transport import PeerTransport
from tests.conftest import ExpectedLogs
from tests.master.raft.ledger import Add
from tests.master.raft.rig import NO_OP, Rig, command, entries

BOTH = pytest.mark.parametrize("remedied", [False, True], ids=["open", "closed"])

START = (1, 0)  # index and term of the entry that every log begins with


# -- H1


class TruncatesMatching(PeerTransport):
    def _new_part(self, message: Message) -> Message:
        return message


@BOTH
def test_h1_a_repeated_shorter_message_drops_acknowledged_entries(remedied: bool) -> None:
    rig = Rig(transport_class=PeerTransport if remedied else TruncatesMatching)
    four = entries(2, 1, "a", "b", "c", "d")
    rig.append(2, 1, START, four)
    rig.step()
    assert rig.messages("next_node_idx")[-1]["next_node_idx"] == 6  # acknowledged, on disk
    rig.append(2, 1, START, four[:2])
    rig.step()
    lost = rig.core.journal.last_index == 3
    assert lost is not remedied


class ClaimsAll(PeerTransport):
    def _nothing_new(self, message: Message, verified: int) -> Message:
        kept = super()._nothing_new(message, verified)
        self._verified = None
        return {**kept, "commit_index": message["commit_index"]}


@BOTH
def test_h1_only_what_was_verified_is_acknowledged_and_committed(remedied: bool) -> None:
    """The tail beyond may differ from the leader's: it is kept, and nothing is said of it."""
    rig = Rig(transport_class=PeerTransport if remedied else ClaimsAll)
    rig.append(2, 1, START, entries(2, 1, "a", "b", "never committed"))
    rig.step()
    rig.append(3, 2, START, entries(2, 1, "a"), commit=9)
    rig.step()
    claimed = rig.messages("next_node_idx", 3)[-1]["next_node_idx"] - 1
    assert (claimed, rig.applied) == (
        (2, [b"a"]) if remedied else (4, [b"a", b"b", b"never committed"])
    )


class MovesBack(PeerTransport):
    def _after_acknowledgement(self, node: NumberedNode, message: Message, before: int) -> None:
        pass


@BOTH
def test_h1_an_acknowledgement_does_not_move_the_next_index_back(remedied: bool) -> None:
    rig = Rig(transport_class=PeerTransport if remedied else MovesBack)
    rig.elect()
    first = rig.propose("a")
    rig.propose("b")  # sent at once, not acknowledged yet
    rig.acknowledge(2, first + 1)
    moved_back = rig.core.next_index(NumberedNode(2)) == first + 1
    assert moved_back is not remedied


def test_h1_an_applied_entry_is_never_truncated(expected_logs: ExpectedLogs) -> None:
    expected_logs("differs from the one applied")
    rig = Rig()
    rig.append(2, 1, START, entries(2, 1, "a"), commit=2)
    rig.step()
    with pytest.raises(NodeEnded):
        rig.append(3, 2, START, entries(2, 2, "other"))


def test_entries_that_were_trimmed_here_count_as_known() -> None:
    """A leader misled by a late reply sends from before the log's beginning."""
    rig = Rig(limits=Raft(compact_entries=4, keep_entries=2))
    all_entries = entries(2, 1, *"abcdefgh")
    rig.append(2, 1, START, all_entries, commit=9)
    for _ in range(3):
        rig.step()
    assert rig.core.journal.first_index > 4
    rig.append(2, 1, START, all_entries, commit=9)
    rig.step()
    assert rig.messages("next_node_idx")[-1]["next_node_idx"] == 10
    assert rig.messages("next_node_idx")[-1]["success"]


# -- H2


class AnyTerm(PeerTransport):
    def _of_this_term(self, message: Message) -> bool:
        return True


@BOTH
def test_h2_an_acknowledgement_of_an_older_term_counts_for_nothing(remedied: bool) -> None:
    rig = Rig(transport_class=PeerTransport if remedied else AnyTerm)
    rig.elect()
    index = rig.propose("nobody else has this")
    rig.acknowledge(3, index + 1, term=rig.core.raftCurrentTerm - 1)
    rig.step()
    committed = rig.core.raftCommitIndex == index
    assert committed is not remedied


def test_h2_acknowledgements_carry_the_term() -> None:
    rig = Rig()
    rig.append(2, 7, START, [])
    rig.step()
    assert rig.messages("next_node_idx", 2)[-1]["term"] == 7


# -- H3


class CommitsBlindly(PeerTransport):
    def _without_place(self, message: Message) -> Message:
        return {**super()._without_place(message), "commit_index": message["commit_index"]}


@BOTH
def test_h3_a_snapshot_offer_commits_no_unverified_tail(remedied: bool) -> None:
    rig = Rig(transport_class=PeerTransport if remedied else CommitsBlindly)
    rig.append(2, 1, START, entries(2, 1, "never committed"))
    rig.step()
    rig.deliver(3, "snapshot", term=2, commit_index=9, first=8)
    rig.core.installing = False
    rig.step()
    assert rig.applied == ([] if remedied else [b"never committed"])


# -- H6 and H20


class LetsParts(PeerTransport):
    """Sends what pysyncobj splits, as pysyncobj would."""

    def _outgoing_entries(self, node: NumberedNode, message: Message) -> None:
        if "transmission" in message:
            self.post(node.id, message)
        else:
            super()._outgoing_entries(node, message)


SMALL = Raft(batch_bytes=1000, max_command_bytes=500)


@BOTH
def test_h6_an_entry_larger_than_a_batch_is_not_sent_in_pickled_parts(remedied: bool) -> None:
    rig = Rig(transport_class=PeerTransport if remedied else LetsParts, limits=SMALL)
    rig.elect()
    rig.core.append(command("x" * 1995))
    if remedied:
        with pytest.raises(RuntimeError, match="larger than a batch"):
            rig.core.replicate()
        return
    rig.core.replicate()
    parts = [m["transmission"] for m in rig.messages("append_entries", 2) if "transmission" in m]
    assert parts != ["start", "finish"]  # ended early, or never: raw against pickled length


def test_h6_no_proposal_comes_near_the_size_of_a_batch() -> None:
    assert check_limits(SMALL, Rpc()) is None
    assert check_limits(Raft(batch_bytes=1 << 20, max_command_bytes=1 << 20), Rpc()) is not None
    proposals = Proposals(SMALL)
    with pytest.raises(Failure) as caught:
        proposals.submit(Add(1, 1, b"c", 1, bytes(500)))
    assert caught.value.code is Code.BAD_MESSAGE
    made: list[bytes] = []

    def append(entry: bytes) -> int:
        made.append(entry)
        return len(made)

    for number in range(40):
        proposals.submit(Add(1, number, b"c", 1, bytes(50)))
    proposals.begin(append, 1, 0)
    assert len(made) > 1
    assert max(len(entry) for entry in made) <= SMALL.max_command_bytes


@BOTH
def test_h20_parts_of_an_entry_are_refused_explicitly(remedied: bool) -> None:
    """A filter that expects entries dies of them; here they are no message at all."""
    part = {"type": "append_entries", "transmission": "start", "data": b"x", "stamp": 1.0}
    part |= {"term": 1, "commit_index": 1, "prevLogIdx": 1, "prevLogTerm": 0}
    if remedied:
        with pytest.raises(Failure) as caught:
            formats.decode_message(formats.encode_message(part))
        assert caught.value.code is Code.BAD_MESSAGE
    else:
        with pytest.raises(KeyError):
            Rig().core.receive(2, part)


# -- H7


class SpinsForEver(PeerTransport):
    busy = 0

    def _pause(self, node: NumberedNode) -> None:
        self.busy += 1
        if self.busy > 1000:
            raise OverflowError("pysyncobj spins")


@BOTH
def test_h7_a_snapshot_that_is_not_ready_makes_nobody_spin(remedied: bool) -> None:
    rig = Rig(
        transport_class=PeerTransport if remedied else SpinsForEver,
        limits=Raft(compact_entries=4, keep_entries=2),
    )
    rig.elect()
    for text in "abcdefgh":
        index = rig.propose(text)
        rig.acknowledge(2, index + 1)
        rig.step()
    assert rig.core.journal.first_index > 3
    rig.offering = False
    rig.core.set_next_index(NumberedNode(3), 1)
    rig.sent.clear()
    if remedied:
        rig.core.replicate()
        assert len(rig.sent) < 5
        assert rig.messages("append_entries", 3)  # it hears that the leader lives
    else:
        with pytest.raises(OverflowError):
            rig.core.replicate()


# -- H8 and H17


class ManyAtOnce(Core):
    def change_pending(self) -> bool:
        return False


@BOTH
def test_h8_members_change_one_at_a_time(remedied: bool) -> None:
    rig = Rig(core_class=Core if remedied else ManyAtOnce)
    rig.elect()
    assert rig.core.begin_change(formats.ADD, Member(4, "m4:1", b"n4")) is not None
    second = rig.core.begin_change(formats.REMOVE, Member(2, "", b""))
    assert (second is None) is remedied


def test_h8_no_change_before_an_own_entry_is_committed() -> None:
    rig = Rig()
    rig.pass_time(2.0)
    rig.step()
    rig.deliver(2, "prevote_ok", term=1)
    rig.step()
    rig.deliver(2, "response_vote", term=1)
    rig.step()
    assert rig.core.is_leader()
    assert rig.core.begin_change(formats.ADD, Member(4, "m4:1", b"n4")) is None


class ForgetsUncommitted(Membership):
    def refresh(self, applied: int) -> None:
        self.known = {m.id: m for m in stored_members(self._store)}


@BOTH
def test_h17_an_uncommitted_change_is_in_force_after_a_restart(
    remedied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not remedied:
        monkeypatch.setattr("master.raft.core.Membership", ForgetsUncommitted)
    rig = Rig()
    change = formats.pack_change(formats.ADD, Member(4, "m4:1", b"n4"))
    rig.append(2, 1, START, [(change, 2, 1)])
    rig.step()
    rig.restart()
    assert (NumberedNode(4) in rig.core.otherNodes) is remedied


def test_a_truncated_change_is_out_of_force_again() -> None:
    rig = Rig()
    change = formats.pack_change(formats.ADD, Member(4, "m4:1", b"n4"))
    rig.append(2, 1, START, [(change, 2, 1)])
    rig.step()
    assert NumberedNode(4) in rig.core.otherNodes
    rig.append(3, 2, START, [(NO_OP, 2, 2)])
    rig.step()
    assert NumberedNode(4) not in rig.core.otherNodes
    assert rig.log() == [(1, 0), (2, 2)]


# -- H19


class Raises(PeerTransport):
    def _lowered(self, asked: int, before: int) -> int:
        return asked


@BOTH
def test_h19_a_late_reset_does_not_raise_the_next_index(remedied: bool) -> None:
    """A follower refuses a message, and refuses the later ones in flight with larger indices."""
    rig = Rig(transport_class=PeerTransport if remedied else Raises)
    rig.elect()
    for text in "abcdef":
        rig.propose(text)
    rig.acknowledge(2, 2, reset=True)  # what is really missing
    rig.acknowledge(2, 6, reset=True)  # the reply to a message sent before that one came
    raised = rig.core.next_index(NumberedNode(2)) == 6
    assert raised is not remedied


@BOTH
def test_h19_a_conflict_longer_than_a_batch_is_overcome(remedied: bool) -> None:
    """Leader and follower for real: without the remedy it never catches up."""
    limits = Raft(batch_bytes=40, max_command_bytes=20)
    leader = Rig(1, limits=limits, transport_class=PeerTransport if remedied else Raises)
    follower = Rig(2, limits=limits)
    leader.append(3, 1, START, entries(2, 1, *("right" for _ in range(30))))
    leader.step()
    follower.append(3, 2, START, entries(2, 2, *("wrong" for _ in range(12))))
    follower.step()
    leader.deliver(3, "stale", term=3)
    leader.elect_with(3)
    follower.sent.clear()
    # Pin pysyncobj's optimism: much is in flight before the first reply comes back.
    leader.core.set_next_index(NumberedNode(2), 14)
    for _ in range(60):
        leader.pass_time(0.11)
        leader.step()
        _carry(leader, follower)
        follower.step()
        _carry(follower, leader)
    caught_up = follower.core.journal.last_index == leader.core.journal.last_index
    assert caught_up is remedied


def _carry(source: Rig, target: Rig) -> None:
    """Deliver all that `source` sent to `target`, in order."""
    messages: list[Any] = [m for peer, m in source.sent if peer == target.id]
    source.sent.clear()
    for message in messages:
        target.take(source.id, message)


def test_limits_of_a_node_are_checked() -> None:
    masters = {"1": "m1:1"}
    config = Master("c", 1, "m1:1", "/d", "", masters, raft=Raft(heartbeat_s=0.4))
    assert check_limits(config.raft, config.rpc) is not None
