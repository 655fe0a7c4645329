"""A connection: many calls at a time, both ways, over one stream to a proven peer.

Put together from its halves: `Inbox` and `Outbox` move bytes, `Calls` knows who waits for an
answer, `Service` runs handlers. Three tasks: the reader, the writer (idle unless the stream is
full), and the keeper, which sleeps until the earliest deadline or until the peer has been silent
for too long; then it asks whether the peer is there and closes the connection if no answer comes.

Invariants: a frame that was begun is ended or the stream dies with it. After the end of the
connection every call fails with CONNECTION_LOST at once. What the peer sends can end this
connection with one log line, and do nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from dfs.errors import Code, Failure
from dfs.rpc import codec, frame
from dfs.rpc.calls import Call, Calls
from dfs.rpc.exchange import Handlers, Received
from dfs.rpc.frame import PREFIX_BYTES, FrameLimits, Kind, Prefix
from dfs.rpc.handshake import Introduction
from dfs.rpc.inbox import Inbox
from dfs.rpc.liveness import Liveness, Verdict
from dfs.rpc.outbox import Outbox, Outgoing
from dfs.rpc.peer import Endpoint, Identity
from dfs.rpc.problem import Problem, to_failure, to_problem
from dfs.rpc.service import NOTICE_ID, Service
from dfs.runtime.network import Buffer, Stream

log = logging.getLogger(__name__)

_EMPTY = memoryview(b"")
_SMALL_BYTES = 16 << 10  # requests up to this size may wait a moment to be sent together
_TOGETHER = 3  # outstanding calls from which on they do


class Connection:
    """One connection after its handshake. `closed` is set at its end, however it came.

    Made by `connect` and `serve`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        stream: Stream,
        inbox: Inbox,
        introduction: Introduction,
        handlers: Handlers,
    ) -> None:
        limits = endpoint.limits
        self.peer: Identity = introduction.identity
        self.closed = trio.Event()
        self.name = f"{introduction.identity} at {stream.peer}"  # for log lines
        self._endpoint = endpoint
        self._stream = stream
        self._inbox = inbox
        self._outbox = Outbox(stream, limits.max_queued_bytes)
        self._calls = Calls(min(limits.max_in_flight, introduction.max_in_flight))
        self._service = Service(self, endpoint, handlers)
        self._frame_limits = FrameLimits(limits.max_header_bytes, limits.max_payload_bytes)
        self._clock = endpoint.env.clock
        self._meter = endpoint.meter
        self._scope = trio.CancelScope()
        self._is_closed = False
        inbox.before_receive = self._uncork

    # -- calling

    async def call(
        self,
        message: object,
        payload: Sequence[Buffer] = (),
        *,
        timeout_s: float,
        into: memoryview | None = None,
    ) -> Received:
        """Send a request and wait for its answer.

        The payload's buffers must not change until this returns. The answer's payload is received
        straight into `into` where that is given and long enough (else BAD_MESSAGE). Cancellation
        is passed on to the peer. Raises the peer's Failure, or Failure TIMEOUT, CONNECTION_LOST.
        """
        header = codec.encode(message)
        payload_bytes = self._payload_bytes(header, payload)
        begun = self._clock.monotonic()
        call = Call(type(message).__name__, begun + timeout_s, into)
        if self._calls.crowded or self._outbox.full:
            await self._wait_for_room(call, timeout_s)
        request_id = self._calls.begin(call)
        together = len(self._calls) >= _TOGETHER
        call.outgoing = self._post(
            Kind.REQUEST, request_id, header, payload, payload_bytes, later=together
        )
        if call.result is None:
            await self._park(call, request_id)
        if call.outgoing is not None:  # an answer before the whole request was sent
            self._outbox.release(call.outgoing)
        kind = self._meter.calls[type(message)]
        kind.observe(self._clock.monotonic() - begun)
        if payload_bytes:
            kind.sent_bytes += payload_bytes
        if isinstance(call.result, Received):
            if call.result.payload:
                kind.received_bytes += len(call.result.payload)
            return call.result
        assert call.result is not None
        self._meter.failed_calls[call.result.code] += 1
        raise call.result

    def notify(self, message: object, payload: Sequence[Buffer] = ()) -> bool:
        """Send a request that has no answer; never waits.

        The buffers may be reused at once. False when the connection is closed or too much is
        queued already; True promises nothing either.
        """
        if self._is_closed or self._outbox.full:
            return False
        header = codec.encode(message)
        payload_bytes = self._payload_bytes(header, payload)
        outgoing = self._post(Kind.NOTICE, NOTICE_ID, header, payload, payload_bytes)
        if outgoing is not None:
            self._outbox.keep(outgoing)
        return not self._is_closed

    def close(self) -> None:
        """End the connection: outstanding calls fail, handlers are cancelled. Idempotent."""
        self._end(f"the connection with {self.name} was closed")

    async def _park(self, call: Call, request_id: int) -> None:
        call.task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            call.task = None
            self._calls.end(request_id)
            self._withdraw(call, request_id)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _withdraw(self, call: Call, request_id: int) -> None:
        """Nobody waits for this answer any more: unsend the request, or tell the peer."""
        unsent = call.outgoing is not None and self._outbox.release(call.outgoing)
        if not unsent and not self._is_closed:
            self._post(Kind.CANCEL, request_id, b"")

    async def _wait_for_room(self, call: Call, timeout_s: float) -> None:
        with self._clock.move_on_after(timeout_s):
            if self._outbox.full:
                await self._outbox.room()
            if self._calls.crowded:
                await self._calls.slot()
            return
        text = f"no room to send {call.what} to {self.name} came free in time"
        raise Failure(Code.TIMEOUT, text)

    # -- sending, also for `Service`

    def send_reply(
        self,
        request_id: int,
        message: object,
        payload: Sequence[Buffer],
        on_sent: Callable[[], None] | None,
        *,
        together: bool,
    ) -> None:
        """Answer a request. Raises when the message cannot be sent; nothing was sent then.

        `together`: it may wait a moment to be sent along with others.
        """
        header = codec.encode(message)
        payload_bytes = self._payload_bytes(header, payload)
        self._post(Kind.REPLY, request_id, header, payload, payload_bytes, on_sent, later=together)

    def send_failure(self, request_id: int, failure: Failure) -> None:
        """Answer a request with an error."""
        self._post(Kind.ERROR, request_id, codec.encode(to_problem(failure)))

    def _payload_bytes(self, header: bytes, payload: Sequence[Buffer]) -> int:
        """The payload's length. Raises Failure(BAD_MESSAGE) when a frame would be too large."""
        count = sum(map(len, payload)) if payload else 0
        limits = self._frame_limits
        if len(header) > limits.header_bytes or count > limits.payload_bytes:
            text = f"a frame of {len(header)} + {count} bytes is too large to send"
            raise Failure(Code.BAD_MESSAGE, text)
        return count

    def _post(
        self,
        kind: Kind,
        request_id: int,
        header: bytes,
        payload: Sequence[Buffer] = (),
        payload_bytes: int = 0,
        on_sent: Callable[[], None] | None = None,
        *,
        later: bool = False,
    ) -> Outgoing | None:
        """Send or queue one frame; None when it is sent."""
        head = frame.pack(kind, request_id, len(header), payload_bytes) + header
        size = len(head) + payload_bytes
        later = later and size <= _SMALL_BYTES
        try:
            return self._outbox.post([head, *payload], size, on_sent, later=later)
        except OSError as error:
            self._lost(error)
            return None

    def _uncork(self) -> None:
        self._outbox.corked = False
        self._outbox.flush()

    # -- the tasks

    async def run(self) -> None:
        """Live until the connection ends; by then nothing of it runs any more."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._service.nursery = nursery
                    nursery.start_soon(self._guard, self._outbox.run)
                    nursery.start_soon(self._guard, self._keep)
                    await self._guard(self._read)
        finally:
            self.close()

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Turn what can go wrong with a peer into the end of this connection."""
        try:
            await work()
        except (OSError, EOFError) as error:
            self._lost(error)
        except Failure as failure:
            if not self._is_closed:
                text = "%s: closing the connection with %s: %s"
                log.warning(text, self._endpoint.env.name, self.name, failure.message)
            self._end(f"{self.name} broke the protocol: {failure.message}")

    def _lost(self, error: OSError | EOFError) -> None:
        if not self._is_closed:
            log.info("%s: lost %s: %s", self._endpoint.env.name, self.name, error)
        self._end(f"lost the connection with {self.name}: {error}")

    def _end(self, why: str) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._calls.end_all(Failure(Code.CONNECTION_LOST, why))
        self._outbox.close()
        self._stream.close()
        self.closed.set()
        self._scope.cancel()

    async def _keep(self) -> None:
        """Deadlines, and whether the peer is still there."""
        limits, clock = self._endpoint.limits, self._clock
        liveness = Liveness(clock.monotonic(), limits.idle_probe_s, limits.probe_timeout_s)
        while True:
            now = clock.monotonic()
            late = self._expire(now)
            if liveness.asked and now >= liveness.check_at:
                # After a pause of this process the answer may be here already, but unread.
                await trio.lowlevel.checkpoint()
            verdict = liveness.judge(now, self._sign_of_life(), suspicious=late)
            if verdict is Verdict.GONE:
                raise EOFError(f"no sign of life for {limits.probe_timeout_s:g} s")
            if verdict is Verdict.ASK:
                self._post(Kind.PING, 0, b"")
            alarm, alarm_at = self._calls.set_alarm()
            await clock.wait(alarm, min(alarm_at, liveness.check_at) - now)

    def _expire(self, now: float) -> bool:
        """Fail the calls whose time is over; whether there were any."""
        late = self._calls.overdue(now)
        for request_id in late:
            call = self._calls.end(request_id)
            assert call is not None
            self._withdraw(call, request_id)
            text = f"{self.name} did not answer {call.what} in time"
            call.finish(Failure(Code.TIMEOUT, text))
        return bool(late)

    def _sign_of_life(self) -> object:
        """Changes whenever the peer has sent something or made room for something.

        While it is this side that does not read, nothing can be said against the peer.
        """
        if self._service.holds_up_reader:
            return object()
        return self._inbox.receives, self._outbox.progress

    # -- receiving

    async def _read(self) -> None:
        inbox, outbox, limits = self._inbox, self._outbox, self._frame_limits
        while not self._is_closed:
            if inbox.end - inbox.start < PREFIX_BYTES:
                await inbox.need(PREFIX_BYTES)
            prefix = frame.parse(inbox.data, inbox.start, limits)
            outbox.corked = True
            kind = prefix.kind
            if kind is Kind.REPLY:
                await self._receive_reply(prefix)
            elif kind is Kind.REQUEST or kind is Kind.NOTICE:
                await self._receive_request(prefix)
            else:
                await self._receive_control(prefix)

    async def _header(self, prefix: Prefix) -> Buffer:
        """The header's bytes, valid until the inbox is used again."""
        inbox, count = self._inbox, prefix.header_bytes
        if PREFIX_BYTES + count <= inbox.capacity_bytes:
            if inbox.end - inbox.start < PREFIX_BYTES + count:
                await inbox.need(PREFIX_BYTES + count)
            inbox.start += PREFIX_BYTES
            return inbox.take(count)
        inbox.take(PREFIX_BYTES)
        header = bytearray(count)
        await inbox.fill(memoryview(header), _always)
        return header

    async def _receive_reply(self, prefix: Prefix) -> None:
        call = self._calls.find(prefix.request_id)
        header = await self._header(prefix)
        try:
            message = codec.decode(header)
        except codec.UnknownMessageError as failure:
            return await self._unusable(prefix, failure)
        if not prefix.payload_bytes:
            payload: memoryview | None = _EMPTY
        else:
            payload = await self._reply_payload(prefix, call)
        done = self._calls.end(prefix.request_id)
        if done is not None and payload is not None:
            done.finish(Received(message, payload))
        return None

    async def _reply_payload(self, prefix: Prefix, call: Call | None) -> memoryview | None:
        """The payload where the caller wants it; None when nobody wants it any more."""
        count, request_id = prefix.payload_bytes, prefix.request_id
        if call is None:
            await self._inbox.skip(count)
            return None
        if call.into is None:
            destination = memoryview(bytearray(count))
        elif count <= len(call.into):
            destination = call.into[:count]
        else:
            text = f"an answer of {count} bytes where {len(call.into)} were expected"
            await self._unusable(prefix, Failure(Code.BAD_MESSAGE, text))
            return None
        filled = await self._inbox.fill(destination, lambda: self._calls.find(request_id) is call)
        return destination if filled else None

    async def _unusable(self, prefix: Prefix, failure: Failure) -> None:
        """An answer that the caller cannot be given: the call fails, the connection goes on."""
        await self._inbox.skip(prefix.payload_bytes)
        call = self._calls.end(prefix.request_id)
        if call is not None:
            call.finish(failure)

    async def _receive_request(self, prefix: Prefix) -> None:
        if (prefix.kind is Kind.NOTICE) != (prefix.request_id == NOTICE_ID):
            raise _unexpected(prefix)
        if self._outbox.full:  # the peer does not read its answers: wait until it does
            self._uncork()
            await self._outbox.room()
        header = await self._header(prefix)
        try:
            message = codec.decode(header)
        except codec.UnknownMessageError as failure:
            await self._inbox.skip(prefix.payload_bytes)
            if prefix.request_id != NOTICE_ID:
                self.send_failure(prefix.request_id, failure)
            return
        count, inbox = prefix.payload_bytes, self._inbox
        buffer = None
        if not count:
            payload = _EMPTY
        elif count <= inbox.end - inbox.start:
            payload = memoryview(bytes(inbox.take(count)))
        else:
            self._uncork()
            buffer = await self._service.borrow(count)
            payload = memoryview(buffer)[:count]
            await inbox.fill(payload, _always)
            self._outbox.corked = True
        self._service.dispatch(prefix.request_id, message, payload, buffer)

    async def _receive_control(self, prefix: Prefix) -> None:
        if prefix.payload_bytes:
            raise _unexpected(prefix)
        header = await self._header(prefix)
        if prefix.kind is Kind.ERROR:
            self._calls.find(prefix.request_id)
            problem = codec.decode_as(Problem, header)
            call = self._calls.end(prefix.request_id)
            if call is not None:
                call.finish(to_failure(problem))
        elif prefix.kind is Kind.CANCEL:
            self._service.cancel(prefix.request_id)
        elif prefix.kind is Kind.PING:
            if not self._outbox.full:
                self._post(Kind.PONG, 0, b"")
        elif prefix.kind is not Kind.PONG:
            raise _unexpected(prefix)


def _always() -> bool:
    return True


def _unexpected(prefix: Prefix) -> Failure:
    text = f"a {prefix.kind.name} frame (id {prefix.request_id}) that is not due"
    return Failure(Code.BAD_MESSAGE, text)
