"""Deleting the replicas that no chunk needs any more, once their grace is over.

The replicated state notes every such replica with the time (`deletions`). It stays where it is for
`deletion_grace_s`, and for as long as the chunk lacks replicas: its server may join the chunk again
and only be brought up to date. A master that was cut off meanwhile, and still believes in it, has
noticed that it does not lead. Then a leader with a valid lease has the server delete it, in batches
of `reap_batch`, and forgets the note. A server that is nearly full waits only for
`deletion_grace_full_s`: whoever deletes files to make room should not have to wait for it.

The notes' times are of the wall clocks of leaders, which may be wrong, and be set. What this
leader's has been set forward since it began to lead does not count; a note from the future says
nothing, and its grace is counted from when this leader first saw it.

Each server's notes are walked by a cursor, so a pass costs what it looks at; having seen them all
and none due, it rests until the oldest is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from dfs.config import MasterLimits
from dfs.runtime import Env
from master.chunkservers import Chunkservers, LiveServer
from master.commands import ForgetDeletions
from master.raft import RaftNode
from master.replica_notes import ReplicaNotes
from master.state import queries
from master.tables import Tables

NS = 1_000_000_000
AHEAD_MAX = 4096  # notes from the future that are remembered; the others wait for a place


@dataclass(slots=True)
class Walk:
    """How far the walk through one server's notes is."""

    after: int = 0  # the handle seen last
    seen: int = 0
    oldest_ns: int = 0  # of those seen and kept; 0: none
    rest_from: float = 0.0  # boottime
    rest_until: float = 0.0  # boottime
    counted: int = 0  # by the last whole walk


class Deletions:
    """Carries deletions out."""

    def __init__(
        self,
        env: Env,
        raft: RaftNode,
        tables: Tables,
        chunkservers: Chunkservers,
        notes: ReplicaNotes,
        limits: MasterLimits,
    ) -> None:
        self._env, self._raft, self._tables = env, raft, tables
        self._chunkservers, self._notes, self._limits = chunkservers, notes, limits
        self._walks: dict[int, Walk] = {}
        # Server and handle of notes from the future -> when they were seen first, boottime.
        self._ahead: dict[tuple[int, int], float] = {}
        self._wall_of_boot_ns = self._offset_ns()

    def restart(self) -> None:
        """A leadership begins."""
        self._walks.clear()
        self._ahead.clear()
        self._wall_of_boot_ns = self._offset_ns()

    @property
    def waiting(self) -> int:
        return sum(max(walk.counted, walk.seen) for walk in self._walks.values())

    async def carry_out(self) -> bool:
        """One step for every server that is alive; whether more can be done at once."""
        more = False
        for server in self._chunkservers.alive():
            if self._raft.may_read():
                walk = self._walks.setdefault(server.id, Walk())
                more = await self._step(server, walk) or more
        return more

    def _grace_s(self, server: LiveServer) -> float:
        limits = self._limits
        full = server.free_bytes < limits.nearly_full_fraction * server.total_bytes
        return min(limits.deletion_grace_s, limits.deletion_grace_full_s if full else inf)

    async def _step(self, live: LiveServer, walk: Walk) -> bool:
        server, grace_s = live.id, self._grace_s(live)
        if self._env.clock.boottime() < min(walk.rest_until, walk.rest_from + grace_s):
            return False
        batch = self._limits.reap_batch
        page = queries.deletions(self._tables, server, batch, walk.after)
        due = self._due(server, page, walk, grace_s)
        if due and not await self._chunkservers.delete_replicas(server, due):
            self._walks[server] = Walk(counted=walk.counted)
            return False
        if due:
            await self._raft.propose(ForgetDeletions(server, due))
            for handle in due:
                self._ahead.pop((server, handle), None)
        if len(page) == batch:
            walk.after = page[-1][0]
            return True
        now = self._env.clock.boottime()
        rest_until = self._rest_until(walk, grace_s)
        self._walks[server] = Walk(counted=walk.seen, rest_from=now, rest_until=rest_until)
        return False

    def _due(
        self, server: int, page: tuple[tuple[int, int], ...], walk: Walk, grace_s: float
    ) -> tuple[int, ...]:
        """Those whose grace is over."""
        if len(self._ahead) >= AHEAD_MAX:
            self._forget_taken_back(grace_s)
        due = []
        for handle, noted_ns in page:
            if self._notes.is_copying(server, handle) or self._may_join_again(handle):
                walk.seen += 1
            elif self._is_over(server, handle, noted_ns, grace_s):
                due.append(handle)
            else:
                walk.seen += 1
                walk.oldest_ns = min(walk.oldest_ns or noted_ns, noted_ns)
        return tuple(due)

    def _is_over(self, server: int, handle: int, noted_ns: int, grace_s: float) -> bool:
        now, place, now_ns = self._env.clock.boottime(), (server, handle), self._now_ns()
        if noted_ns <= now_ns:
            self._ahead.pop(place, None)
            return noted_ns + int(grace_s * NS) <= now_ns
        if place not in self._ahead and len(self._ahead) < AHEAD_MAX:
            self._ahead[place] = now
        return now - self._ahead.get(place, inf) >= grace_s

    def _forget_taken_back(self, grace_s: float) -> None:
        """Make room: notes that are not carried out long after their grace are there no more."""
        since = self._env.clock.boottime() - 2 * grace_s
        self._ahead = {place: at for place, at in self._ahead.items() if at > since}

    def _now_ns(self) -> int:
        """The wall clock, without what it has been set forward since this leader began."""
        passed_ns = int(self._env.clock.boottime() * NS)
        return min(self._env.clock.wall_ns(), self._wall_of_boot_ns + passed_ns)

    def _offset_ns(self) -> int:
        return self._env.clock.wall_ns() - int(self._env.clock.boottime() * NS)

    def _may_join_again(self, handle: int) -> bool:
        """Whether the chunk lacks replicas: bringing this one up to date is the least work."""
        found = queries.chunk_by_handle(self._tables, handle)
        return found is not None and len(found[2].servers) < found[2].wanted

    def _rest_until(self, walk: Walk, grace_s: float) -> float:
        """Until when nothing becomes due of what was seen, or is noted from now on.

        No longer than a grace, whatever becomes of the wall clock meanwhile.
        """
        age_s = max(0.0, (self._now_ns() - walk.oldest_ns) / NS)
        left_s = grace_s - (age_s if walk.oldest_ns else 0.0)
        return self._env.clock.boottime() + max(0.0, left_s)
