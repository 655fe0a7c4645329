"""The answering half of a connection: requests to handlers, and what they return to the peer.

A handler is called in the reader task, in the order of arrival. What it returns goes out at once;
when that is an awaitable, it runs in a task of its own. Bounds: `max_in_flight` such tasks, beyond
which the peer is answered OVERLOADED (it knows the bound, so it only meets it when handlers go on
after their calls were cancelled), and `max_request_bytes` of payloads that they hold, beyond which
the reader waits before it receives another large one.

A handler's task is cancelled when the caller cancels or gives up, and when the connection ends:
work that must go on shields itself.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from dfs.errors import Code, Failure
from dfs.rpc.exchange import Handlers, Reply, Request
from dfs.rpc.meter import Kind
from dfs.rpc.peer import Endpoint

if TYPE_CHECKING:
    from dfs.rpc.connection import Connection

log = logging.getLogger(__name__)

_TOGETHER = 3  # handlers' tasks at a time from which on small answers are sent together

NOTICE_ID = 0  # the request id of what needs no answer


class Service:
    """The handlers of one connection and those of their tasks that run."""

    def __init__(self, connection: Connection, endpoint: Endpoint, handlers: Handlers) -> None:
        self._connection = connection
        self._handlers = handlers
        self._endpoint = endpoint
        self._name = endpoint.env.name
        self._monotonic = endpoint.env.clock.monotonic
        self._requests, self._refusals = endpoint.meter.requests, endpoint.meter.refusals
        self._max_in_flight = endpoint.limits.max_in_flight
        self._max_held_bytes = endpoint.limits.max_request_bytes
        self._running: dict[int, trio.CancelScope] = {}
        self._notices = 0
        self._held_bytes = 0
        self._room = trio.lowlevel.ParkingLot()
        self.holds_up_reader = False  # the reader waits for room in `borrow`
        self.nursery: trio.Nursery | None = None  # set while the connection runs

    def dispatch(
        self, request_id: int, message: object, payload: memoryview, buffer: bytearray | None
    ) -> None:
        """Have a request, or a notice, handled. `buffer` is under `payload`, from `borrow`.

        Raises Failure(BAD_MESSAGE) when the peer uses an id twice.
        """
        if request_id in self._running:
            raise Failure(Code.BAD_MESSAGE, f"request id {request_id} used twice")
        if request_id and len(self._running) >= self._max_in_flight:
            text = f"{self._name} has {self._max_in_flight} requests of this connection in work"
            self._refuse(request_id, Failure(Code.OVERLOADED, text), buffer)
            return
        kind, began = self._requests[type(message)], self._monotonic()
        if payload:
            kind.received_bytes += len(payload)
        try:
            handler = self._handlers.get(type(message))
            if handler is None:
                raise _not_taken(self._name, message)
            result = handler(Request(message, payload, self._connection))
            if hasattr(result, "__await__"):
                self._start(request_id, message, result, buffer, kind, began)
                return
            self._answer(request_id, result, buffer, kind)
        except Failure as failure:
            self._refuse(request_id, failure, buffer)
        except Exception:  # noqa: BLE001  a handler's bug must not end the connection
            self._refuse(request_id, self._bug(message), buffer)
        kind.observe(self._monotonic() - began)

    def cancel(self, request_id: int) -> None:
        """The caller no longer waits."""
        scope = self._running.get(request_id)
        if scope is not None:
            scope.cancel()

    async def borrow(self, length_bytes: int) -> bytearray:
        """A buffer for a large payload, once the handlers hold few enough."""
        while self._held_bytes and self._held_bytes + length_bytes > self._max_held_bytes:
            self.holds_up_reader = True
            await self._room.park()
        self.holds_up_reader = False
        buffer = self._endpoint.buffers.take(length_bytes)
        self._held_bytes += len(buffer)
        return buffer

    def release(self, buffer: bytearray | None) -> None:
        """Nobody uses the payload's buffer any more."""
        if buffer is not None:
            self._held_bytes -= len(buffer)
            self._endpoint.buffers.give_back(buffer)
            self._room.unpark_all()

    def _start(
        self,
        request_id: int,
        message: object,
        work: Awaitable[Any],
        buffer: bytearray | None,
        kind: Kind,
        began: float,
    ) -> None:
        if len(self._running) >= self._max_in_flight:  # a notice, or it would have been refused
            if isinstance(work, Coroutine):
                work.close()
            raise Failure(Code.OVERLOADED, f"{self._name} is too busy for notices")
        key = request_id
        if request_id == NOTICE_ID:
            self._notices += 1
            key = -self._notices
        scope = self._running[key] = trio.CancelScope()
        assert self.nursery is not None
        self.nursery.start_soon(self._run, key, scope, message, work, buffer, kind, began)

    async def _run(
        self,
        key: int,
        scope: trio.CancelScope,
        message: object,
        work: Awaitable[Any],
        buffer: bytearray | None,
        kind: Kind,
        began: float,
    ) -> None:
        """A handler's task."""
        request_id = max(key, NOTICE_ID)
        answered = False
        try:
            with scope:
                result = await work
                answered = True
                self._answer(request_id, result, buffer, kind)
        except Failure as failure:
            answered = True
            self._refuse(request_id, failure, buffer)
        except Exception:  # noqa: BLE001  a handler's bug must not end the connection
            answered = True
            self._refuse(request_id, self._bug(message), buffer)
        finally:
            kind.observe(self._monotonic() - began)
            del self._running[key]
            if not answered:
                self.release(buffer)

    def _answer(
        self, request_id: int, result: object, buffer: bytearray | None, kind: Kind
    ) -> None:
        if request_id == NOTICE_ID:
            self.release(buffer)  # whatever the handler answers, nobody waits for it
            return
        reply = result if type(result) is Reply else Reply(result)
        if reply.payload:
            kind.sent_bytes += sum(map(len, reply.payload))
        on_sent = reply.on_sent
        if buffer is not None:  # the reply's payload may be the request's
            on_sent = partial(self._sent, on_sent, buffer)
        together = len(self._running) >= _TOGETHER
        self._connection.send_reply(
            request_id, reply.message, reply.payload, on_sent, together=together
        )

    def _sent(self, on_sent: Callable[[], None] | None, buffer: bytearray) -> None:
        self.release(buffer)
        if on_sent is not None:
            on_sent()

    def _refuse(self, request_id: int, failure: Failure, buffer: bytearray | None) -> None:
        self.release(buffer)
        self._refusals[failure.code] += 1
        if request_id != NOTICE_ID:
            self._connection.send_failure(request_id, failure)
        else:
            peer = self._connection.name
            log.info("%s: a notice of %s failed: %s", self._name, peer, failure.message)

    def _bug(self, message: object) -> Failure:
        """Log the exception being handled; what the peer is told."""
        what = type(message).__name__
        log.exception("%s: handling %s of %s", self._name, what, self._connection.name)
        return Failure(Code.UNAVAILABLE, f"{self._name} failed to handle {what}; see its log")


def _not_taken(name: str, message: object) -> Failure:
    return Failure(Code.BAD_MESSAGE, f"{name} does not take {type(message).__name__}")
