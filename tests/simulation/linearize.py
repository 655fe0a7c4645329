"""Is a history linearizable? Each operation must seem to happen at one instant between its begin
and its end (Herlihy and Wing 1990), and an open one at any time after its begin, or never.

The check goes through the history in time and keeps every configuration that is still possible: a
state of the model, and which of the pending operations have happened already (the search of Wing
and Gong, with Lowe's memory of configurations, in its just-in-time form). When an operation ends,
configurations in which it cannot have happened with its answer die. When all die, it is the first
operation that no order explains: the history up to its end is the shortest that is wrong.

Of two configurations of one state, the one in which fewer open operations have happened can do all
that the other can, so the other is dropped: many clients may die, and the search stays small.

The effort is bounded. A history that needs more is undecided, which the caller has to count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tests.simulation.history import Op

State = TypeVar("State", bound=Hashable)

# Possible states after an operation with the answer that it has, none if that cannot be; of an open
# operation with whatever answer.
Step = Callable[[State, Op], Iterable[State]]
EFFORT_MAX = 300_000  # configurations explored; some microseconds each
SHOWN_MAX = 12
Configuration = tuple[State, frozenset[int]]


@dataclass(frozen=True)
class Verdict(Generic[State]):
    """`stuck`: the first operation that cannot be explained.

    `settled` had ended before it did, in that order; `concurrent` were pending with it; `states`
    are those that were possible just before.
    """

    stuck: Op | None = None
    settled: tuple[Op, ...] = ()
    concurrent: tuple[Op, ...] = ()
    states: tuple[State, ...] = ()
    undecided: bool = False
    effort: int = 0

    @property
    def holds(self) -> bool:
        """Whether it was shown to be linearizable."""
        return self.stuck is None and not self.undecided

    def concerned(self, related: Callable[[Op, Op], bool]) -> list[Op]:
        """What a person wants to see: the last operations that matter to the stuck one, in time."""
        if self.stuck is None:
            return []
        stuck = self.stuck
        before = [op for op in self.settled if related(op, stuck)][-SHOWN_MAX:]
        others = [op for op in self.concurrent if op is not stuck]
        return [*sorted([*before, *others], key=lambda op: op.number), stuck]


def check(
    ops: Sequence[Op], initial: State, step: Step[State], *, effort_max: int = EFFORT_MAX
) -> Verdict[State]:
    """Whether the operations are linearizable from the initial state."""
    never_end = frozenset(op.number for op in ops if op.is_open)
    search = _Search(initial, step, never_end, effort_max)
    settled: list[Op] = []
    for ends, op in _events(ops):
        if not ends:
            search.begin(op)
            continue
        before = search.states()
        search.end(op)
        if search.is_exhausted:
            return Verdict(undecided=True, effort=search.effort)
        if search.is_stuck:
            concurrent = search.pending()
            return Verdict(op, tuple(settled), concurrent, before, effort=search.effort)
        settled.append(op)
    return Verdict(effort=search.effort)


def parts(ops: Iterable[Op], key: Callable[[Op], Hashable]) -> list[list[Op]]:
    """The operations by the object that they work on, in the order of first use.

    Linearizability is local: a history is linearizable if and only if those of its objects are.
    """
    found: dict[Hashable, list[Op]] = {}
    for op in ops:
        found.setdefault(key(op), []).append(op)
    return list(found.values())


def _events(ops: Sequence[Op]) -> Iterator[tuple[bool, Op]]:
    """(is it an end, operation) in the order of time; begins before ends at one instant."""
    events = [(op.began_s, 0, op.number, op) for op in ops]
    events += [(op.ended_s, 1, op.number, op) for op in ops if not op.is_open]
    for _, kind, _, op in sorted(events, key=lambda event: event[:3]):
        yield kind == 1, op


class _Found(Generic[State]):
    """Configurations, without those that one found before can replace (see the module).

    Sets in the order of discovery: dictionaries, so that no run depends on hashing.
    """

    def __init__(self, never_end: frozenset[int]) -> None:
        self._never_end = never_end
        self._spent: dict[Configuration[State], list[frozenset[int]]] = {}

    def add(self, state: State, done: frozenset[int]) -> bool:
        """Whether it brings anything new."""
        spent = done & self._never_end
        rivals = self._spent.setdefault((state, done - spent), [])
        if any(rival <= spent for rival in rivals):
            return False
        rivals[:] = [rival for rival in rivals if not spent <= rival]
        rivals.append(spent)
        return True

    def all(self) -> list[Configuration[State]]:
        return [(state, done | s) for (state, done), spent in self._spent.items() for s in spent]


class _Search(Generic[State]):
    """All configurations that explain the history so far."""

    def __init__(
        self, initial: State, step: Step[State], never_end: frozenset[int], effort_max: int
    ) -> None:
        self._step, self._never_end, self._effort_max = step, never_end, effort_max
        self._pending: dict[int, Op] = {}
        self._live: list[Configuration[State]] = [(initial, frozenset())]
        self.effort = 0

    @property
    def is_exhausted(self) -> bool:
        return self.effort > self._effort_max

    @property
    def is_stuck(self) -> bool:
        return not self._live

    def pending(self) -> tuple[Op, ...]:
        return tuple(self._pending.values())

    def states(self) -> tuple[State, ...]:
        return tuple(dict.fromkeys(state for state, _ in self._live))

    def begin(self, op: Op) -> None:
        self._pending[op.number] = op

    def end(self, op: Op) -> None:
        """Keep the configurations in which it has happened."""
        survivors, seen = _Found[State](self._never_end), _Found[State](self._never_end)
        waiting = deque(self._live)  # those of few steps first, which replace the others
        for state, done in self._live:
            seen.add(state, done)
        while waiting and not self.is_exhausted:
            self.effort += 1
            state, done = waiting.popleft()
            if op.number in done:
                survivors.add(state, done - {op.number})
                continue
            for reached in self._successors(state, done):
                if seen.add(*reached):
                    waiting.append(reached)
        self._live = survivors.all()
        if self._live:
            del self._pending[op.number]

    def _successors(self, state: State, done: frozenset[int]) -> Iterator[Configuration[State]]:
        """What may happen next: any of the pending operations."""
        for number, op in self._pending.items():
            if number not in done:
                for after in self._step(state, op):
                    if after != state or number not in self._never_end:
                        yield after, done | {number}
