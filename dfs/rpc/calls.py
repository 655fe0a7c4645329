"""The calling half of a connection: requests that wait for their answers.

Each call is a parked task, woken by the reader with its answer or failure, by the keeper at its
deadline, or by cancellation. Deadlines have no timer of their own: the connection's keeper sleeps
until the earliest, for hardly a call ever meets its deadline.

Invariant: an id is in the table exactly as long as its caller still waits, so whatever arrives for
an id that is not there is late and dropped.
"""

from __future__ import annotations

import math

import trio

from dfs.errors import Code, Failure
from dfs.rpc.exchange import Received
from dfs.rpc.outbox import Outgoing


class Call:
    """One request that waits for its answer."""

    __slots__ = ("deadline", "into", "outgoing", "result", "task", "what")

    def __init__(self, what: str, deadline: float, into: memoryview | None) -> None:
        self.what = what
        self.deadline = deadline
        self.into = into
        self.outgoing: Outgoing | None = None  # set unless the request was sent at once
        self.task: trio.lowlevel.Task | None = None  # set while parked
        self.result: Received | Failure | None = None

    def finish(self, result: Received | Failure) -> None:
        """Hand over the result. The table no longer knows the call."""
        self.result = result
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None


class Calls:
    """The outstanding calls of one connection, at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls: dict[int, Call] = {}
        self._slots = trio.lowlevel.ParkingLot()
        self._last_id = 0
        self._alarm = trio.Event()
        self._alarm_at = math.inf
        self._failure: Failure | None = None

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def crowded(self) -> bool:
        """Whether a new call has to queue for a slot."""
        return len(self._calls) >= self._limit or bool(self._slots)

    async def slot(self) -> None:
        """Wait for a slot, or for the connection's end; take it before anything else runs."""
        await self._slots.park()
        while len(self._calls) >= self._limit and self._failure is None:
            await self._slots.park()

    def begin(self, call: Call) -> int:
        """Enter a call; its request id. Raises the Failure that ended the connection."""
        if self._failure is not None:
            raise copy_of(self._failure)
        self._last_id += 1
        self._calls[self._last_id] = call
        if call.deadline < self._alarm_at:
            self._alarm.set()
        return self._last_id

    def find(self, request_id: int) -> Call | None:
        """The call that waits for this answer; None when it no longer waits.

        Raises Failure(BAD_MESSAGE) for an id that was never given out.
        """
        call = self._calls.get(request_id)
        if call is None and not 0 < request_id <= self._last_id:
            raise Failure(Code.BAD_MESSAGE, f"an answer to request {request_id}, never made")
        return call

    def end(self, request_id: int) -> Call | None:
        """Take a call out of the table: answered, cancelled or late. None when it was out."""
        call = self._calls.pop(request_id, None)
        if call is not None and self._slots:
            self._slots.unpark()
        return call

    def end_all(self, failure: Failure) -> None:
        """The connection is gone: every call fails at once, also those yet to be made."""
        self._failure = failure
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.finish(copy_of(failure))
        self._slots.unpark_all()
        self._alarm.set()

    def overdue(self, now: float) -> list[int]:
        """The ids whose deadline has passed."""
        return [i for i, call in self._calls.items() if call.deadline <= now]

    def set_alarm(self) -> tuple[trio.Event, float]:
        """The earliest deadline, and an event that is set when an earlier one appears."""
        self._alarm = trio.Event()
        self._alarm_at = min((c.deadline for c in self._calls.values()), default=math.inf)
        return self._alarm, self._alarm_at


def copy_of(failure: Failure) -> Failure:
    """A copy to raise: one exception raised in many tasks would mix up their tracebacks."""
    return Failure(failure.code, failure.message, errno=failure.errno, detail=failure.detail)
