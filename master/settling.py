"""The leader's settling of chunks: after every change of a set, after crashes, after damage.

One entry per chunk that needs it. Each attempt looks at the replicated state and at what is known
of the replicas (`replica_notes`), decides (`settle_plan`), commits the next version if it has to,
and orders the source to make the others equal to itself. Volatile: a new leader learns from the
full reports what is left to do.

**When a version must be raised first.** An order may be given under the chunk's present version
only while nobody serves that version yet, and repeated only with the same source, which is the
first of the version's set: otherwise two sources could have two replicas serve one version with
different contents. Everything else gets the next version by `ChangeReplicas`, which applies to
exactly the version it was decided on, so that a client's `DropReplicas` and a settling never both
win.

Bounds: `settles_at_once` orders at a time, `settles_per_server` per source; those that a client
waits for go first and do not count. What fails is tried again after a time that doubles.
"""

from __future__ import annotations

import errno
import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio

from dfs.config import MasterLimits
from dfs.errors import Code, Failure
from dfs.messages.cluster import SettleChunk, Settled
from dfs.messages.common import Refused
from dfs.runtime import Env
from master.chunkservers import Chunkservers
from master.commands import ChangeReplicas, ReplicaChange
from master.raft import RaftNode
from master.replica_notes import MISSING, Note, ReplicaNotes
from master.settle_plan import FAILURES_MAX, Member, Order, Patience, Wait, decide
from master.state import queries
from master.state.records import Chunk
from master.tables import Tables

log = logging.getLogger(__name__)

IDLE_S = 0.25  # the lease may come or go unnoticed for so long

# The member named, or else the source itself, did not do its part.
_MEMBER_FAILED = (
    Code.CHAIN_BROKEN,
    Code.DISK,
    Code.CORRUPT,
    Code.TIMEOUT,
    Code.CONNECTION_LOST,
    Code.UNAUTHENTICATED,
)


@dataclass(slots=True, eq=False)
class Entry:
    """One chunk that is being settled."""

    handle: int
    since: float  # boottime of the need
    unserved: int = 0  # nobody serves this version before it is settled; 0: somebody may
    suspected: int = 0  # the version whose replicas may differ although each is in order
    served: int = 0  # the version that was settled last
    source: int | None = None  # of the order under way
    lost: bool = False  # the loss is counted already
    failures: dict[int, int] = field(default_factory=dict)  # server -> in turn
    full: dict[int, None] = field(
        default_factory=dict
    )  # servers without room for the source's data
    attempts: int = 0  # that failed, in turn
    rounds: int = 0  # that left somebody out, in turn
    urgent: bool = False  # a client waits
    queued: bool = False
    again: bool = False  # once the running attempt has ended
    due: float = 0.0  # boottime of the next attempt, when it is not queued
    scope: trio.CancelScope | None = None  # of the attempt under way
    settled: trio.Event = field(default_factory=trio.Event)


