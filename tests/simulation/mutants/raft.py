"""Broken masters: durability, elections, leases, the log, snapshots (holes H1 to H20)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dfs.runtime import WriteBatch
from master import tables as names
from master.raft import RaftNode, formats, snapshots
from master.raft.core import Core
from master.raft.election import Lease, PreVote, Stickiness
from master.raft.formats import Message
from master.raft.journal import StoreJournal
from master.raft.library import NumberedNode
from master.raft.membership import applied_index
from master.raft.transport import PeerTransport
from master.store import META, Store
from tests.simulation.mutants.kinds import mutant
from tests.simulation.taps import Taps


def _nothing(*_: Any) -> None: ...


def _hasty_elections(taps: Taps) -> None:
    """Neither loyalty to a leader nor questions before an election."""
    taps.replace(Stickiness, "holds", lambda self: False)
    taps.replace(PreVote, "won", lambda self, term, others: True)


def _colliding_elections(taps: Taps) -> None:
    """Whoever misses the leader does so at the same time as the others."""
    _hasty_elections(taps)
    taps.replace(
        Core, "_SyncObj__generateRaftTimeout", lambda self: self.limits.election_timeout_min_s
    )


# -- durability


@mutant("namespace", "raft.ack", "raft.vote", seeds=1, seconds=10.0)
def send_before_flush(taps: Taps) -> None:
    """Acknowledgements and votes leave before what they assert is on disk."""

    async def flush(original: Callable[..., Any], node: RaftNode, core: Core | None) -> None:
        if core is not None:
            core.transport.release()
        await original(node, core)

    taps.around(RaftNode, "_flush", flush)


@mutant("namespace", "raft.", seeds=2)
def count_own_entries_unflushed(taps: Taps) -> None:
    """A leader sends entries, and counts its own, before they are on its disk."""

    def append(original: Callable[..., int], core: Core, command: bytes) -> int:
        index = original(core, command)
        core._durable = index
        core.journal.dirty = False
        return index

    taps.around(Core, "append", append)


@mutant("namespace", "raft.vote", seeds=2)
def forget_the_vote(taps: Taps) -> None:
    """Whom it voted for is not written down, only the term."""

    def set_term(
        original: Callable[..., None], journal: StoreJournal, term: int, vote: Any
    ) -> None:
        original(journal, term, None)
        journal._vote = vote

    taps.around(StoreJournal, "setCurrentTerm", set_term)


@mutant("namespace", "raft.vote", seeds=2)
def forget_the_term(taps: Taps) -> None:
    """Term and vote are kept in memory alone."""

    def put(
        original: Callable[..., None], store: Store, table: str, key: bytes, value: bytes
    ) -> None:
        if (table, key) != (META, b"term"):
            original(store, table, key, value)

    taps.around(Store, "put", put)


# -- elections


@mutant("namespace", "raft.vote", "raft.leader", seeds=2)
def vote_twice(taps: Taps) -> None:
    """Every candidate of a term gets the vote (elections collide, so that there are some)."""
    _colliding_elections(taps)

    def on_request(
        original: Callable[..., Message | None],
        transport: PeerTransport,
        node: NumberedNode,
        message: Message,
    ) -> Message | None:
        if message["term"] == transport._core.raftCurrentTerm:
            transport._core._SyncObj__votedForNodeId = None
        return original(transport, node, message)

    taps.around(PeerTransport, "_on_request_vote", on_request)


@mutant(
    "logs",
    "raft.loyalty",
    "raft.lease",
    seeds=2,
    faults=("cut_two_masters", "cut_leader_from_masters"),
)
def vote_beside_a_leader(taps: Taps) -> None:
    """H10: votes are given although a leader was heard just now."""
    _hasty_elections(taps)


# -- leases


@mutant(
    "namespace", "raft.loyalty", "raft.lease", "raft.stale", seeds=2, faults=("isolate_leader",)
)
def lease_three_times_as_long(taps: Taps) -> None:
    """Reads are served from the leader's state for three times as long as followers are loyal."""

    def init(original: Callable[..., None], self: Lease, *arguments: Any) -> None:
        original(self, *arguments)
        self._length_s *= 3

    taps.around(Lease, "__init__", init)


