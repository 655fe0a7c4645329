"""Changes that operators ask of the leader: masters added and removed, leadership handed over.

Each waits for what it needs (a link to the new master, a successor that has the whole log), then
acts within the node's loop, between two flushes. Members change one at a time (H8). While
leadership is being handed over, proposals wait in the queue; the lease is given up, for the rest
of the term, before the successor is told, since its election does not wait for it to run out. If
the successor does not come forward, this leader's term ends all the same.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dfs.errors import Code, Failure
from master.raft import formats
from master.raft.core import Core
from master.raft.formats import Member
from master.raft.proposals import Waiter

if TYPE_CHECKING:
    from master.raft.node import RaftNode


class Changes:
    """The leader's side of them."""

    def __init__(self, node: RaftNode) -> None:
        self._node = node
        self.handing_over = False

    async def add(self, id: int, address: str) -> None:
        """Make that running master, which has an empty disk, a member.

        Raises Failure: NOT_LEADER, CONFIG when the id was ever used, UNAVAILABLE when it does not
        answer or another change is under way.
        """
        node = self._node
        core = node.serving_core()
        core.membership.check_change(formats.ADD, Member(id, address, b""))
        node.guests[id] = address
        patience_s = node.limits.link_timeout_s / 2  # whoever asks waits no longer than 2 s
        try:
            if not await node.until(partial(node.is_reachable, id), patience_s):
                raise Failure(Code.UNAVAILABLE, f"master {id} at {address} does not answer")
            link = node.links.get(id)
            assert link is not None
            await self._change(formats.ADD, Member(id, address, link.nonce))
        finally:
            node.guests.pop(id, None)

    async def remove(self, id: int) -> None:
        """Take a member out. A leader that is to remove itself hands over first.

        Raises Failure: NOT_LEADER (also after handing over: ask again there), CONFIG when there is
        no such member or it is the last, UNAVAILABLE when another change is under way.
        """
        node = self._node
        core, member = node.serving_core(), Member(id, "", b"", False)
        core.membership.check_change(formats.REMOVE, member)
        if id == node.id:
            await self.transfer(0)
            await node.until(lambda: node.leader_id() != 0, node.limits.election_timeout_max_s)
            raise node.not_leader()
        await self._change(formats.REMOVE, member)
        node.links.send(id, {"type": "removed"})

    async def transfer(self, id: int) -> None:
        """Hand leadership over to that master (0: the one with the most of the log).

        Raises Failure: NOT_LEADER, UNAVAILABLE when it cannot be done.
        """
        node = self._node
        core, patience_s = node.serving_core(), node.limits.election_timeout_max_s
        target = self._successor(core, id)
        self.handing_over = True
        try:
            if not await node.until(partial(self._has_all, core, target), patience_s):
                raise Failure(Code.UNAVAILABLE, f"master {target} lags behind")
            await node.request(partial(self._hand_over, core, target))
            if not await node.until(lambda: not node.is_leader(), patience_s):
                await node.request(core.step_down)
                raise Failure(Code.UNAVAILABLE, f"master {target} did not take over")
        finally:
            self.handing_over = False

    async def _change(self, verb: str, member: Member) -> None:
        waiter = Waiter()
        await self._node.request(partial(self._begin_change, verb, member, waiter))
        await waiter.wait()

    def _begin_change(self, verb: str, member: Member, waiter: Waiter) -> None:
        core = self._node.serving_core()
        core.membership.check_change(verb, member)
        index = core.begin_change(verb, member)
        if index is None:
            raise Failure(Code.UNAVAILABLE, "another change of membership is under way")
        self._node.proposals.expect(index, core.raftCurrentTerm, [waiter])
        core.replicate()

    def _successor(self, core: Core, id: int) -> int:
        candidates = [p for p in self._node.links.up() if p in core.membership.present]
        if id:
            candidates = [peer for peer in candidates if peer == id]
        if not candidates:
            raise Failure(Code.UNAVAILABLE, f"master {id or ''} cannot take over: not reachable")
        return max(candidates, key=lambda peer: (core.match_index(peer), -peer))

    def _has_all(self, core: Core, target: int) -> bool:
        return not core.is_leader() or core.match_index(target) == core.journal.last_index

    def _hand_over(self, core: Core, target: int) -> None:
        if core.is_leader():
            core.lease.give_up()
            self._node.links.send(target, {"type": "timeout_now", "term": core.raftCurrentTerm})
