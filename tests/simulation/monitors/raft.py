"""Raft's rules, watched on every master: what leaves is durable, terms, what is applied, leases.

Looks where messages leave (`RaftNode.send`), where entries reach the state (`RaftNode.apply`) and
at the disks' media, so that it sees what broken code in between does. Knows all nodes over all
their lives. What the state's contents are is left to `states`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import xxhash

from dfs.runtime.current import current_env
from dfs.runtime.sim.key_value import Store as Disk
from master.raft import RaftNode, formats
from master.raft.core import Core
from master.raft.formats import Message
from master.raft.journal import StoreJournal
from master.raft.membership import applied_index
from master.raft.proposals import Proposals, Waiter
from master.raft.snapshots import SnapshotFetch
from master.store import JOURNAL, META
from master.tables import STATE_TABLES
from tests.simulation.stage import Stage
from tests.simulation.taps import Taps

STATE_FILE = "/data/state.mdb"
_LEADER = 2  # pysyncobj's


class RaftMonitor:
    """Breaks the run in the step of the node that breaks a rule."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._votes: dict[tuple[str, int], int] = {}
        self._leaders: dict[int, int] = {}
        self._applied: dict[int, int] = {}  # index -> digest of term and command
        self._believed: dict[tuple[int, int, int], int] = {}  # leader, term, peer -> match index
        # Of each waiter (held, so that its id stays its own): index and term of its entry.
        self._answered = 0  # the highest index of a mutation that was answered
        self._waiters: dict[int, tuple[Waiter, tuple[int, int] | None]] = {}
        self._fetched: dict[str, int] = {}  # digest of the state that a node is to install

    def attach(self, taps: Taps) -> None:
        taps.around(RaftNode, "send", self._send)
        taps.around(RaftNode, "apply", self._apply)
        taps.around(RaftNode, "may_read", self._may_read)
        taps.around(RaftNode, "_install", self._install)
        taps.around(SnapshotFetch, "last_applied", self._last_applied)
        taps.around(Core, "tick", self._tick)
        taps.around(Core, "_state_changed", self._state_changed)
        taps.around(StoreJournal, "deleteEntriesFrom", self._delete_from)
        taps.around(Proposals, "submit", self._submit)
        taps.around(Proposals, "expect", self._expect)
        taps.around(Waiter, "wait", self._wait)

    async def finish(self) -> None:
        """All has been seen while it happened."""

    # -- what is on the disks

    def _disk(self, name: str) -> Disk | None:
        media = self._stage.world.disk(name)
        return media.inode(STATE_FILE).store if media.exists(STATE_FILE) else None

    def _durable(self, name: str, table: str, key: bytes) -> bytes | None:
        store = self._disk(name)
        value: bytes | None = None if store is None else store.tables[table].get(key)
        return value

    def _durably_applied(self, name: str) -> int:
        value = self._durable(name, META, b"applied")
        return formats.unpack_u64(value) if value else 1

    def _has(self, name: str, index: int, term: int) -> bool:
        """Whether that entry, or a state it went into, is on its disk, or was before its loss."""
        if name in self._stage.lost:
            return True
        key = formats.pack_u64(index)
        value = self._durable(name, JOURNAL, key)
        if value is not None:
            return bool(formats.unpack_entry(key, value)[2] == term)
        return self._durably_applied(name) >= index

    # -- messages that leave

    def _send(
        self, original: Callable[..., bool], node: RaftNode, peer: int, message: Message
    ) -> bool:
        core, kind = node._core, message["type"]
        if core is not None:
            if kind == "next_node_idx" and message["success"]:
                self._check_acknowledgement(core, message["next_node_idx"] - 1)
            elif kind == "request_vote":
                self._check_vote(core, message["term"], core.id)
            elif kind == "response_vote":
                self._check_vote(core, message["term"], peer)
                self._check_loyalty(core, message["term"])
            elif kind == "append_entries":
                self._check_leader(core.id, message["term"])
        return original(node, peer, message)

    def _check_acknowledgement(self, core: Core, index: int) -> None:
        self._stage.reach["saw.append_ack"] += 1
        name, entry = core.env.name, core.journal.entry(index)
        durable = self._durable(name, JOURNAL, formats.pack_u64(index))
        if entry is not None and durable == formats.pack_entry(entry)[1]:
            return
        if entry is not None or (durable is None and self._durably_applied(name) < index):
            self._stage.broken("raft.ack", f"{name} acknowledges {index} before it is on disk")

    def _check_vote(self, core: Core, term: int, candidate: int) -> None:
        self._stage.reach["saw.vote"] += 1
        name = core.env.name
        first = self._votes.setdefault((name, term), candidate)
        if first != candidate:
            text = f"{name} votes for {first} and {candidate} in term {term}"
            self._stage.broken("raft.vote", text)
        value = self._durable(name, META, b"term")
        stored, vote = formats.unpack_vote(value) if value else (0, None)
        if stored < term or (stored == term and vote != candidate):
            text = f"{name} votes for {candidate} in {term}, on disk are {stored}, {vote}"
            self._stage.broken("raft.vote", text)

    def _check_loyalty(self, core: Core, term: int) -> None:
        """No leader of an older term relies on the voter for its lease."""
        for name, server in self._stage.cluster.running.items():
            leader = server.raft._core
            if leader is None or leader is core or not self._stage.world.is_alive(name):
                continue
            lease, echo = leader.lease, leader.lease._echoes.get(core.id, 0.0)
            relies = leader.is_leader() and not lease._given_up and leader.raftCurrentTerm < term
            if relies and echo > 0 and lease._clock.boottime() < echo + lease._length_s:
                text = f"{core.env.name} votes in term {term}, {name} holds a lease of it"
                self._stage.broken("raft.loyalty", text)

    # -- leaders

    def _state_changed(self, original: Callable[..., None], core: Core, old: int, new: int) -> None:
        if new == _LEADER:
            self._stage.reach["saw.elected"] += 1
            self._check_leader(core.id, core.raftCurrentTerm)
            self._check_elected(core)
        original(core, old, new)

    def _check_elected(self, core: Core) -> None:
        """A majority has voted for it, or at least has said so."""
        term, members = core.raftCurrentTerm, core.membership.present
        votes = sum(self._votes.get((name_of(id), term)) == core.id for id in members)
        if len(members) > 1 and 2 * votes <= len(members):
            text = f"{core.env.name} leads in term {term} by {votes} of {len(members)} votes"
            self._stage.broken("raft.elected", text)

    def _check_leader(self, id: int, term: int) -> None:
        first = self._leaders.setdefault(term, id)
        if first != id:
            self._stage.broken("raft.leader", f"{first} and {id} lead in term {term}")

    def _tick(self, original: Callable[..., None], core: Core) -> None:
        if core.is_leader():
            for peer in core.membership.present:
                if peer != core.id:
                    self._check_match(core, peer)
        original(core)

    def _check_match(self, core: Core, peer: int) -> None:
        """A leader is about to count what that one has."""
        match, place = core.match_index(peer), (core.id, core.raftCurrentTerm, peer)
        if self._believed.get(place) == match:
            return
        self._believed[place] = match
        self._stage.reach["saw.match_index"] += 1
        entry, name = core.journal.entry(match), name_of(peer)
        value = self._durable(name, META, b"term")
        over = value is not None and formats.unpack_vote(value)[0] > core.raftCurrentTerm
        if entry is None or over:  # whose time is over may believe what was true in it
            return
        if not self._has(name, match, entry[2]):
            text = f"{core.env.name} counts {match} of {name}, which lacks it"
            self._stage.broken("raft.match", text)

    def _may_read(self, original: Callable[..., bool], node: RaftNode) -> bool:
        allowed = original(node)
        if allowed:
            self._stage.reach["saw.lease"] += 1
            if node.applied_index < self._answered:
                text = f"{node._env.name} serves reads at {node.applied_index}"
                self._stage.broken("raft.stale", f"{text}, {self._answered} is answered")
            for name, server in self._stage.cluster.running.items():
                other = server.raft
                if other is not node and self._stage.world.is_alive(name) and original(other):
                    text = f"{node._env.name} and {name} serve leased reads"
                    self._stage.broken("raft.lease", text)
        return allowed

    # -- entries

    def _apply(
        self, original: Callable[..., None], node: RaftNode, command: bytes, index: int, term: int
    ) -> None:
        self._stage.reach["saw.applied"] += 1
        name, known = node._env.name, self._applied.get(index)
        digest = _digest(command, term)
        if known is None:
            self._applied[index] = digest
            self._check_majority("raft.applied", node, index, term)
        elif known != digest:
            text = f"{name} applies another entry {index} than others did"
            self._stage.broken("raft.applied", text)
        if (at := applied_index(node._store)) != index - 1:
            text = f"{name} applies entry {index} to a state at {at}"
            self._stage.broken("raft.applied", text)
        original(node, command, index, term)

    def _check_majority(self, rule: str, node: RaftNode, index: int, term: int) -> None:
        members = node.members()
        have = sum(self._has(name_of(id), index, term) for id in members)
        if len(members) > 1 and 2 * have <= len(members):
            text = f"{node._env.name}: entry {index} is on {have} of {len(members)} disks"
            self._stage.broken(rule, text)

    def _delete_from(
        self, original: Callable[..., None], journal: StoreJournal, position: int
    ) -> None:
        dropped = journal[position:]
        applied = applied_index(journal._store)
        for command, index, term in dropped:
            self._stage.reach["saw.truncated"] += 1
            if index <= applied or self._applied.get(index) == _digest(command, term):
                self._stage.broken("raft.truncated", f"entry {index} is applied, and cut off")
        original(journal, position)

    # -- answers to clients

    def _submit(
        self, original: Callable[..., Waiter], proposals: Proposals, command: object
    ) -> Waiter:
        waiter = original(proposals, command)
        self._waiters[id(waiter)] = (waiter, None)
        return waiter

    def _expect(
        self,
        original: Callable[..., None],
        proposals: Proposals,
        index: int,
        term: int,
        waiters: list[Waiter],
    ) -> None:
        for waiter in waiters:
            self._waiters[id(waiter)] = (waiter, (index, term))
        original(proposals, index, term, waiters)

    async def _wait(self, original: Callable[..., Any], waiter: Waiter) -> Any:
        try:
            answer = await original(waiter)
        finally:
            known = self._waiters.pop(id(waiter), None)
        if known is not None:
            self._check_answer(known[1])
        return answer

    def _check_answer(self, place: tuple[int, int] | None) -> None:
        """A mutation is about to be answered."""
        self._stage.reach["saw.answer"] += 1
        name = current_env.get().name
        if place is None:
            self._stage.broken("raft.answer", f"{name} answers what it never put in its log")
        self._check_majority("raft.answer", self._stage.cluster.running[name].raft, *place)
        self._answered = max(self._answered, place[0])

    # -- snapshots

    def _last_applied(
        self, original: Callable[..., tuple[int, int]], fetch: SnapshotFetch
    ) -> tuple[int, int]:
        name = fetch._env.name
        inode = self._stage.world.disk(name).inode(fetch.path)
        self._fetched[name] = _content(inode.store or Disk.from_bytes(inode.read_all(), fetch.path))
        return original(fetch)

    async def _install(
        self, original: Callable[..., Any], node: RaftNode, index: int, term: int
    ) -> None:
        name, before = node._env.name, node._core
        wanted = self._fetched.pop(name, None)
        await original(node, index, term)
        store = self._disk(name)
        if node._core is before or store is None:
            return
        self._stage.reach["saw.installed"] += 1
        if self._durably_applied(name) != index or node.applied_index != index:
            self._stage.broken("raft.snapshot", f"{name} installs {index}, and is elsewhere")
        if _content(store) != wanted:
            self._stage.broken("raft.snapshot", f"{name} installs another state than it fetched")


def name_of(id: int) -> str:
    return f"master-{id}"


def _digest(command: bytes, term: int) -> int:
    return xxhash.xxh3_64_intdigest(command, seed=term)


def _content(store: Disk) -> int:
    """Digest of the replicated tables, the clients' answers among them."""
    digest = xxhash.xxh3_64()
    for table in STATE_TABLES:
        for pair in store.tables[table].items():
            digest.update(repr((table, pair)).encode())
    return digest.intdigest()