@mutant("namespace", "raft.lease", "raft.stale", seeds=2, faults=("isolate_leader",))
def read_without_a_lease(taps: Taps) -> None:
    """Whoever believes to lead serves reads."""
    taps.replace(Core, "has_lease", lambda self: self.serving())


@mutant(
    "namespace",
    "raft.",
    "names are linearizable",
    "masters",
    "no error",
    seeds=2,
    faults=("kill_leader",),
)
def lead_without_an_own_entry(taps: Taps) -> None:
    """A new leader serves before it knows all that was committed."""
    taps.replace(Core, "serving", lambda self: self.is_leader())


@mutant("namespace", "raft.loyalty", "raft.lease", seeds=4, faults=("transfer_leadership",))
def keep_the_lease_while_handing_over(taps: Taps) -> None:
    """The lease is not given up before another master is told to take over."""
    taps.replace(Lease, "give_up", _nothing)


# -- the log


@mutant("namespace", "raft.", seeds=3)
def truncate_what_matches(taps: Taps) -> None:
    """H1: a repeated or shorter message cuts off what this log has already."""
    taps.replace(PeerTransport, "_new_part", lambda self, message: message)
    taps.replace(PeerTransport, "_after_acknowledgement", _nothing)


@mutant("namespace", "raft.match", "raft.applied", "raft.answer", seeds=2)
def count_what_was_sent(taps: Taps) -> None:
    """A leader takes what it has sent to a follower for what the follower has."""

    def outgoing(
        original: Callable[..., None], self: PeerTransport, node: NumberedNode, message: Message
    ) -> None:
        original(self, node, message)
        if message.get("entries"):
            self._core._SyncObj__raftMatchIndex[node] = message["entries"][-1][1]

    taps.around(PeerTransport, "_outgoing_entries", outgoing)


@mutant("namespace", "raft.applied", "masters", "states", seeds=3)
def apply_out_of_order(taps: Taps) -> None:
    """Two entries that are committed together are applied in the wrong order."""

    def apply_all(original: Callable[..., bool], core: Core) -> bool:
        first = int(core.raftLastApplied) + 1
        pair = [core.journal.entry(first + 1), core.journal.entry(first)]
        if core.raftCommitIndex > first and all(pair):
            for entry in pair:
                assert entry is not None
                core._apply(entry)
            core._SyncObj__raftLastApplied = first + 1
        return original(core)

    taps.around(Core, "_SyncObj__applyLogEntries", apply_all)


# -- snapshots


def _without(table: str) -> Callable[[Store, dict[bytes, bytes | None]], WriteBatch]:
    original = snapshots.adoption

    def adoption(copy: Store, own: dict[bytes, bytes | None]) -> WriteBatch:
        batch = original(copy, own)
        for key, _ in copy.scan(table):
            batch.delete(table, key)
        return batch

    return adoption


@mutant("members", "raft.snapshot", seeds=3)
def lose_answers_on_snapshot(taps: Taps) -> None:
    """A snapshot comes without the clients' answers."""
    taps.replace(snapshots, "adoption", _without(names.ANSWERS))


@mutant("turns", "raft.snapshot", seeds=5, faults=("replace_lost_master",))
def lose_deletions_on_snapshot(taps: Taps) -> None:
    """A snapshot comes without the deletions that are to be carried out."""
    taps.replace(snapshots, "adoption", _without(names.DELETIONS))


@mutant("members", "raft.snapshot", seeds=3)
def applied_index_off_by_one(taps: Taps) -> None:
    """After a snapshot the state is taken to be applied up to one entry less than it is."""

    def adoption(copy: Store, own: dict[bytes, bytes | None]) -> WriteBatch:
        batch = original(copy, own)
        batch.put(META, b"applied", formats.pack_u64(applied_index(copy) - 1))
        return batch

    original = snapshots.adoption
    taps.replace(snapshots, "adoption", adoption)
