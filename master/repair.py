"""The repair queue: keeps as many replicas of every chunk as it should have, where they should be.

Once an interval it judges all replica sets (`repair_queue`) and looks for the chunks concerned;
those of which it is known that members have not what they should are looked at one by one. It works
on them class by class: endangered, under-replicated, draining, misplaced, then surplus; and,
when nothing waits, evening out the servers' use. Each piece of work is one step (`repair_plan`,
`repair_steps`), after which the chunk is judged again. Chunks that are not settled are left to
`settling` first.

Bounds: copies per server and in all, bytes per second (`repair_pace`), chunks in the queue and in
work; a chunk that fails rests for a time that doubles. Volatile: a new leader begins anew, from the
replicated state alone.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf

import trio

from dfs.config import MasterLimits
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES, CHUNK_BYTES
from dfs.messages.chunks import ReplicaState
from dfs.runtime import Env
from master.fleet import Fleet, FleetWatch, ServerView
from master.outflows import Outflows
from master.raft import RaftNode
from master.repair_pace import Pace
from master.repair_plan import (
    Copy,
    Needs,
    Pause,
    Remove,
    RepairClass,
    Shift,
    classify,
    find_shift,
    is_taken,
    may_shift,
    plan,
)
from master.repair_queue import Assessment, Departures, RepairQueue, Resting, judge, set_key
from master.repair_steps import RepairSteps
from master.replica_notes import ReplicaNotes
from master.settling import Settling
from master.state import queries
from master.state.records import Chunk
from master.tables import Tables

log = logging.getLogger(__name__)

NS = 1_000_000_000
SLICES = 4  # of the walk between two looks at what else is to do
BUSY_S = 0.02  # pause between them
UNBOUNDED = 1 << 30
FRUITLESS_MAX = 5  # doublings
UNSEEN_AT_ONCE = 128
UNSEEN_S = 0.25  # between two looks at such
SETS_AT_ONCE = 512  # judged without letting other tasks run


@dataclass(slots=True)
class Job:
    """One step under way."""

    kind: RepairClass
    step: Copy | Remove
    size_bytes: int


class Repair:
    """The leader's repair of the whole cluster."""

    def __init__(
        self,
        env: Env,
        raft: RaftNode,
        tables: Tables,
        notes: ReplicaNotes,
        settling: Settling,
        steps: RepairSteps,
        fleet: FleetWatch,
        limits: MasterLimits,
    ) -> None:
        self._env, self._raft, self._tables = env, raft, tables
        self._notes, self._settling, self._steps = notes, settling, steps
        self._fleet, self._limits = fleet, limits
        self.pace = Pace(limits)
        self.assessment = Assessment()
        self.running: dict[int, Job] = {}
        self._queue = RepairQueue(tables, limits.repair_queue)
        self._resting = Resting(limits)
        self._leaving = Departures(limits)
        self._unseen: deque[int] = deque()  # chunks to be looked at that the walk sees nothing of
        self._sizes = (0, 0)  # chunks seen, their bytes
        self._outflows = Outflows(tables, limits)
        self._assessed_at = 0.0
        self._walk_at = 0.0  # when to begin another walk, or go on with one
        self._found, self._fruitless = False, 0  # work was begun; walks without any, in turn
        self._leads_since = 0.0
        self._wake = trio.Event()
        self._leadership: trio.CancelScope | None = None
        settling.on_changed = self.look_at

    # -- what the rest of the leader says and asks

    def restart(self) -> None:
        """A leadership begins or ends."""
        self._leads_since = self._now()
        self.pace.restart(self._leads_since)
        self.assessment, self.running, self._sizes = Assessment(), {}, (0, 0)
        self._queue.clear()
        self._resting.clear()
        self._leaving.clear()
        self._unseen.clear()
        self._outflows.clear()
        self._assessed_at = self._walk_at = 0.0
        self._found, self._fruitless = False, 0
        if self._leadership is not None:
            self._leadership.cancel()

    def wake(self) -> None:
        """Something has changed that may make work: judge anew."""
        self._assessed_at = self._walk_at = 0.0
        self._fruitless = 0
        self._resting.end(self._now())
        self._wake.set()

    def look_at(self, handle: int) -> None:
        """This chunk's replicas have changed, in a way that its set does not show."""
        self._resting.changed(handle, self._now())
        if self._notes.of(handle) or self._leaving.of(handle, self._now()):
            self._enqueue(handle, self.views())

    def move_away(self, handle: int, servers: tuple[int, ...], *, hurried: bool = False) -> bool:
        """The chunk should leave these servers; whether that is noted (there is a bound)."""
        noted = self._leaving.note(handle, servers, self._now(), hurried=hurried)
        if noted:
            self._enqueue(handle, self.views())
        return noted

    def mean_size_bytes(self) -> int:
        """Of the chunks that were looked at."""
        chunks, total = self._sizes
        return total // chunks if chunks else CHUNK_BYTES

    def leaving(self) -> int:
        """How many chunks are to be moved away from somewhere."""
        return len(self._leaving)

    def views(self, copies: Mapping[int, int] | None = None) -> Fleet:
        """The servers, as they will be when what is under way is done."""
        return self._fleet.views(copies or {}, self._moved_bytes())

    def copies(self) -> dict[int, int]:
        """Copies under way, by server."""
        counts: dict[int, int] = {}
        for job in self.running.values():
            if isinstance(job.step, Copy):
                for server in (job.step.target, job.step.sources[0]):
                    counts[server] = counts.get(server, 0) + 1
        return counts

    # -- the loop

    async def run(self) -> None:
        """Work for as long as this master lives."""
        while True:
            with trio.CancelScope() as self._leadership:
                async with trio.open_nursery() as nursery:
                    while True:
                        self._wake = trio.Event()
                        pause_s = self._limits.repair_interval_s
                        if self._settling.may_work():
                            pause_s = await self._round(nursery)
                        await self._env.clock.wait(self._wake, pause_s)

    async def _round(self, nursery: trio.Nursery) -> float:
        """Judge, look for chunks, begin work; how long to pause."""
        now, interval_s = self._now(), self._limits.repair_interval_s
        if now - self._assessed_at >= interval_s:
            self._outflows.age(now)
            for view in self._fleet.views({}, {}).values():
                if not view.ready:
                    self.pace.forget(view.id)
            await self._assess()
            self._assessed_at = now
        walking = bool(self.assessment.actionable) and now >= self._walk_at
        if walking and len(self._queue) < self._limits.repair_changes_at_once:
            await self._walk()
        self._look_at_unseen()
        self._start_jobs(nursery)
        if walking and self._walk_at <= now:
            return BUSY_S
        return min(interval_s, UNSEEN_S) if self._unseen else interval_s

    async def _assess(self) -> None:
        fleet, assessment = self.views(), Assessment()
        sets = list(queries.replica_sets(self._tables))
        for begin in range(0, len(sets), SETS_AT_ONCE):
            for wanted, servers, chunks in sets[begin : begin + SETS_AT_ONCE]:
                judge(assessment, wanted, servers, chunks, fleet)
            await trio.lowlevel.checkpoint()
        if assessment.actionable != self.assessment.actionable:
            self._walk_at, self._fruitless = 0.0, 0
        self.assessment = assessment

    async def _walk(self) -> None:
        """Look for chunks to work on, some slices at a time.

        A whole walk during which nothing was begun is repeated after a pause that doubles: what
        there is to be done rests, or waits for somebody.
        """
        for _ in range(SLICES):
            if self._queue.walk(self._limits.repair_scan_chunks, self._visit):
                self._fruitless = 0 if self._found else min(self._fruitless + 1, FRUITLESS_MAX)
                pause_s = self._limits.repair_interval_s * 2.0**self._fruitless
                self._walk_at, self._found = self._now() + pause_s, False
                return
            await trio.lowlevel.checkpoint()

    def _visit(self, chunk: Chunk) -> None:
        kind = self.assessment.actionable.get(set_key(chunk))
        if kind is not None and self._is_free(chunk.handle, kind):
            self._queue.add(kind, chunk.handle)

    def _look_at_unseen(self) -> None:
        """Go over the chunks of which more is known than their sets show, some at a time."""
        fleet = self.views()
        for _ in range(min(len(self._unseen), UNSEEN_AT_ONCE)):
            self._enqueue(self._unseen.popleft(), fleet)
        if not self._unseen:
            self._unseen.extend(self._notes.chunks())
            self._unseen.extend(self._leaving.chunks())

    def _is_free(self, handle: int, kind: RepairClass) -> bool:
        rests = self._resting.rests(handle, kind, self._now())
        return handle not in self.running and not rests

    def _enqueue(self, handle: int, fleet: Fleet) -> None:
        """Queue a single chunk if something is to be done for it."""
        found = self._find(handle)
        kind = self._judge(found[0], self._needs(*found), fleet) if found is not None else None
        if kind is None:
            self._leaving.forget(handle)
        elif self._is_free(handle, kind) and self._queue.add(kind, handle):
            self._wake.set()

    def _judge(self, chunk: Chunk, needs: Needs, fleet: Fleet) -> RepairClass | None:
        """The class of a single chunk."""
        kind = classify(needs, fleet)
        hurried = kind is not None and self._leaving.is_hurried(chunk.handle, self._now())
        return RepairClass.ENDANGERED if hurried else kind

    # -- one chunk

    def _find(self, handle: int) -> tuple[Chunk, int] | None:
        """The chunk and about how many bytes it has."""
        found = queries.chunk_by_handle(self._tables, handle)
        if found is None:
            return None
        inode = queries.find_inode(self._tables, found[0])
        end = inode.size_bytes if inode is not None else 0
        size = max(BLOCK_BYTES, min(CHUNK_BYTES, end - found[1] * CHUNK_BYTES))
        self._sizes = (self._sizes[0] + 1, self._sizes[1] + size)
        return found[2], size

    def _needs(self, chunk: Chunk, size_bytes: int) -> Needs:
        missing, behind = [], []
        for server, note in self._notes.of(chunk.handle).items():
            if note.version == 0 or note.state == ReplicaState.JOINING:
                missing.append(server)
            elif note.version != chunk.version or note.state == ReplicaState.LOST:
                behind.append(server)
        leaving = self._leaving.of(chunk.handle, self._now())
        return Needs(
            chunk.wanted,
            chunk.servers,
            size_bytes,
            missing=missing if not chunk.fresh else (),
            behind=behind,
            # Who has left may come back; `repair_rejoin_s` has it that this is not at once.
            leaving=[s for s in leaving if s in chunk.servers],
            avoid=self._resting.avoided(chunk.handle),
        )

    def _dropped(self, handle: int, fleet: Fleet) -> dict[int, float]:
        """Servers that were replicas of the chunk and still have theirs: how many s ago.

        A time in the future, of a wall clock that was wrong, is taken for one of long ago.
        """
        now_ns = self._env.clock.wall_ns()
        noted = {s: queries.deletion_noted(self._tables, s, handle) for s in fleet}
        ages_s = {s: (now_ns - at) / NS for s, at in noted.items() if at is not None}
        return {s: age_s if age_s >= 0 else inf for s, age_s in ages_s.items()}

    def _plan(
        self, kind: RepairClass, needs: Needs, handle: int, fleet: Fleet
    ) -> Copy | Remove | Pause | None:
        """The next step, minding servers that were dropped a moment ago.

        Whoever dropped one knew why: for `repair_rejoin_s` it is not taken back. Then it is rather
        brought up to date than another copy made, and waited for as a dead member would be. An
        endangered chunk waits for nobody.
        """
        limits, dropped = self._limits, self._dropped(handle, fleet)
        recent = [s for s, age_s in dropped.items() if age_s < limits.repair_rejoin_s]
        away = [s for s, age_s in dropped.items() if self._is_awaited(fleet[s], age_s)]
        if kind == RepairClass.UNDER_REPLICATED and (recent or away):
            return Pause.LATER
        needs = replace(needs, stale=tuple(dropped))
        spared = replace(needs, avoid=(*needs.avoid, *recent))
        step = plan(spared, fleet, limits.copies_per_server)
        anybody = replace(needs, avoid=())
        step = step or plan(anybody, fleet, limits.copies_per_server)
        if step is None and plan(anybody, fleet, UNBOUNDED) is not None:
            return Pause.BUSY
        return step

    def _is_awaited(self, view: ServerView, age_s: float) -> bool:
        """Whether a server whose replica was dropped that long ago should come back first."""
        soon = not view.ready and age_s < self._limits.repair_grace_s
        return not view.lost and (view.excused or soon)

    # -- beginning work

    def _start_jobs(self, nursery: trio.Nursery) -> None:
        for kind in RepairClass:
            while len(self.running) < self._limits.repair_changes_at_once:
                handle = self._queue.pop(kind)
                if handle is None:
                    break
                if not self._start(nursery, kind, handle):
                    self._queue.put_back(kind, handle)
                    break
        if not self._queue and not self.assessment.possible:
            self._even_out(nursery)

    def _start(self, nursery: trio.Nursery, kind: RepairClass, handle: int) -> bool:
        """Begin the chunk's next step, if it has one; False when it has to wait for its turn."""
        found, now, limits = self._find(handle), self._now(), self._limits
        if found is None or not self._is_free(handle, kind):
            return True
        chunk, size = found
        if not self._settling.is_settled(handle, chunk.version):
            self._resting.until_settled(handle, kind, now, limits.repair_interval_s / 4)
            return True
        fleet, needs = self.views(self.copies()), self._needs(chunk, size)
        judged = self._judge(chunk, needs, fleet)
        if judged is None:  # somebody else has seen to it, or nobody who has it is here
            self._resting.forget(handle)
            return True
        kind = judged
        step = self._plan(kind, needs, handle, fleet)
        if step is Pause.BUSY:
            return False
        if step is Pause.LATER:
            self._resting.pause(handle, kind, now, limits.repair_interval_s)
            return True
        if step is None:
            self._resting.failed(handle, kind, now)
            return True
        if isinstance(step, Copy) and not self._has_slot(self._limits.repair_copies_at_once):
            return False
        self._begin(nursery, Job(kind, step, size), chunk)
        return True

    def _has_slot(self, limit: int) -> bool:
        return sum(isinstance(job.step, Copy) for job in self.running.values()) < limit

    def _begin(self, nursery: trio.Nursery, job: Job, chunk: Chunk) -> None:
        self.running[chunk.handle], self._found = job, True
        nursery.start_soon(self._work, job, chunk)

    async def _work(self, job: Job, chunk: Chunk) -> None:
        handle = chunk.handle
        try:
            if await self._carry_out(job, chunk):
                self._resting.forget(handle)
            else:
                self._rest_after(job, handle, overtaken=isinstance(job.step, Remove))
        except Failure as error:
            self._failed(chunk, job, error)
        finally:
            if self.running.get(handle) is job:
                del self.running[handle]
        self._enqueue(handle, self.views())
        self._wake.set()

    def _failed(self, chunk: Chunk, job: Job, error: Failure) -> None:
        overtaken = error.code is Code.STALE_VERSION or self._was_overtaken(chunk, job.step)
        level = logging.INFO if overtaken else logging.WARNING
        text = "%s: repair of chunk %x (%s) failed: %s"
        log.log(level, text, self._env.name, chunk.handle, job.kind.label, error.message)
        self._rest_after(job, chunk.handle, overtaken=overtaken)

    def _was_overtaken(self, chunk: Chunk, step: Copy | Remove) -> bool:
        """Whether somebody else has changed the set: what was planned for the old one is moot."""
        found = queries.chunk_by_handle(self._tables, chunk.handle)
        if found is None:
            return True
        return found[2].version != chunk.version and not is_taken(step, found[2].servers)

    def _rest_after(self, job: Job, handle: int, *, overtaken: bool) -> None:
        if overtaken:
            shorter = 4 if job.kind == RepairClass.ENDANGERED else 1
            pause_s = self._limits.repair_interval_s / shorter
            self._resting.pause(handle, job.kind, self._now(), pause_s)
        else:
            avoid = job.step.target if isinstance(job.step, Copy) else None
            self._resting.failed(handle, job.kind, self._now(), avoid)

    async def _carry_out(self, job: Job, chunk: Chunk) -> bool:
        step = job.step
        if isinstance(step, Remove):
            done = await self._steps.remove(chunk, step)
            if done:
                self._outflows.note(chunk.handle, step.servers, job.size_bytes)
                self._log_done(chunk, job, f"without chunkserver {_list(step.servers)}")
            return done
        rate = self._rate_of_one(job)
        done = await self._steps.copy(chunk, step, job.size_bytes, rate)
        if done:
            self.pace.copied(self._now(), job.size_bytes)
            self._log_done(chunk, job, f"copied to chunkserver {step.target}")
        return done

    def _log_done(self, chunk: Chunk, job: Job, what: str) -> None:
        log.info("%s: chunk %x %s (%s)", self._env.name, chunk.handle, what, job.kind.label)

    def _rate_of_one(self, job: Job) -> int:
        """What one copy may take, when as many run as may."""
        allowed = self.pace.allowed(endangered=job.kind == RepairClass.ENDANGERED)
        slots = self._limits.repair_copies_at_once
        ready = sum(v.ready for v in self.views().values())
        slots = min(slots, max(1, ready * self._limits.copies_per_server // 2))
        if job.kind == RepairClass.REBALANCING:
            slots = self._limits.rebalance_copies_at_once
            bound = self._limits.rebalance_bytes_per_s
            allowed = min(allowed, bound) if allowed else bound
        return max(BLOCK_BYTES, allowed // slots) if allowed else 0

    # -- evening out

    def _even_out(self, nursery: trio.Nursery) -> None:
        """Move chunks from the fullest server to the emptiest, unless all are about as full.

        Not before what an earlier leader may have moved shows in the servers' figures.
        """
        settled_s = self._limits.deletion_grace_s + self._limits.server_timeout_s
        if self._now() - self._leads_since < settled_s:
            return
        while self._has_slot(self._limits.rebalance_copies_at_once):
            fleet = self.views(self.copies())
            shift = find_shift(fleet, self.mean_size_bytes(), self._limits.rebalance_band)
            if shift is None or not self._shift_one(nursery, shift, fleet):
                return

    def _shift_one(self, nursery: trio.Nursery, shift: Shift, fleet: Fleet) -> bool:
        """Find a chunk to be moved so, in the next slices of the walk; whether one was."""
        found: list[int] = []

        def visit(chunk: Chunk) -> None:
            needs = Needs(chunk.wanted, chunk.servers, CHUNK_BYTES)
            free = not found and self._is_free(chunk.handle, RepairClass.REBALANCING)
            if free and may_shift(shift, needs, fleet):
                found.append(chunk.handle)

        self._queue.walk(self._limits.repair_scan_chunks, visit)
        chosen = self._find(found[0]) if found else None
        if chosen is None:
            return False
        chunk, size = chosen
        step = Copy(shift.target, tuple(s for s in chunk.servers if fleet[s].ready))
        if not step.sources or not self._settling.is_settled(chunk.handle, chunk.version):
            return False
        self._begin(nursery, Job(RepairClass.REBALANCING, step, size), chunk)
        return True

    def _moved_bytes(self) -> dict[int, int]:
        """How much more each server will have than it says: copies under way, deletions to come."""
        moved = self._outflows.by_server()
        for job in self.running.values():
            if isinstance(job.step, Copy):
                target = job.step.target
                moved[target] = moved.get(target, 0) + job.size_bytes
        return moved

    def _now(self) -> float:
        return self._env.clock.boottime()


def _list(servers: Iterable[int]) -> str:
    return ", ".join(map(str, servers))
