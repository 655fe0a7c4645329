"""The leader's background duties: ended sessions, orphans, deleted replicas.

One task per master that sleeps while the master does not lead. Each pass does bounded work
(`reap_batch`) and runs again at once while there is more. An orphan is reaped only when every
session has said what it has open, none has it open, and that has been so for `reap_interval_s`: a
create whose answer is still on its way keeps its inode for that long. Once its reaping has begun
nobody may open it any more.
"""

from __future__ import annotations

import logging

import trio

from dfs.config import MasterLimits
from dfs.errors import Failure
from dfs.runtime import Env
from master.chunkservers import Chunkservers
from master.commands import EndSession, ReapOrphans
from master.deletions import Deletions
from master.raft import RaftNode
from master.replica_notes import ReplicaNotes
from master.sessions import LiveSessions
from master.state import queries
from master.tables import Tables

log = logging.getLogger(__name__)


class Janitor:
    """Carries out what the replicated state says is still to be done."""

    def __init__(
        self,
        env: Env,
        raft: RaftNode,
        tables: Tables,
        sessions: LiveSessions,
        chunkservers: Chunkservers,
        notes: ReplicaNotes,
        limits: MasterLimits,
    ) -> None:
        self._env, self._raft, self._tables = env, raft, tables
        self._sessions, self._chunkservers, self._limits = sessions, chunkservers, limits
        self._deletions = Deletions(env, raft, tables, chunkservers, notes, limits)
        self._wake = trio.Event()
        self._closed_since: dict[int, float] = {}  # orphan -> boottime
        self._reaping: frozenset[int] = frozenset()

    def restart(self) -> None:
        """A leadership begins."""
        self._deletions.restart()
        self._wake.set()

    def deletions_waiting(self) -> int:
        """How many replicas are to be deleted, as of the last look at all of them."""
        return self._deletions.waiting

    def wake(self) -> None:
        """There is, or may be, something to do."""
        self._wake.set()

    def is_reaping(self, inode: int) -> bool:
        """Whether the inode is on its way out and must not be opened any more."""
        return inode in self._reaping

    async def run(self) -> None:
        """Work for as long as this master lives."""
        while True:
            await self._rest()
            while self._raft.may_read() and await self._pass():
                await trio.lowlevel.checkpoint()  # a pass may only look, and others wait

    async def _rest(self) -> None:
        idle = self._limits.session_ttl_s
        if self._raft.is_leader():
            idle = min(self._limits.reap_interval_s, self._sessions.next_expiry(self._now()) + 0.01)
        await self._env.clock.wait(self._wake, max(idle, 0.01))
        self._wake = trio.Event()

    async def _pass(self) -> bool:
        """One round of every duty; whether more is waiting."""
        try:
            await self._expire_sessions()
            if self._chunkservers.recovery.under_way():
                return False  # what is to be deleted is not known for sure yet
            more = await self._reap()
            return await self._deletions.carry_out() or more
        except Failure as error:
            log.info("%s: housekeeping put off: %s", self._env.name, error)
            return False

    async def _expire_sessions(self) -> None:
        for session in self._sessions.expired(self._now()):
            text = "session %#x ended: not heard of for its time to live"
            log.warning(text, session, extra={"session": f"{session:x}"})
            await self._raft.propose(EndSession(session))
            self._sessions.end(session)

    async def _reap(self) -> bool:
        if not self._sessions.all_registered():
            return False
        batch = self._limits.reap_batch
        closed = self._closed_orphans(batch)
        now = self._now()
        self._closed_since = {i: self._closed_since.get(i, now) for i in closed}
        ripe_before = now - self._limits.reap_interval_s
        due = tuple(i for i, since in self._closed_since.items() if since <= ripe_before)
        # What one command did not finish is due again here, and so stays closed to everybody.
        self._reaping = frozenset(due)
        if not due:
            return False
        await self._raft.propose(ReapOrphans(due, batch))
        return True

    def _closed_orphans(self, limit: int) -> list[int]:
        """The first orphans that nobody has open, however many open ones stand before them."""
        found: list[int] = []
        page = queries.orphans(self._tables, limit)
        while page and len(found) < limit:
            found += [inode for inode in page if not self._sessions.is_open(inode)]
            page = queries.orphans(self._tables, limit, page[-1])
        return found[:limit]

    def _now(self) -> float:
        return self._env.clock.boottime()
