"""More broken masters: votes, answers, what is applied, late messages, snapshots (H2, H3, H9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from master import tables as names
from master.raft import RaftNode, core, membership, snapshots
from master.raft.election import PreVote
from master.raft.formats import Message
from master.raft.library import NumberedNode
from master.raft.membership import Membership
from master.raft.transport import PeerTransport
from tests.simulation.mutants.kinds import mutant
from tests.simulation.mutants.raft import _colliding_elections, _without
from tests.simulation.taps import Taps

LAGGING = {"compact_entries": 15, "keep_entries": 5}  # followers soon need snapshots


@mutant(
    "namespace",
    "raft.elected",
    "raft.leader",
    seeds=1,
    masters=5,
    seconds=10.0,
    faults=("kill_leader",),
)
def count_votes_twice(taps: Taps) -> None:
    """H9: a vote that comes twice counts twice."""

    def outgoing(
        original: Callable[..., Message], self: PeerTransport, node: NumberedNode, message: Message
    ) -> Message:
        self._held.append((node.id, dict(message)))  # as if it were sent again
        return original(self, node, message)

    taps.around(PeerTransport, "_outgoing_vote", outgoing)
    taps.replace(PeerTransport, "_counts", lambda self, node: True)
    _colliding_elections(taps)


@mutant("namespace", "raft.answer", seeds=1, seconds=10.0)
def answer_before_commit(taps: Taps) -> None:
    """A change is answered as soon as it is in the leader's log."""

    async def propose(original: Any, self: RaftNode, command: object) -> object:
        waiter = self.proposals.submit(command)
        waiter.answer(None)
        return await waiter.wait()

    taps.around(RaftNode, "propose", propose)


@mutant("namespace", "liveness", seeds=1, knobs=LAGGING, faults=("isolate_follower",))
def offer_no_snapshots(taps: Taps) -> None:
    """H7: a leader never gets a snapshot ready for a follower that needs one."""
    taps.replace(RaftNode, "offers_snapshot", lambda self, peer: False)


@mutant("namespace", "raft.applied", seeds=1, faults=("kill_follower",))
def apply_again_after_a_restart(taps: Taps) -> None:
    """A restarted master applies its last entry a second time."""
    taps.replace(core, "applied_index", lambda store: max(1, membership.applied_index(store) - 1))


@mutant("members", "raft.snapshot", seeds=1, faults=("replace_lost_master",))
def lose_sessions_on_snapshot(taps: Taps) -> None:
    """A snapshot comes without the clients' sessions."""
    taps.replace(snapshots, "adoption", _without(names.SESSIONS))


@mutant("members", "no error", "liveness", seeds=2, faults=("exchange_master",))
def forget_new_members(taps: Taps) -> None:
    """A change of membership is not written down when it is applied."""
    taps.replace(Membership, "apply", lambda self, verb, member: None)


@mutant("namespace", "liveness", "no error", seeds=3, faults=("isolate_follower",))
def leave_the_deposed_alone(taps: Taps) -> None:
    """H12: nobody tells an old leader that a later term has begun (somebody begins one in vain)."""

    def post(
        original: Callable[..., bool], self: PeerTransport, peer: int, message: Message
    ) -> bool:
        return message["type"] == "stale" or original(self, peer, message)

    taps.around(PeerTransport, "post", post)
    taps.replace(PreVote, "won", lambda self, term, others: True)


@mutant(
    "namespace",
    "raft.applied",
    seeds=3,
    seconds=60.0,
    masters=3,
    knobs=LAGGING,
    faults=("cut_leader_from_masters",),
)
def commit_beside_the_log(taps: Taps) -> None:
    """H3: what carries no place in the log commits what was never compared."""

    def without_place(_: PeerTransport, message: Message) -> Message:
        fields = {name: message[name] for name in ("term", "commit_index")}
        return {"type": "append_entries", "serialized": None, **fields}

    taps.replace(PeerTransport, "_without_place", without_place)
