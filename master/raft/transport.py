"""Between pysyncobj and the other masters: every message passes here, both ways, and is checked.

pysyncobj 0.3.17 trusts its messages too much. What it would do wrong with one is put right here,
each remedy a method of its own, named by the hole it closes (facts of the library, H1 to H20):

    out   what asserts durability (acknowledgements, votes) is held until `release`, which the
          caller runs after its flush; entries leave at once, the leader's disk works meanwhile
          H2   acknowledgements carry the term and the leader's time stamp (lease)
          H6   an entry that pysyncobj would split into pickled parts never gets that far
          H7   no snapshot to offer yet: a bare heartbeat, and the sending loop is ended
    in    H1   entries that are here already are skipped, a longer matching log is kept, and only
               what was verified is acknowledged and committed
          H2   acknowledgements of another term are dropped
          H3   what carries no place in the log cannot advance the commit index
          H9   votes count once each, and of members only
          H10  no vote while a leader was heard (`election.Stickiness`)
          H12  an old leader is told that its term is over, and steps down
          H19  a reset never raises the next index
          H20  parts of a split entry are refused explicitly: `formats` knows no such message

Runs synchronously inside a step of `Core`; knows no sockets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from pysyncobj.transport import Transport

from master.raft.formats import Entry, Message
from master.raft.library import NumberedNode

if TYPE_CHECKING:
    from master.raft.core import Core

log = logging.getLogger(__name__)

Handler = Callable[[NumberedNode, Message], Message | None]


class PeerTransport(Transport):  # type: ignore[misc]  # pysyncobj has no annotations
    """What pysyncobj calls a transport, without any transport in it."""

    def __init__(self, core: Core, me: NumberedNode, others: list[NumberedNode]) -> None:
        super().__init__(core, me, others)
        self._core = core
        self._held: list[tuple[int, Message]] = []
        self._linked: dict[int, NumberedNode] = {}
        self._paused: dict[int, NumberedNode] = {}
        self._windows: dict[int, Window] = {}
        self._voters: dict[int, None] = {}
        self._stamps: dict[int, float] = {}  # newest of each leader, to be echoed
        self._verified: int | None = None  # all that the next acknowledgement may claim
        self._conflict: int | None = None  # index at which the leader's log and ours part
        self._receivers: dict[str, Handler] = {
            "append_entries": self._on_append_entries,
            "snapshot": self._on_snapshot,
            "next_node_idx": self._on_next_node_idx,
            "request_vote": self._on_request_vote,
            "response_vote": self._on_response_vote,
            "prevote": self._on_prevote,
            "prevote_ok": self._on_prevote_ok,
            "stale": self._on_stale,
            "timeout_now": self._on_timeout_now,
        }
        self._senders: dict[str, Handler] = {
            "append_entries": self._outgoing_entries,
            "next_node_idx": self._outgoing_acknowledgement,
            "request_vote": self._outgoing_vote_request,
            "response_vote": self._outgoing_vote,
        }

    # -- links

    def link_up(self, peer: int) -> None:
        """Messages to that master have a way to go."""
        node = self._linked[peer] = NumberedNode(peer)
        self._windows[peer] = Window(self._core.limits.window_bytes)
        self._onNodeConnected(node)

    def link_down(self, peer: int) -> None:
        node = self._linked.pop(peer, None)
        self._paused.pop(peer, None)
        if node is not None:
            self._onNodeDisconnected(node)

    def _pause(self, node: NumberedNode) -> None:
        """Send that one nothing more in this step: pysyncobj's loop over entries ends."""
        self._paused[node.id] = node
        self._onNodeDisconnected(node)

    def resume(self) -> None:
        """The step is over."""
        for node in self._paused.values():
            self._onNodeConnected(node)
        self._paused.clear()

    # -- outgoing

    def send(self, node: NumberedNode, message: Message) -> bool:
        """pysyncobj sends. What it needs before is done here."""
        sender = self._senders.get(message["type"])
        if sender is None:
            return False  # proposals forwarded to the leader: not our way
        ready = sender(node, message)
        if ready is not None:
            self._held.append((node.id, ready))
        return True

    def post(self, peer: int, message: Message) -> bool:
        """Send at once: for what asserts nothing that a crash could make untrue."""
        return self._core.host.send(peer, message)

    def release(self) -> None:
        """Let go what was held: all that it asserts is on disk now."""
        held, self._held = self._held, []
        for peer, message in held:
            self.post(peer, message)

    def _outgoing_entries(self, node: NumberedNode, message: Message) -> None:
        message["stamp"] = self._core.env.clock.boottime()
        if "serialized" in message:
            self._outgoing_snapshot(node, message)
        elif "transmission" in message:
            raise RuntimeError("an entry is larger than a batch: proposals are not bounded")  # H6
        elif not self._takes(node, message) or not self.post(node.id, message):
            self._withdraw(node, message)

    def _outgoing_snapshot(self, node: NumberedNode, message: Message) -> None:
        if message["serialized"] is None:  # H7
            self.post(node.id, self._bare_heartbeat(message))
            self._pause(node)
            return
        first = self._core.journal.first_index
        offer = {k: message[k] for k in ("term", "commit_index", "stamp")}
        self.post(node.id, {"type": "snapshot", "first": first, **offer})

    @staticmethod
    def _bare_heartbeat(message: Message) -> Message:
        """Says that the leader lives and nothing else."""
        nothing = {"commit_index": 0, "prevLogIdx": 0, "prevLogTerm": 0, "entries": []}
        return {"type": "append_entries", "term": message["term"], "stamp": message["stamp"]} | (
            nothing
        )

    def _takes(self, node: NumberedNode, message: Message) -> bool:
        window, entries = self._windows.get(node.id), message["entries"]
        return not entries or (window is not None and window.take(entries))

    def has_room(self, peer: int) -> bool:
        """Whether entries may be sent to that follower now."""
        window = self._windows.get(peer)
        return window is not None and not window.full

    def _withdraw(self, node: NumberedNode, message: Message) -> None:
        """The entries did not leave: send them later, and say now only that the leader lives."""
        if message["entries"]:
            self._core.set_next_index(node, message["prevLogIdx"] + 1)
            self.post(node.id, {**message, "entries": []})
        self._pause(node)

    def _outgoing_acknowledgement(self, node: NumberedNode, message: Message) -> Message:
        message["term"] = self._core.raftCurrentTerm  # H2
        message["stamp"] = self._stamps.get(node.id, 0.0)
        if message["success"] and self._verified is not None:  # H1
            message["next_node_idx"] = self._verified + 1
        if message["reset"] and self._conflict is not None:
            message["next_node_idx"] = min(message["next_node_idx"], self._conflict)
        return message

    def _outgoing_vote_request(self, node: NumberedNode, message: Message) -> Message:
        self._voters = {}
        message["force"] = self._core.prevote.forced()
        return message

    def _outgoing_vote(self, node: NumberedNode, message: Message) -> Message:
        return message

    # -- incoming

    def receive(self, peer: int, message: Message) -> None:
        """A message of another master, well-formed; `Core` believes what is left of it."""
        node = NumberedNode(peer)
        receiver = self._receivers.get(message["type"])
        ready = receiver(node, message) if receiver else None
        if ready is not None:
            self._deliver(node, ready)

    def _deliver(self, node: NumberedNode, message: Message) -> None:
        try:
            self._onMessageReceived(node, message)
        finally:
            self._verified = self._conflict = None

    # -- incoming: entries

    def _on_append_entries(self, node: NumberedNode, message: Message) -> Message | None:
        if not self._heard_leader(node, message):
            return None
        if self._core.installing:
            self._deliver(node, self._without_place(message))
            self._acknowledge_life(node)
            return None
        return self._new_part(message)

    def _heard_leader(self, node: NumberedNode, message: Message) -> bool:
        """Whether the sender leads in a term that is not over."""
        core = self._core
        if message["term"] < core.raftCurrentTerm:  # H12
            self.post(node.id, {"type": "stale", "term": core.raftCurrentTerm})
            return False
        if core.is_leader() and message["term"] == core.raftCurrentTerm:
            core.env.fatal(f"masters {core.id} and {node.id} both lead in term {message['term']}")
        core.stickiness.heard_leader()
        core.prevote.cancel()
        self._stamps[node.id] = message["stamp"]
        core.leader_commit = max(core.leader_commit, message["commit_index"])
        return True

    def _new_part(self, message: Message) -> Message:
        """H1: the message without what this log holds already."""
        journal = self._core.journal
        message = self._from_first_kept(message)
        previous, entries = message["prevLogIdx"], message["entries"]
        if not journal.matches(previous, message["prevLogTerm"]):
            self._note_conflict(previous)
            return message
        known = 0
        while known < len(entries) and journal.matches(entries[known][1], entries[known][2]):
            known += 1
        if known == len(entries):
            return self._nothing_new(message, previous + known)
        self._check_truncation(previous + known + 1)
        term = entries[known - 1][2] if known else message["prevLogTerm"]
        place = {"prevLogIdx": previous + known, "prevLogTerm": term}
        return {**message, **place, "entries": entries[known:]}

    def _nothing_new(self, message: Message, verified: int) -> Message:
        """All is here and perhaps more: keep it, but claim and commit only what was verified."""
        journal = self._core.journal
        self._verified = verified
        place = {"prevLogIdx": journal.last_index, "prevLogTerm": journal.last_term}
        commit = min(message["commit_index"], verified)
        return {**message, **place, "entries": [], "commit_index": commit}

    def _from_first_kept(self, message: Message) -> Message:
        """Entries that were trimmed here are applied, so the leader's are the same: skip them."""
        first = self._core.journal[0]
        if message["prevLogIdx"] >= first[1]:
            return message
        rest = [entry for entry in message["entries"] if entry[1] > first[1]]
        return {**message, "prevLogIdx": first[1], "prevLogTerm": first[2], "entries": rest}

    def _note_conflict(self, previous: int) -> None:
        """Go back a whole term at once, as the leader lacks all of it or some."""
        core = self._core
        if core.journal.entry(previous) is not None:
            oldest = core.journal.first_of_term(previous)
            self._conflict = max(oldest, core.raftCommitIndex + 1)

    def _check_truncation(self, index: int) -> None:
        core = self._core
        if index <= core.raftLastApplied and core.journal.entry(index) is not None:
            core.env.fatal(f"the leader's entry {index} differs from the one applied here")

    def _without_place(self, message: Message) -> Message:
        """H3: a heartbeat as pysyncobj takes one, unable to commit what was not verified."""
        commit = min(message["commit_index"], self._core.raftCommitIndex)
        return {
            "type": "append_entries",
            "term": message["term"],
            "commit_index": commit,
            "serialized": None,
        }

    def _acknowledge_life(self, node: NumberedNode) -> None:
        """Neither success nor failure: this follower is there and busy installing."""
        nothing = {"next_node_idx": 0, "reset": False, "success": False}
        self.send(node, {"type": "next_node_idx", **nothing})

    def _on_snapshot(self, node: NumberedNode, message: Message) -> None:
        """The leader has no entries old enough. True unless a late reply misled it."""
        if not self._heard_leader(node, message):
            return
        core = self._core
        self._deliver(node, self._without_place(message))
        if core.installing:
            self._acknowledge_life(node)
        elif core.raftCommitIndex >= message["first"]:
            place = {"next_node_idx": core.raftCommitIndex + 1, "reset": False, "success": True}
            self.send(node, {"type": "next_node_idx", **place})
        else:
            core.host.fetch_snapshot(node.id)
            self._acknowledge_life(node)

    # -- incoming: acknowledgements

    def _on_next_node_idx(self, node: NumberedNode, message: Message) -> None:
        core = self._core
        if not core.is_leader() or not self._of_this_term(message) or node not in core.otherNodes:
            return
        if message["next_node_idx"] > core.journal.last_index + 1:
            log.error("%s: master %d claims entries beyond the log", core.env.name, node.id)
            return
        core.lease.echoed(node.id, message["stamp"])
        before = core.next_index(node)
        if message["reset"]:
            message["next_node_idx"] = self._lowered(message["next_node_idx"], before)
        self._deliver(node, message)
        self._after_acknowledgement(node, message, before)

    def _of_this_term(self, message: Message) -> bool:
        """H2."""
        return bool(message["term"] == self._core.raftCurrentTerm)

    def _lowered(self, asked: int, before: int) -> int:
        """H19."""
        return min(asked, before)

    def _after_acknowledgement(self, node: NumberedNode, message: Message, before: int) -> None:
        """H1: pysyncobj moves the next index back on each success and sends all again."""
        window = self._windows.get(node.id)
        if message["success"]:
            self._core.set_next_index(node, max(before, self._core.next_index(node)))
            if window is not None:
                window.acknowledged(message["next_node_idx"])
        elif message["reset"] and window is not None:
            window.clear()

    # -- incoming: elections

    def _sticky(self) -> bool:
        """H10."""
        core = self._core
        return core.has_lease() if core.is_leader() else core.stickiness.holds()

    def _on_request_vote(self, node: NumberedNode, message: Message) -> Message | None:
        core = self._core
        if not core.may_vote() or node not in core.otherNodes:
            return None
        if message["term"] < core.raftCurrentTerm:
            self.post(node.id, {"type": "stale", "term": core.raftCurrentTerm})
            return None
        return None if not message["force"] and self._sticky() else message

    def _on_response_vote(self, node: NumberedNode, message: Message) -> Message | None:
        return message if self._counts(node) else None

    def _counts(self, node: NumberedNode) -> bool:
        """H9."""
        if node not in self._core.otherNodes or node.id in self._voters:
            return False
        self._voters[node.id] = None
        return True

    def _on_prevote(self, node: NumberedNode, message: Message) -> None:
        core, term = self._core, message["term"]
        if not core.may_vote() or node not in core.otherNodes:
            return
        if term <= core.raftCurrentTerm:
            self.post(node.id, {"type": "stale", "term": core.raftCurrentTerm})
            return
        candidate = (message["last_log_term"], message["last_log_index"])
        up_to_date = candidate >= (core.journal.last_term, core.journal.last_index)
        if up_to_date and not core.is_leader() and not self._sticky():
            self.post(node.id, {"type": "prevote_ok", "term": term})

    def _on_prevote_ok(self, node: NumberedNode, message: Message) -> None:
        if node in self._core.otherNodes:
            self._core.prevote.supported(node.id, message["term"])

    def _on_stale(self, node: NumberedNode, message: Message) -> Message | None:
        """H12: pysyncobj steps down for a vote request of a higher term; nobody gets the vote."""
        if message["term"] <= self._core.raftCurrentTerm:
            return None
        return {
            "type": "request_vote",
            "term": message["term"],
            "last_log_term": -1,
            "last_log_index": 0,
        }

    def _on_timeout_now(self, node: NumberedNode, message: Message) -> Message | None:
        core = self._core
        if node != core.leader_node() or message["term"] != core.raftCurrentTerm:
            return None
        core.prevote.force()
        return message


class Window:
    """How much a follower has been sent and has not acknowledged, bounded."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._sent: list[tuple[int, int]] = []  # last index and size of each message
        self._bytes = 0

    @property
    def full(self) -> bool:
        return self._bytes >= self._limit_bytes

    def take(self, entries: list[Entry]) -> bool:
        """Whether these may be sent now; then they count."""
        if self.full:
            return False
        size = sum(len(entry[0]) for entry in entries)
        self._sent.append((entries[-1][1], size))
        self._bytes += size
        return True

    def acknowledged(self, next_index: int) -> None:
        kept = [item for item in self._sent if item[0] >= next_index]
        self._bytes, self._sent = sum(size for _, size in kept), kept

    def clear(self) -> None:
        self._sent, self._bytes = [], 0
