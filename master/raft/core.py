"""One master's Raft logic: pysyncobj's, with its private methods replaced where they are unfit.

Synchronous and without sockets, files or tasks: messages come in through `receive`, time passes
through `tick`, entries are begun with `append`; what comes out goes through the `Host`. The duties
of the caller (`master.raft.node`):

    1. call from one task, with `dfs.runtime.current` set to this master's Env;
    2. after a step, when `journal.dirty`: flush the store, then `flushed()`, and only then
       `transport.release()`;
    3. deliver no message and no tick while the flush runs (so a leader never counts its own
       entries before they are on disk);
    4. call again by `next_deadline()`.

Overridden here, because the stock method pickles (H6), trusts (H4, H5, H8, H13-H17) or repeats a
failed command for ever (H11): applying entries, compaction, changes of membership, proposals. The
log never holds a pickle. Names that begin with `_SyncObj__` are pysyncobj's private ones; they
are used in this file only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from pysyncobj import SyncObj, SyncObjConf

from dfs.config import Raft, Rpc
from dfs.runtime import Env
from master.raft import formats
from master.raft.election import Lease, PreVote, Stickiness
from master.raft.formats import Entry, Member, Message
from master.raft.journal import StoreJournal
from master.raft.library import NumberedNode, SnapshotStub
from master.raft.membership import Membership, applied_index
from master.raft.meter import RaftMeter
from master.raft.transport import PeerTransport
from master.store import META, Store

log = logging.getLogger(__name__)

_CANDIDATE, _LEADER = 1, 2  # pysyncobj's _RAFT_STATE
_NEVER_S = 1e9


class Host(Protocol):
    """What Raft asks of the node around it. All synchronous."""

    def send(self, peer: int, message: Message) -> bool:
        """Send to another master if there is a link; whether there was."""
        ...

    def apply(self, command: bytes, index: int, term: int) -> None:
        """A committed entry of any kind: apply it to the state if it has commands. Never raises."""
        ...

    def offers_snapshot(self, peer: int) -> bool:
        """Whether a follower can be told to fetch one; if not, one is begun."""
        ...

    def fetch_snapshot(self, peer: int) -> None:
        """Begin to fetch one from that master."""
        ...

    def leadership_changed(self, leads: bool) -> None:
        """This master has begun to serve as leader, or has ceased to lead."""
        ...


class Machine(Protocol):
    """What the log is applied to."""

    def apply(self, command: bytes) -> Any:
        """Apply an encoded CommandBatch. Deterministic; raises on no input (H11)."""
        ...


class Core(SyncObj):  # type: ignore[misc]  # pysyncobj has no annotations
    """Raft. `limits` must be checked already (`check_limits`)."""

    transport_class: type[PeerTransport] = PeerTransport  # tests switch single remedies off

    def __init__(
        self,
        env: Env,
        id: int,
        limits: Raft,
        store: Store,
        host: Host,
        meter: RaftMeter | None = None,
    ) -> None:
        self.env, self.id, self.limits, self.host = env, id, limits, host
        self._store = store
        self.meter = meter or RaftMeter()
        self.journal = StoreJournal(store)
        self.stickiness, self.lease = Stickiness(env, limits), Lease(env, limits)
        self.prevote = PreVote(env, limits)
        self.installing = False  # a snapshot is on its way: acknowledge no entries
        self.removed = False  # the others said so
        self.leader_commit = 0  # the highest commit index that a leader has told
        self._trimming = False
        self._serving_term = -1  # the term of which an own entry is applied, as leader
        applied = applied_index(store)
        self._check_disk(applied)
        self._durable = self.journal.last_index  # but for the first entry, which nobody counts
        self.membership = Membership(store, self.journal)
        others = [NumberedNode(peer) for peer in self.membership.present if peer != id]
        super().__init__(
            NumberedNode(id), others, self._conf(), nodeClass=NumberedNode, transport=_Later()
        )
        self.transport = self._made_transport(others)
        self._restart_at(applied)
        self.journal.on_membership = self._membership_changed
        self.meter.core = self

    def _check_disk(self, applied: int) -> None:
        problem = self.journal.problem(applied)
        if problem is not None:
            self.env.fatal(f"the Raft log of this master is damaged: {problem}")
        if len(self.journal) == 0:
            self.journal.add(bytes([formats.NO_OP]), 1, 0)  # where every log begins

    def _conf(self) -> SyncObjConf:
        limits = self.limits
        return SyncObjConf(
            autoTick=False,
            journalFile=self.journal,
            appendEntriesUseBatch=True,
            appendEntriesPeriod=limits.heartbeat_s,
            appendEntriesBatchSizeBytes=limits.batch_bytes,
            raftMinTimeout=limits.election_timeout_min_s,
            raftMaxTimeout=limits.election_timeout_max_s,
            leaderFallbackTimeout=limits.election_timeout_max_s,
            connectionTimeout=_NEVER_S,
            dynamicMembershipChange=False,  # ours: `membership`
            onStateChanged=self._state_changed,
        )

    def _made_transport(self, others: list[NumberedNode]) -> PeerTransport:
        transport = self.transport_class(self, self.selfNode, others)
        transport.setOnNodeConnectedCallback(self._SyncObj__onNodeConnected)
        transport.setOnNodeDisconnectedCallback(self._SyncObj__onNodeDisconnected)
        transport.setOnMessageReceivedCallback(self._SyncObj__onMessageReceived)
        self._SyncObj__transport = transport
        return transport

    def _restart_at(self, applied: int) -> None:
        """The state on disk is the snapshot: no dump is loaded, no journal wiped (H4)."""
        self._SyncObj__needLoadDumpFile = False
        self._SyncObj__serializer = SnapshotStub(self.host.offers_snapshot)
        self._SyncObj__raftLastApplied = applied
        hint = min(self.raftCommitIndex, self.journal.last_index)
        self._SyncObj__raftCommitIndex = max(hint, applied)

    # -- steps

    def receive(self, peer: int, message: Message) -> None:
        """Process a well-formed message of another master."""
        self.transport.receive(peer, message)

    def tick(self) -> None:
        """Let time pass: elections, commits, applying, heartbeats, trimming."""
        self._seek_support()
        self.doTick(0)
        self._check_commit()
        self.transport.resume()

    def replicate(self) -> None:
        """Send followers what they lack now, not at the next heartbeat."""
        if self.is_leader():
            self._SyncObj__sendAppendEntries()
            self.transport.resume()

    def flushed(self, last_index: int) -> None:
        """All that the journal held up to that index is on disk."""
        self._durable = last_index

    def _check_commit(self) -> None:
        if self.is_leader() and self.otherNodes and self.raftCommitIndex > self._durable:
            self.env.fatal(f"entry {self.raftCommitIndex} counted before it was on disk")

    def commit_known(self, index: int) -> None:
        """A snapshot has shown that the entry here at that index is committed."""
        self._SyncObj__raftCommitIndex = max(index, self.raftCommitIndex)

    def append(self, command: bytes) -> int:
        """Begin an entry, as leader; its index."""
        index = self.journal.last_index + 1
        self.journal.add(command, index, self.raftCurrentTerm)
        return index

    def begin_change(self, verb: str, member: Member) -> int | None:
        """Begin a change of membership; None while another is under way (H8)."""
        if not self.serving() or self.change_pending():
            return None
        return self.append(formats.pack_change(verb, member))

    def change_pending(self) -> bool:
        """H8."""
        return self.membership.pending(self.raftLastApplied)

    def step_down(self) -> None:
        """Cease to lead: the term is over, an election follows."""
        self.receive(self.id, {"type": "stale", "term": self.raftCurrentTerm + 1})

    def next_deadline(self) -> float:
        """The `monotonic` time by which `tick` is due."""
        if self.is_leader():
            return float(self._SyncObj__newAppendEntriesTime)
        if not self.may_vote():
            return self.env.clock.monotonic() + self.limits.election_timeout_max_s
        return max(float(self._SyncObj__raftElectionDeadline), self.prevote.retry_at)

    # -- what it knows

    def is_leader(self) -> bool:
        return bool(self._isLeader())

    def is_candidate(self) -> bool:
        return bool(self._SyncObj__raftState == _CANDIDATE)

    def serving(self) -> bool:
        """Leads, and knows all that was committed before: an own entry is applied."""
        return self.is_leader() and self._serving_term == self.raftCurrentTerm

    def has_lease(self) -> bool:
        """Whether reads of the state are sure to see every acknowledged write."""
        peers = (node.id for node in self._SyncObj__otherNodes)
        return self.serving() and self.lease.valid(peers)

    def may_vote(self) -> bool:
        """A master that is not in the log as a member, or not any more, only listens."""
        return not self.removed and self.membership.is_member(self.id)

    def leader_node(self) -> NumberedNode | None:
        node: NumberedNode | None = self._getLeader()
        return node

    def next_index(self, node: NumberedNode) -> int:
        return int(self._SyncObj__raftNextIndex[node])

    def set_next_index(self, node: NumberedNode, index: int) -> None:
        self._SyncObj__raftNextIndex[node] = index

    def match_index(self, peer: int) -> int:
        """Up to where that master's log is known to equal this leader's."""
        return int(self._SyncObj__raftMatchIndex.get(NumberedNode(peer), 0))

    def behind(self) -> bool:
        """Whether, as leader, there are entries that some follower has not been sent."""
        linked = self._SyncObj__connectedNodes & self._SyncObj__otherNodes
        return self.is_leader() and any(self._could_take_more(node) for node in linked)

    def _could_take_more(self, node: NumberedNode) -> bool:
        following = self.next_index(node)
        kept = self.journal.first_index < following <= self.journal.last_index
        return kept and self.transport.has_room(node.id)

    def backlog(self) -> bool:
        """Whether committed entries wait to be applied."""
        return bool(self.raftLastApplied < self.raftCommitIndex)

    def self_sufficient(self) -> bool:
        """Whether, as leader, an own entry waits for no other master to be committed."""
        alone = not self._SyncObj__otherNodes
        return alone and self.is_leader() and self.raftCommitIndex < self.journal.last_index

    # -- elections

    def _seek_support(self) -> None:
        """Once no leader was heard for a while, ask whether an election would be won."""
        if self.is_leader() or not self.may_vote() or self.prevote.forced():
            return
        if self._SyncObj__raftElectionDeadline >= self.env.clock.monotonic():
            return
        if self._SyncObj__connectedToAnyone() or not self.prevote.due():
            return
        if self.stickiness.holds() or self.installing:
            self.prevote.postpone()
            return
        self._ask_for_support()

    def _ask_for_support(self) -> None:
        term, last = self.raftCurrentTerm + 1, self.journal[-1]
        self.prevote.begin(term)
        place = {"last_log_index": last[1], "last_log_term": last[2]}
        for node in sorted(self._SyncObj__otherNodes, key=int_id):
            self.transport.post(node.id, {"type": "prevote", "term": term, **place})

    def _SyncObj__connectedToAnyone(self) -> bool:
        """pysyncobj asks this before it raises its term and holds an election."""
        if not self.may_vote() or self.installing:
            return False
        others = len(self._SyncObj__otherNodes)
        return self.prevote.forced() or self.prevote.won(self.raftCurrentTerm + 1, others)

    def _state_changed(self, old: int, new: int) -> None:
        term = self.raftCurrentTerm
        self.meter.elections += new == _CANDIDATE
        if new == _LEADER:
            self.meter.leaderships += 1
            self.lease.begin()
            log.info("%s: elected leader in term %d", self.env.name, term, extra={"term": term})
        elif old == _LEADER:
            log.info("%s: no leader any more, term %d", self.env.name, term, extra={"term": term})
            self.host.leadership_changed(False)

    # -- applying, in place of pysyncobj's

    def _SyncObj__applyLogEntries(self) -> bool:
        while self.backlog() and not self._store.full:
            entry = self.journal.entry(self.raftLastApplied + 1)
            if entry is None:
                self.env.fatal(f"entry {self.raftLastApplied + 1} is committed but not in the log")
            self._apply(entry)
        return False

    def _apply(self, entry: Entry) -> None:
        command, index, term = entry
        change = formats.unpack_change(command)
        if change is not None:
            self.membership.apply(*change)
            log.info("%s: masters are now %s", self.env.name, sorted(self.membership.present))
        self.host.apply(command, index, term)
        self._SyncObj__raftLastApplied = index
        self._store.put(META, b"applied", formats.pack_u64(index))
        self._maybe_serving(term)

    def _maybe_serving(self, term: int) -> None:
        if self.is_leader() and term == self.raftCurrentTerm and not self.serving():
            self._serving_term = term
            self.host.leadership_changed(True)

    def _checkCommandsToApply(self) -> None:
        """Proposals come through `append`."""

    def _SyncObj__parseChangeClusterRequest(self, command: bytes) -> None:
        """Membership is ours; the stock method would unpickle."""

    def _SyncObj__tryLogCompaction(self) -> None:
        """The state on disk is the snapshot, so the log may simply lose its oldest entries (H16).

        They go with the same flush as the applied index, so what is trimmed is applied there too.
        """
        limits, journal = self.limits, self.journal
        if len(journal) > limits.compact_entries or journal.size_bytes > limits.compact_bytes:
            self._trimming = True
        if self._trimming:
            oldest_kept = self._oldest_kept()
            journal.trim(oldest_kept)
            self._trimming = journal.first_index < oldest_kept

    def _oldest_kept(self) -> int:
        applied, journal = int(self.raftLastApplied), self.journal
        if journal.size_bytes > self.limits.keep_bytes:
            return applied - 1
        return min(applied - 1, journal.last_index - self.limits.keep_entries)

    def trim_now(self) -> None:
        """Begin to shorten the log to what is kept for lagging followers."""
        self._trimming = True

    # -- membership

    def _membership_changed(self) -> None:
        """The log's members differ from what pysyncobj counts with: tell it."""
        self.membership.refresh(self.raftLastApplied)
        wanted = {NumberedNode(peer) for peer in self.membership.present if peer != self.id}
        for node in sorted(self._SyncObj__otherNodes - wanted, key=int_id):
            self._SyncObj__otherNodes.discard(node)
            self._SyncObj__raftNextIndex.pop(node, None)
            self._SyncObj__raftMatchIndex.pop(node, None)
        for node in sorted(wanted - self._SyncObj__otherNodes, key=int_id):
            self._SyncObj__otherNodes.add(node)
            self._SyncObj__raftNextIndex[node] = self.journal.last_index + 1
            self._SyncObj__raftMatchIndex[node] = 0
            self._SyncObj__lastResponseTime[node] = self.env.clock.monotonic()


class _Later:
    """A transport's place while pysyncobj's constructor runs; the real one needs the Core."""

    ready = True

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


def int_id(node: NumberedNode) -> int:
    return int(node.id)


def check_limits(limits: Raft, rpc: Rpc) -> str | None:
    """What is wrong with the configured sizes, None when nothing."""
    if 2 * limits.max_command_bytes > limits.batch_bytes:  # H6, H20
        return "raft.max_command_bytes must be at most half of raft.batch_bytes"
    if 2 * limits.batch_bytes > rpc.max_payload_bytes:
        return "raft.batch_bytes must be at most half of rpc.max_payload_bytes"
    if not 3 * limits.heartbeat_s < limits.election_timeout_min_s < limits.election_timeout_max_s:
        return "raft: 3 * heartbeat_s < election_timeout_min_s < election_timeout_max_s is due"
    return None
