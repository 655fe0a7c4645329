"""The client's session: what it has open, and its changes, each carried out exactly once (C3).

Owns the session's id, the sequence numbers and the open counts. An operation gets its number when
it is first sent and keeps it over every retry. What waits while a `Submit` is in flight goes
out together in the next one. A caller that is cancelled stops waiting, nothing else: the operation
is driven to its end here.

A session that the masters no longer know is replaced by a new one. Open files are lost with it
(`on_lost`); operations that were never in doubt are sent again under the new session, the others
fail with NO_SESSION (ESTALE), since whether they were applied can no longer be known.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from dfs.client.leader import Attempts, Leader
from dfs.client.meter import ClientMeter
from dfs.config import ClientLimits, Rpc
from dfs.errors import Code, Failure
from dfs.layout import ROOT_INODE
from dfs.messages.common import Attributes, Done, Refused
from dfs.messages.metadata import (
    Answer,
    CloseInode,
    CloseSession,
    Numbered,
    OpenInode,
    OpenSession,
    RegisterOpens,
    SessionOpened,
    Submit,
    Submitted,
)
from dfs.messages.operations import Create, Operation
from dfs.rpc import Connection
from dfs.rpc.codec import encode
from dfs.rpc.retry import Backoff
from dfs.runtime import Env

log = logging.getLogger(__name__)

KEEP_ALIVE_FRACTION = 0.25  # of the session's time to live, between two signs of life


@dataclass(slots=True)
class _Numbers:
    """The sequence numbers of one session."""

    following: int = 1
    unanswered: dict[int, None] = field(default_factory=dict)  # in rising order

    def take(self) -> int:
        sequence = self.following
        self.following += 1
        self.unanswered[sequence] = None
        return sequence

    def answered_below(self) -> int:
        return next(iter(self.unanswered), self.following)


@dataclass(slots=True, eq=False)
class _Pending:
    """One operation between `perform` and its answer."""

    operation: Operation
    size_bytes: int
    give_up_at: float
    done: trio.Event = field(default_factory=trio.Event)
    answer: Answer | None = None
    failure: Failure | None = None
    numbers: _Numbers | None = None  # None: not sent yet
    sequence: int = 0
    doubtful: bool = False
    abandoned: bool = False


class Session:
    """One client's session: `open` it, and run `keep` as long as it is used."""

    def __init__(
        self,
        env: Env,
        leader: Leader,
        limits: ClientLimits,
        rpc: Rpc,
        description: str,
        meter: ClientMeter,
    ) -> None:
        self._env, self._leader, self._limits, self._rpc = env, leader, limits, rpc
        self._description, self._meter = description, meter
        self._nursery: trio.Nursery | None = None
        self.id = 0  # 0: none yet, or lost
        self.root_inode = ROOT_INODE
        self._ttl_s = 0.0
        self._opens: dict[int, int] = {}  # inode -> handles
        self._numbers = _Numbers()
        self._waiting: deque[_Pending] = deque()
        self._submits = 0
        self.on_lost: Callable[[], None] = lambda: None
        leader.introduce = self._introduce

    async def open(self, nursery: trio.Nursery) -> None:
        """Begin; the nursery is for what goes on behind. Raises Failure."""
        self._nursery = nursery
        await self._leader.ready()

    async def keep(self) -> None:
        """Keep the session alive until cancelled."""
        while True:
            await self._env.clock.sleep(self._ttl_s * KEEP_ALIVE_FRACTION)
            await self._keep_alive()
            await self._learn_masters()

    async def end(self) -> None:
        """Tell the leader that the session is over; if that cannot be told, it expires."""
        if not self.id:
            return
        try:
            patience_s = self._limits.metadata_timeout_s
            message = CloseSession(self.id)
            await self._leader.ask(lambda: message, Done, retry_for_s=patience_s)
        except Failure as failure:
            log.warning("%s: session not closed: %s", self._env.name, failure.message)

    # -- open inodes

    async def open_inode(self, inode: int) -> Attributes:
        """Count one more handle and register it with the leader. ENOENT when it is gone.

        The count comes first, so that a new leader hears of it whatever becomes of the request.
        """
        self._opens[inode] = self._opens.get(inode, 0) + 1
        try:
            return await self._register_open(inode)
        except BaseException:
            self.close_inode(inode)
            raise

    async def _register_open(self, inode: int) -> Attributes:
        session = self.id
        try:
            return await self._leader.ask(lambda: OpenInode(self.id, inode), Attributes)
        except Failure as failure:
            if failure.code is not Code.NO_SESSION:
                raise
            self.lose(session)
            self._opens.setdefault(inode, 1)
            return await self._leader.ask(lambda: OpenInode(self.id, inode), Attributes)

    def close_inode(self, inode: int) -> None:
        """One handle less; the leader hears of the last one."""
        left = self._opens.get(inode, 0) - 1
        if left > 0:
            self._opens[inode] = left
        elif self._opens.pop(inode, 0):
            self._leader.notify(CloseInode(self.id, inode))

    # -- changes

    async def perform(self, operation: Operation, *, keep_open: bool = False) -> Answer:
        """Carry out one change. Raises Failure when it is refused.

        The leader notes a created file as open; `keep_open` leaves that handle to the caller.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        began = self._env.clock.monotonic()
        pending = _Pending(operation, len(encode(operation)), self._give_up_at())
        self._waiting.append(pending)
        self._send_waiting()
        try:
            await pending.done.wait()
        except trio.Cancelled:
            self._abandon(pending)
            raise
        took_s = self._env.clock.monotonic() - began
        self._meter.operations[type(operation).__name__].observe(took_s)
        if pending.failure is not None:
            raise pending.failure
        answer = pending.answer
        assert answer is not None
        if isinstance(operation, Create) and isinstance(answer, Attributes) and not keep_open:
            self.close_inode(answer.inode)
        return answer

    def _give_up_at(self) -> float:
        return self._env.clock.monotonic() + self._limits.retry_for_s

    def _abandon(self, pending: _Pending) -> None:
        pending.abandoned = True
        if pending.numbers is None and pending in self._waiting:
            self._waiting.remove(pending)  # never sent: it is as if it had not been asked for
        elif pending.done.is_set():
            self._release_created(pending)

    def _release_created(self, pending: _Pending) -> None:
        if isinstance(pending.operation, Create) and isinstance(pending.answer, Attributes):
            self.close_inode(pending.answer.inode)

    def _send_waiting(self) -> None:
        assert self._nursery is not None, "the session is not open"
        while self._waiting and self._submits < self._limits.submits_in_flight:
            batch = self._next_batch()
            if not batch:
                return
            self._submits += 1
            self._nursery.start_soon(self._submit, batch)

    def _next_batch(self) -> list[_Pending]:
        """What goes into the next Submit; nothing while too many numbers are unanswered."""
        numbers = self._numbers
        room = self._limits.sequence_window - (numbers.following - numbers.answered_below())
        batch: list[_Pending] = []
        size_bytes = 0
        while self._waiting and len(batch) < self._limits.max_in_flight:
            pending = self._waiting[0]
            if not pending.sequence and len(batch) >= room:
                break
            size_bytes += pending.size_bytes
            if batch and size_bytes > self._limits.submit_bytes:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _submit(self, batch: list[_Pending]) -> None:
        attempts, session = Attempts(), self.id
        try:
            if not session:
                await self._leader.ready()
                session = self.id
            message = self._numbered(session, batch)
            submitted = await self._leader.ask(lambda: message, Submitted, attempts=attempts)
        except Failure as failure:
            if failure.code is Code.NO_SESSION:
                self.lose(session)
            self._not_submitted(batch, failure, doubtful=attempts.doubtful > 0)
        else:
            self._take_answers(batch, submitted, doubtful=attempts.doubtful > 0)
        finally:
            self._submits -= 1
        self._send_waiting()

    def _numbered(self, session: int, batch: list[_Pending]) -> Submit:
        for pending in batch:
            if pending.numbers is not self._numbers:
                pending.numbers, pending.sequence = self._numbers, self._numbers.take()
        operations = tuple(Numbered(p.sequence, p.operation) for p in batch)
        return Submit(session, self._numbers.answered_below(), operations)

    def _not_submitted(self, batch: list[_Pending], failure: Failure, *, doubtful: bool) -> None:
        for pending in reversed(batch):
            pending.doubtful |= doubtful
            if failure.code is Code.NO_SESSION and not pending.doubtful:
                self._answered(pending)
                pending.numbers, pending.sequence = None, 0
                self._waiting.appendleft(pending)
            else:
                self._settle(pending, None, failure)

    def _take_answers(self, batch: list[_Pending], submitted: Submitted, *, doubtful: bool) -> None:
        """Settle what is answered; what is refused for now goes again under its number."""
        again: list[_Pending] = []
        now = self._env.clock.monotonic()
        for pending, answer in zip(batch, submitted.answers, strict=True):
            pending.doubtful |= doubtful
            if not isinstance(answer, Refused):
                self._settle(pending, answer, None)
                continue
            failure = Failure(
                Code(answer.code), answer.message, errno=answer.errno, detail=answer.detail
            )
            if failure.retryable and now < pending.give_up_at and not pending.abandoned:
                again.append(pending)
            else:
                self._settle(pending, None, failure)
        if again:
            assert self._nursery is not None
            self._nursery.start_soon(self._send_again, again)

    async def _send_again(self, batch: list[_Pending]) -> None:
        await Backoff(self._env, self._rpc).wait()
        self._waiting.extendleft(reversed(batch))
        self._send_waiting()

    def _settle(self, pending: _Pending, answer: Answer | None, failure: Failure | None) -> None:
        self._answered(pending)
        pending.answer, pending.failure = answer, failure
        if isinstance(pending.operation, Create) and isinstance(answer, Attributes):
            self._opens[answer.inode] = self._opens.get(answer.inode, 0) + 1
            if pending.abandoned:
                self._release_created(pending)
        pending.done.set()

    def _answered(self, pending: _Pending) -> None:
        if pending.numbers is not None:
            pending.numbers.unanswered.pop(pending.sequence, None)

    # -- beginning and losing the session

    async def _introduce(self, connection: Connection) -> None:
        """Tell a leader, before anything else, who we are and what we have open."""
        timeout_s = self._limits.metadata_timeout_s
        if self.id:
            session = self.id
            try:
                message = RegisterOpens(session, tuple(self._opens))
                await connection.call(message, timeout_s=timeout_s)
                return
            except Failure as failure:
                if failure.code is not Code.NO_SESSION:
                    raise
                self.lose(session)
        opened = (
            await connection.call(OpenSession(self._description), timeout_s=timeout_s)
        ).message
        assert isinstance(opened, SessionOpened)
        self.id, self._ttl_s, self.root_inode = opened.session, opened.ttl_s, opened.root_inode
        self._numbers = _Numbers()
        extra = {"session": f"{self.id:x}"}
        master = connection.peer.address
        log.info("%s: session %#x with %s", self._env.name, self.id, master, extra=extra)

    def lose(self, session: int) -> None:
        """The masters do not know that session any more."""
        if session != self.id or not session:
            return
        text, extra = (
            "%s: session %#x has expired: files open are lost",
            {"session": f"{session:x}"},
        )
        log.error(text, self._env.name, session, extra=extra)
        self._meter.lost_sessions += 1
        self.id = 0
        self._opens.clear()
        self._leader.forget_introduction()
        self.on_lost()

    async def _learn_masters(self) -> None:
        try:
            await self._leader.learn_masters()
        except Failure as failure:
            # Asked again before long; that no leader answers, the sign of life tells.
            log.debug("%s: who the masters are: %s", self._env.name, failure.message)

    async def _keep_alive(self) -> None:
        """Registering the open inodes is the sign of life.

        A master that lost the leadership and won it back has forgotten them, and nothing else
        tells us of it.
        """
        session = self.id
        try:
            await self._leader.ask(lambda: RegisterOpens(self.id, tuple(self._opens)), Done)
        except Failure as failure:
            if failure.code is Code.NO_SESSION:
                self.lose(session)
            else:
                log.warning("%s: session not kept alive: %s", self._env.name, failure.message)
