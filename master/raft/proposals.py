"""What clients ask to be committed: queued, packed into log entries, answered once applied.

Many proposals travel in one entry (a `CommandBatch`), bounded in bytes and number, and only so
many entries are on their way at once; proposals that come meanwhile make the next batch larger. The
queue is bounded too: beyond that `propose` is refused (OVERLOADED). A master that ceases to lead
answers all of them at once (H18): those in an entry may still be committed by the next leader, so
their outcome is unknown; those in the queue were never begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from dfs.config import Raft
from dfs.errors import Code, Failure
from dfs.rpc import codec
from master.commands import CommandBatch
from master.raft import formats

_BATCH_OVERHEAD_BYTES = 64
_COMMAND_OVERHEAD_BYTES = 5  # of each in msgpack


class Waiter:
    """One caller's place in the queue."""

    __slots__ = ("_answer", "_done", "_failure")

    def __init__(self) -> None:
        self._done = trio.Event()
        self._answer: object = None
        self._failure: Failure | None = None

    def answer(self, value: object) -> None:
        self._answer = value
        self._done.set()

    def fail(self, failure: Failure) -> None:
        self._failure = failure
        self._done.set()

    async def wait(self) -> Any:
        await self._done.wait()
        if self._failure is not None:
            raise self._failure
        return self._answer


class Proposals:
    """The queue, and the entries that carry what left it."""

    def __init__(self, limits: Raft) -> None:
        self._limits = limits
        self._queue: deque[tuple[bytes, Waiter]] = deque()
        self._in_flight: dict[int, tuple[int, list[Waiter]]] = {}  # index -> term, waiters

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, command: object) -> Waiter:
        """Queue a command. Raises Failure: BAD_MESSAGE when it is too large, or OVERLOADED."""
        encoded = codec.encode(command)
        if len(encoded) + _BATCH_OVERHEAD_BYTES > self._limits.max_command_bytes:
            text = f"a {type(command).__name__} of {len(encoded)} bytes is too large for the log"
            raise Failure(Code.BAD_MESSAGE, text)
        if len(self._queue) >= self._limits.max_pending:
            text = f"{len(self._queue)} proposals wait already"
            raise Failure(Code.OVERLOADED, text)
        waiter = Waiter()
        self._queue.append((encoded, waiter))
        return waiter

    def ready(self) -> bool:
        """Whether a batch may be begun."""
        return bool(self._queue) and len(self._in_flight) < self._limits.max_batches_in_flight

    def begin(self, append: Callable[[bytes], int], term: int, now_ns: int) -> None:
        """Begin as many entries as may be."""
        while self.ready():
            taken = self._take()
            batch = CommandBatch(now_ns, tuple(command for command, _ in taken))
            index = append(bytes([formats.COMMANDS]) + codec.encode(batch))
            self.expect(index, term, [waiter for _, waiter in taken])

    def _take(self) -> list[tuple[bytes, Waiter]]:
        taken: list[tuple[bytes, Waiter]] = []
        room = self._limits.max_command_bytes - _BATCH_OVERHEAD_BYTES
        while self._queue and len(taken) < self._limits.max_commands_per_batch:
            room -= len(self._queue[0][0]) + _COMMAND_OVERHEAD_BYTES
            if taken and room < 0:
                break
            taken.append(self._queue.popleft())
        return taken

    def expect(self, index: int, term: int, waiters: list[Waiter]) -> None:
        """The entry of that index, if it is of that term when applied, answers these."""
        self._in_flight[index] = (term, waiters)

    def applied(self, index: int, term: int, answers: list[Any]) -> None:
        """An entry was applied, with these answers, one for each of its commands."""
        expected = self._in_flight.pop(index, None)
        if expected is None:
            return
        if expected[0] != term:
            self._fail_unknown(expected[1])
            return
        for waiter, answer in zip(expected[1], answers, strict=True):
            waiter.answer(answer)

    def deposed(self, not_leader: Callable[[], Failure]) -> None:
        """This master does not lead any more: answer everybody (H18)."""
        for _, waiters in self._in_flight.values():
            self._fail_unknown(waiters)
        self._in_flight.clear()
        while self._queue:
            self._queue.popleft()[1].fail(not_leader())

    @staticmethod
    def _fail_unknown(waiters: list[Waiter]) -> None:
        for waiter in waiters:
            text = "the leader changed while the operation was being committed"
            waiter.fail(Failure(Code.OUTCOME_UNKNOWN, text))
