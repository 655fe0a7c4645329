"""What waits to be repaired: how much there is of each class, and the chunks found so far.

The classes' sizes come from the replica sets that chunks have, of which there are few however many
chunks there are. The chunks themselves are found by walking through all of them, some at a time,
from a cursor; those of a set that something can be done for go into the bounded queue of their
class. Nothing here has to be remembered: what is dropped is found again on the next round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from dfs.config import MasterLimits
from dfs.layout import CHUNK_BYTES
from master.fleet import Fleet
from master.repair_plan import Needs, RepairClass, classify, is_unreadable, plan
from master.state import queries
from master.state.records import Chunk
from master.tables import Tables

SetKey = tuple[int, tuple[int, ...]]  # wanted, sorted servers


@dataclass(slots=True)
class Assessment:
    """All replica sets, judged at one moment."""

    counts: dict[RepairClass, int] = field(default_factory=dict)
    actionable: dict[SetKey, RepairClass] = field(default_factory=dict)
    possible: int = 0  # chunks of those sets
    unreadable: int = 0
    replicas: dict[int, int] = field(default_factory=dict)  # by server


def judge(
    assessment: Assessment, wanted: int, servers: tuple[int, ...], chunks: int, fleet: Fleet
) -> None:
    """Add one set, that so many chunks have. `fleet` is without copies under way."""
    for server in servers:
        assessment.replicas[server] = assessment.replicas.get(server, 0) + chunks
    needs = Needs(wanted, servers, CHUNK_BYTES)
    if is_unreadable(needs, fleet):
        assessment.unreadable += chunks
    kind = classify(needs, fleet)
    if kind is None:
        return
    assessment.counts[kind] = assessment.counts.get(kind, 0) + chunks
    if plan(needs, fleet, copies_per_server=1) is not None:
        assessment.actionable[wanted, servers] = kind
        assessment.possible += chunks


class RepairQueue:
    """The chunks that were found, by class, and the walk that finds them."""

    def __init__(self, tables: Tables, limit: int) -> None:
        self._tables, self._limit = tables, limit
        self._waiting: dict[RepairClass, deque[int]] = {kind: deque() for kind in RepairClass}
        self._queued: dict[int, None] = {}
        self._cursor = (0, 0)

    def clear(self) -> None:
        for waiting in self._waiting.values():
            waiting.clear()
        self._queued.clear()
        self._cursor = (0, 0)

    def __len__(self) -> int:
        return len(self._queued)

    def add(self, kind: RepairClass, handle: int) -> bool:
        """Whether the chunk waits now; not when it does already, or when too many do."""
        waiting = self._waiting[kind]
        if handle in self._queued or len(waiting) >= self._limit:
            return False
        waiting.append(handle)
        self._queued[handle] = None
        return True

    def pop(self, kind: RepairClass) -> int | None:
        """The chunk of that class that waits longest."""
        waiting = self._waiting[kind]
        if not waiting:
            return None
        handle = waiting.popleft()
        del self._queued[handle]
        return handle

    def put_back(self, kind: RepairClass, handle: int) -> None:
        """It could not be worked on now."""
        if handle not in self._queued:
            self._waiting[kind].appendleft(handle)
            self._queued[handle] = None

    def walk(self, limit: int, visit: Callable[[Chunk], None]) -> bool:
        """Visit the next `limit` chunks; whether the walk has come to its end and begins anew."""
        page = queries.chunks_after(self._tables, self._cursor, limit)
        for _, _, chunk in page:
            visit(chunk)
        ended = len(page) < limit
        self._cursor = (0, 0) if ended else page[-1][:2]
        return ended


def set_key(chunk: Chunk) -> SetKey:
    return chunk.wanted, tuple(sorted(chunk.servers))


@dataclass(slots=True)
class Rest:
    until: float  # boottime
    failures: int = 0
    avoid: tuple[int, ...] = ()  # who failed to take it


class Resting:
    """Chunks that are left alone for a while."""

    def __init__(self, limits: MasterLimits) -> None:
        self._limits = limits
        self._rests: dict[int, Rest] = {}

    def clear(self) -> None:
        self._rests.clear()

    def rests(self, handle: int, now: float) -> bool:
        rest = self._rests.get(handle)
        return rest is not None and rest.until > now

    def avoided(self, handle: int) -> tuple[int, ...]:
        rest = self._rests.get(handle)
        return () if rest is None else rest.avoid

    def pause(self, handle: int, until: float) -> None:
        """Look at the chunk again then; nothing went wrong."""
        self._rests.setdefault(handle, Rest(until)).until = until

    def failed(self, handle: int, now: float, avoid: int | None = None) -> None:
        """Leave it alone for a time that doubles; `avoid`: who failed to take it."""
        limits = self._limits
        if len(self._rests) >= 4 * limits.repair_queue:
            self._rests = {h: r for h, r in self._rests.items() if r.until > now}
        rest = self._rests.setdefault(handle, Rest(now))
        doubled = limits.repair_retry_s * 2.0 ** min(rest.failures, 20)
        rest.until = now + min(limits.repair_retry_max_s, doubled)
        rest.failures += 1
        if avoid is not None:
            rest.avoid = (*rest.avoid[-2:], avoid)

    def end(self, now: float) -> None:
        """Somebody is back: try all of them again, and go on doubling if that is in vain."""
        for rest in self._rests.values():
            rest.until = min(rest.until, now)

    def forget(self, handle: int) -> None:
        """All is well with it."""
        self._rests.pop(handle, None)