class Settling:
    """All chunks that need to be settled."""

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
        self._patience = Patience(limits.settle_wait_s, limits.lost_wait_s)
        self._entries: dict[int, Entry] = {}
        self._running: dict[int, Entry] = {}
        self._urgent: deque[Entry] = deque()
        self._ready: deque[Entry] = deque()
        self._delayed: list[tuple[float, int, Entry]] = []
        self._counter = 0
        self._wake = trio.Event()
        self._leadership: trio.CancelScope | None = None
        self.copied_bytes = 0
        self.on_changed: Callable[[int], None] = _ignore  # of a chunk whose replicas have changed

    # -- what the rest of the leader says and asks

    def forget_all(self) -> None:
        """A leadership begins or ends."""
        for entry in self._entries.values():
            entry.settled.set()
        self._entries, self._running = {}, {}
        self._urgent.clear()
        self._ready.clear()
        self._delayed.clear()
        self._notes.clear()
        self.copied_bytes = 0
        if self._leadership is not None:
            self._leadership.cancel()

    def counts(self) -> tuple[int, int]:
        """How many chunks are to be settled, and how many of them just are."""
        return len(self._entries), len(self._running)

    def need(self, handle: int) -> None:
        """Replicas of the chunk are out of order, as their notes say."""
        self._schedule(self._enter(handle), 0.0)

    def suspect(self, handle: int, version: int) -> None:
        """The replicas of that version may differ; unless whoever saw it has it raised soon."""
        entry = self._enter(handle)
        if entry.unserved or entry.suspected >= version:
            return
        entry.suspected = version
        self._schedule(entry, self._limits.settle_wait_s)

    def changed(self, handle: int, version: int, *, urgent: bool = False) -> None:
        """A new replica set is committed; nobody serves this version before it is settled."""
        entry = self._enter(handle)
        if version <= max(entry.unserved, entry.served):
            return
        entry.unserved, entry.source, entry.attempts = version, None, 0
        entry.since = self._now()
        entry.urgent = entry.urgent or urgent
        if entry.settled.is_set():
            entry.settled = trio.Event()
        if entry.scope is not None:
            entry.scope.cancel()  # what it settles is of the past
        self._schedule(entry, 0.0)

    async def until_settled(self, handles: Iterable[int], timeout_s: float) -> bool:
        """Wait until the present versions of these chunks serve; whether that came in time."""
        events = [self._entries[h].settled for h in handles if h in self._entries]
        with self._env.clock.move_on_after(timeout_s) as scope:
            for event in events:
                await event.wait()
        return not scope.cancelled_caught

    def is_settled(self, handle: int, version: int) -> bool:
        """Whether that version of the chunk serves, as far as is known."""
        entry = self._entries.get(handle)
        return entry is None or entry.served == version

    def server_returned(self, server: int) -> None:
        """It was silent, and not for long enough to register anew: bring it up to date."""
        for handle in self._notes.on(server):
            self.need(handle)

    def server_reported(self, server: int) -> None:
        """It is here, as good as new: those who waited for it need wait no more."""
        for entry in self._entries.values():
            entry.failures.pop(server, None)
        for _, _, entry in list(self._delayed):
            if not entry.suspected:
                self._schedule(entry, 0.0)

    # -- the queue

    def _enter(self, handle: int) -> Entry:
        entry = self._entries.get(handle)
        if entry is None:
            entry = self._entries[handle] = Entry(handle, self._now())
        return entry

    def _finish(self, entry: Entry) -> None:
        if self._entries.get(entry.handle) is entry:
            del self._entries[entry.handle]
        entry.settled.set()
        if self._notes.of(entry.handle):
            self.on_changed(entry.handle)  # what is left is for repair to replace

    def _schedule(self, entry: Entry, delay_s: float) -> None:
        """Have the chunk looked at again then."""
        if entry.queued:
            return
        if delay_s > 0:
            entry.due = self._now() + delay_s
            self._counter += 1
            heapq.heappush(self._delayed, (entry.due, self._counter, entry))
        elif entry.handle in self._running:
            entry.again = True
        else:
            entry.queued = True
            (self._urgent if entry.urgent else self._ready).append(entry)
        self._wake.set()

    async def run(self) -> None:
        """Work for as long as this master lives."""
        while True:
            with trio.CancelScope() as self._leadership:
                async with trio.open_nursery() as nursery:
                    while True:
                        self._wake = trio.Event()
                        if self.may_work():
                            self._start_due(nursery)
                        await self._env.clock.wait(self._wake, self._pause_s())

    def may_work(self) -> bool:
        """While the cluster recovers, the chunk map is not the truth yet."""
        return self._raft.may_read() and not self._chunkservers.recovery.under_way()

    def _pause_s(self) -> float:
        if not self._delayed or not self.may_work():
            return IDLE_S
        return max(0.001, min(IDLE_S, self._delayed[0][0] - self._now()))

    def _start_due(self, nursery: trio.Nursery) -> None:
        now = self._now()
        while self._delayed and self._delayed[0][0] <= now:
            due, _, entry = heapq.heappop(self._delayed)
            if entry.due == due and self._entries.get(entry.handle) is entry:
                self._schedule(entry, 0.0)
        while self._urgent:
            self._start(nursery, self._urgent.popleft())
        while self._ready and len(self._running) < self._limits.settles_at_once:
            self._start(nursery, self._ready.popleft())

    def _start(self, nursery: trio.Nursery, entry: Entry) -> None:
        entry.queued, entry.due = False, 0.0
        if self._entries.get(entry.handle) is entry:
            self._running[entry.handle] = entry
            nursery.start_soon(self._work, entry)

    async def _work(self, entry: Entry) -> None:
        try:
            with trio.CancelScope() as entry.scope:
                await self._attempt(entry)
        except Failure as error:
            log.info("%s: settling chunk %x: %s", self._env.name, entry.handle, error.message)
            self._try_later(entry)
        finally:
            entry.scope = None
            if self._running.get(entry.handle) is entry:
                del self._running[entry.handle]
        if entry.again:
            entry.again = False
            if self._entries.get(entry.handle) is entry:
                self._schedule(entry, 0.0)
        self._wake.set()

    def _try_later(self, entry: Entry) -> None:
        entry.attempts += 1
        self._schedule(entry, self._backoff_s(entry.attempts))

    def _backoff_s(self, times: int) -> float:
        limits = self._limits
        doubled: float = limits.settle_retry_s * 2.0 ** min(times - 1, 30)
        return min(limits.settle_retry_max_s, doubled)

    # -- one attempt

    async def _attempt(self, entry: Entry) -> None:
        found = queries.chunk_by_handle(self._tables, entry.handle)
        if found is None:
            self._notes.drop_chunk(entry.handle)
            self._finish(entry)
            return
        chunk = found[2]
        self._drop_strangers(chunk)
        decision = decide(
            self._members(entry, chunk),
            fresh=chunk.fresh,
            least=min(self._limits.min_replicas, chunk.wanted),
            waited_s=self._now() - entry.since,
            patience=self._patience,
        )
        if decision is None or not self._is_needed(entry, chunk, decision):
            self._rest(entry, chunk.servers, chunk.version)
        elif isinstance(decision, Wait):
            self._wait(entry, chunk, decision)
        elif not entry.urgent and self._is_busy(decision.source):
            self._schedule(entry, self._limits.settle_retry_s)
        else:
            await self._settle(entry, chunk, decision)

    def _members(self, entry: Entry, chunk: Chunk) -> list[Member]:
        notes, returning = self._notes.of(chunk.handle), self._chunkservers.may_return()
        members = []
        for server in chunk.servers:
            live = self._chunkservers.connected(server)
            note = notes.get(server, Note(chunk.version))
            members.append(
                Member(
                    server,
                    alive=live is not None or returning,
                    reported=live is not None and live.reported,
                    version=note.version,
                    state=note.state,
                    damaged=note.damaged,
                    failures=entry.failures.get(server, 0),
                    ahead=note.version > chunk.version,
                    length_bytes=note.length_bytes,
                    full=server in entry.full,
                )
            )
        return members

    def _drop_strangers(self, chunk: Chunk) -> None:
        for server in list(self._notes.of(chunk.handle)):
            if server not in chunk.servers and not self._notes.is_copying(server, chunk.handle):
                self._notes.drop(chunk.handle, server)

    def _is_needed(self, entry: Entry, chunk: Chunk, decision: Order | Wait) -> bool:
        if chunk.version in (entry.unserved, entry.suspected):
            return True
        notes = self._notes.of(chunk.handle)
        if isinstance(decision, Wait):
            return bool(notes)
        leaving = len(decision.servers) < len(chunk.servers)
        return leaving or any(s in notes for s in (decision.source, *decision.chain))

    def _wait(self, entry: Entry, chunk: Chunk, decision: Wait) -> None:
        log.info(
            "%s: chunk %x (version %d on chunkservers %s) is not settled yet: %s",
            self._env.name,
            chunk.handle,
            chunk.version,
            ", ".join(map(str, chunk.servers)),
            decision.reason,
        )
        if entry.failures:  # nobody is left who has not failed: they are tried again before long
            entry.failures.clear()
            entry.attempts += 1
            self._schedule(entry, min(decision.seconds, self._backoff_s(entry.attempts)))
        else:
            self._schedule(entry, decision.seconds)

    def _is_busy(self, source: int) -> bool:
        orders = sum(e.source == source for e in self._running.values())
        return orders >= self._limits.settles_per_server

    async def _settle(self, entry: Entry, chunk: Chunk, order: Order) -> None:
        version = chunk.version
        if self._must_raise(entry, chunk, order):
            change = ReplicaChange(chunk.handle, version, order.servers, order.lost)
            if not await self._raise(entry, change):
                entry.again = True
                return
            version += 1
        entry.source = order.source
        message = SettleChunk(
            chunk.handle,
            version,
            tuple(map(self._address, order.chain)),
            tuple(map(self._address, order.joining)),
        )
        timeout_s = self._limits.settle_timeout_s
        try:
            answer = await self._chunkservers.order(order.source, message, timeout_s=timeout_s)
        except Failure as error:
            self._failed(entry, order, version, error)
        else:
            self._succeeded(entry, order, version, answer)

    def _must_raise(self, entry: Entry, chunk: Chunk, order: Order) -> bool:
        uncounted = order.lost and not entry.lost
        set_differs = order.servers != chunk.servers
        return entry.unserved != chunk.version or uncounted or set_differs

    async def _raise(self, entry: Entry, change: ReplicaChange) -> bool:
        """Commit the set with the next version; whether it applied. Raises Failure."""
        answer = await self._raft.propose(ChangeReplicas((change,)))
        if isinstance(answer, Refused):
            raise Failure(Code(answer.code), answer.message)
        found = queries.chunk_by_handle(self._tables, change.handle)
        if found is None:
            return False
        chunk = found[2]
        if (chunk.version, chunk.servers) != (change.version + 1, change.servers):
            return False
        if change.lost:
            text = "%s: chunk %x: every replica lost power; what was not synced may be gone"
            log.error(text, self._env.name, change.handle)
        entry.lost = entry.lost or change.lost
        entry.unserved, entry.source = chunk.version, None
        if entry.settled.is_set():
            entry.settled = trio.Event()
        self._drop_strangers(chunk)
        self.on_changed(change.handle)
        return True

    def _address(self, server: int) -> str:
        entry = queries.server_entry(self._tables, server)
        return "" if entry is None else entry[0]

    # -- what became of it

    def _succeeded(self, entry: Entry, order: Order, version: int, answer: Settled) -> None:
        log.info(
            "%s: chunk %x settled at version %d from chunkserver %d, %d bytes copied",
            self._env.name,
            entry.handle,
            version,
            order.source,
            answer.copied_bytes,
        )
        if answer.damaged:
            text = "%s: chunk %x: blocks are damaged in every replica that is here"
            log.error(text, self._env.name, entry.handle)
        self.copied_bytes += answer.copied_bytes
        for server in (order.source, *order.chain):
            self._notes.drop(entry.handle, server)
            entry.failures.pop(server, None)
        entry.served, entry.attempts, entry.urgent, entry.lost = version, 0, False, False
        entry.full.clear()
        if entry.unserved == version:
            entry.unserved, entry.source = 0, None
            entry.settled.set()
        self.on_changed(entry.handle)
        self._go_on(entry, order, version)

    def _go_on(self, entry: Entry, order: Order, version: int) -> None:
        """Whoever was left out is tried again: when it returns, or more and more seldom.

        One that failed and had to stay because there were too few leaves once others have joined:
        until then a writer would wait in vain for it to serve.
        """
        for server in order.left_out:
            if server not in self._notes.of(entry.handle):
                self._notes.put(entry.handle, server, Note(version - 1))
            entry.failures[server] = max(FAILURES_MAX - 1, entry.failures.get(server, 0))
        failed = any(entry.failures[s] >= FAILURES_MAX for s in order.left_out)
        if entry.unserved or entry.suspected >= version or (order.suffices and failed):
            entry.again = True
        else:
            self._rest(entry, order.servers, version)

    def _rest(self, entry: Entry, servers: Iterable[int], version: int) -> None:
        """Nothing is to be done now; whoever is here and behind is tried more and more seldom."""
        notes = self._notes.of(entry.handle)
        behind = [s for s in servers if s in notes and 0 < notes[s].version <= version]
        behind = [s for s in behind if self._chunkservers.connected(s) is not None]
        if not behind:
            self._finish(entry)
            return
        for server in behind:
            entry.failures[server] = min(entry.failures.get(server, 0), FAILURES_MAX - 1)
        entry.rounds += 1
        self._schedule(entry, self._backoff_s(entry.rounds + 3))

    def _failed(self, entry: Entry, order: Order, version: int, error: Failure) -> None:
        blamed = self._blamed(order, error)
        text = "%s: chunk %x not settled at version %d from chunkserver %d: %s"
        log.warning(text, self._env.name, entry.handle, version, order.source, error.message)
        if error.code is Code.NO_REPLICA and blamed not in order.joining:
            self._notes.put(entry.handle, blamed, MISSING)
            self.on_changed(entry.handle)
            entry.again = True
            return
        if blamed == order.source and self._chunkservers.connected(blamed) is None:
            entry.again = True  # it is gone; whether the others reach it is for them to find out
            return
        if error.errno == errno.ENOSPC and blamed in order.chain and blamed not in order.joining:
            # Nothing acknowledged is longer than what it has: let it be the source.
            entry.full = {blamed: None}
        elif error.errno == errno.EROFS and entry.failures.get(blamed, 0) < FAILURES_MAX:
            entry.failures[blamed] = FAILURES_MAX  # it will not do so a moment later either
            entry.again = True
            return
        elif error.code in _MEMBER_FAILED or error.code in (Code.NO_REPLICA, Code.STALE_VERSION):
            entry.failures[blamed] = entry.failures.get(blamed, 0) + 1
        self._try_later(entry)

    def _blamed(self, order: Order, error: Failure) -> int:
        for server in order.chain:
            if error.detail and self._address(server) == error.detail:
                return server
        return order.source

    def _now(self) -> float:
        return self._env.clock.boottime()


def _ignore(handle: int) -> None:
    pass
