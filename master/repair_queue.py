"""What waits to be repaired: how much there is of each class, and the chunks found so far.

The classes' sizes come from the replica sets that chunks have, of which there are few however many
chunks there are. The chunks themselves are found by walking through all of them, some at a time,
from a cursor; those of a set that something can be done for go into the bounded queue of their
class. Nothing here has to be remembered: what is dropped is found again on the next round, by the
walk, or, where it is what members have that is wrong, by going over the notes (`repair`).
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
        self._queued: dict[int, RepairClass] = {}  # what it waits as; elsewhere it is out of date
        self._cursor = (0, 0)

    def clear(self) -> None:
        for waiting in self._waiting.values():
            waiting.clear()
        self._queued.clear()
        self._cursor = (0, 0)

    def __len__(self) -> int:
        return len(self._queued)

    def add(self, kind: RepairClass, handle: int) -> bool:
        """Whether the chunk waits anew; not when it does as that already, or when too many do."""
        waiting = self._waiting[kind]
        if self._queued.get(handle, kind + 1) <= kind or len(waiting) >= self._limit:
            return False
        waiting.append(handle)
        self._queued[handle] = kind
        return True

    def pop(self, kind: RepairClass) -> int | None:
        """The chunk of that class that waits longest."""
        waiting = self._waiting[kind]
        while waiting:
            handle = waiting.popleft()
            if self._queued.get(handle) == kind:
                del self._queued[handle]
                return handle
        return None

    def put_back(self, kind: RepairClass, handle: int) -> None:
        """It could not be worked on now."""
        if handle not in self._queued:
            self._waiting[kind].appendleft(handle)
            self._queued[handle] = kind

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
    kind: RepairClass  # what it rests as; for more urgent work it does not
    failures: int = 0
    avoid: tuple[int, ...] = ()  # who failed to take it
    unsettled: bool = False  # that is why


class Resting:
    """Chunks that are left alone for a while."""

    def __init__(self, limits: MasterLimits) -> None:
        self._limits = limits
        self._rests: dict[int, Rest] = {}
        self._many = 4 * limits.repair_queue

    def clear(self) -> None:
        self._rests.clear()

    def rests(self, handle: int, kind: RepairClass, now: float) -> bool:
        rest = self._rests.get(handle)
        return rest is not None and rest.until > now and kind >= rest.kind

    def avoided(self, handle: int) -> tuple[int, ...]:
        rest = self._rests.get(handle)
        return () if rest is None else rest.avoid

    def pause(self, handle: int, kind: RepairClass, now: float, for_s: float) -> None:
        """Look at the chunk again then; nothing went wrong."""
        self._rest(handle, kind, now).until = now + for_s

    def until_settled(self, handle: int, kind: RepairClass, now: float, for_s: float) -> None:
        """Look at the chunk again when its replicas have changed, and then at the latest."""
        rest = self._rest(handle, kind, now)
        rest.until, rest.unsettled = now + for_s, True

    def changed(self, handle: int, now: float) -> None:
        """End a rest `until_settled`."""
        rest = self._rests.get(handle)
        if rest is not None and rest.unsettled:
            rest.until = now

    def failed(self, handle: int, kind: RepairClass, now: float, avoid: int | None = None) -> None:
        """Leave it alone for a time that doubles; `avoid`: who failed to take it."""
        limits, rest = self._limits, self._rest(handle, kind, now)
        hurried = kind == RepairClass.ENDANGERED
        first_s = limits.repair_interval_s if hurried else limits.repair_retry_s
        doubled = first_s * 2.0 ** min(rest.failures, 20)
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

    def _rest(self, handle: int, kind: RepairClass, now: float) -> Rest:
        if len(self._rests) >= self._many:
            self._rests = {h: r for h, r in self._rests.items() if r.until > now}
            self._many = max(4 * self._limits.repair_queue, 2 * len(self._rests))
        rest = self._rests.setdefault(handle, Rest(now, kind))
        rest.kind, rest.unsettled = kind, False
        return rest


@dataclass(slots=True)
class Departure:
    servers: tuple[int, ...]
    until: float  # boottime
    hurried: bool


class Departures:
    """Chunks that are to leave servers although nothing is said of these as a whole.

    Forgotten after a while: whoever said it says it again, if it still holds.
    """

    def __init__(self, limits: MasterLimits) -> None:
        self._limits = limits
        self._noted: dict[int, Departure] = {}

    def clear(self) -> None:
        self._noted.clear()

    def __len__(self) -> int:
        return len(self._noted)

    def note(self, handle: int, servers: tuple[int, ...], now: float, *, hurried: bool) -> bool:
        """Whether that is noted; there is a bound."""
        if len(self._noted) >= self._limits.repair_queue and handle not in self._noted:
            self._noted = {h: d for h, d in self._noted.items() if d.until > now}
            if len(self._noted) >= self._limits.repair_queue:
                return False
        until = now + self._limits.repair_retry_max_s
        self._noted[handle] = Departure(servers, until, hurried)
        return True

    def chunks(self) -> list[int]:
        """Those that are noted."""
        return list(self._noted)

    def of(self, handle: int, now: float) -> tuple[int, ...]:
        """The servers that it is to leave."""
        noted = self._noted.get(handle)
        return noted.servers if noted is not None and noted.until > now else ()

    def is_hurried(self, handle: int, now: float) -> bool:
        """Whether it is to leave them at once."""
        noted = self._noted.get(handle)
        return noted is not None and noted.until > now and noted.hurried

    def forget(self, handle: int) -> None:
        """It has left them, or is gone."""
        self._noted.pop(handle, None)
