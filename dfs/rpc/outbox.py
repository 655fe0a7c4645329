"""The sending half of a connection: one vectored send per frame, or per many small ones.

A frame is sent at once where nothing is queued before it; what the stream does not take stays in
the queue, which the writer task drains. While `corked`, frames only queue up: the reader corks
while it works through what one receive brought and flushes the answers together.

Frames hold their payload by reference until they are sent. A frame whose buffers are about to be
reused is withdrawn while nothing of it is sent, else its rest is copied (`release`): a frame that
has begun is always ended, so the stream never carries a torn one.

Invariant: `queued_bytes` is what the queue holds. It may exceed the limit by what handlers answer
and by control frames; callers wait for room before they add to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from dfs.runtime.network import Buffer, Stream

_BATCH_BUFFERS = 256  # of one vectored send
_BURST = 16  # sends in a row that did not wait, before other tasks get their turn


class Outgoing:
    """A frame on its way, or the rest of it."""

    __slots__ = ("begun", "buffers", "on_sent", "size_bytes")

    def __init__(
        self, buffers: list[Buffer], size_bytes: int, on_sent: Callable[[], None] | None
    ) -> None:
        self.buffers = buffers
        self.size_bytes = size_bytes
        self.on_sent = on_sent
        self.begun = False


class Outbox:
    """The frames of one connection that wait to be sent, in order."""

    def __init__(self, stream: Stream, limit_bytes: int) -> None:
        self.queued_bytes = 0
        self.corked = False
        self.progress = 0  # changes whenever a stream that was full has taken something
        self._stream = stream
        self._limit_bytes = limit_bytes
        self._queue: deque[Outgoing] = deque()
        self._closed = False
        self._work = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    @property
    def full(self) -> bool:
        return self.queued_bytes >= self._limit_bytes

    def post(
        self,
        buffers: list[Buffer],
        size_bytes: int,
        on_sent: Callable[[], None] | None = None,
        *,
        later: bool = False,
    ) -> Outgoing | None:
        """Send a frame or queue it; None when it is sent already.

        `later` leaves it to the writer task, which sends what many tasks post in one go. Raises
        OSError when the stream is broken.
        """
        outgoing = Outgoing(buffers, size_bytes, on_sent)
        if self._closed:
            _finish(outgoing)
            return None
        if not (self._queue or self.corked or later):
            try:
                sent = self._stream.send_nowait(buffers)
            except OSError:
                _finish(outgoing)
                raise
            if sent == size_bytes:
                _finish(outgoing)
                return None
            if sent:
                _shorten(outgoing, sent)
        self._queue.append(outgoing)
        self.queued_bytes += outgoing.size_bytes
        if self._work and not self.corked:
            self._work.unpark()
        return outgoing

    def flush(self) -> None:
        """Send what the stream takes; the writer task does the rest. Raises OSError."""
        if self._queue:
            while self._send_some():
                pass
            if self._queue:
                self._work.unpark()

    def release(self, outgoing: Outgoing) -> bool:
        """Make the frame's buffers free for reuse; whether nothing of it will be sent."""
        if not outgoing.buffers:
            return False
        if not outgoing.begun:
            self._queue.remove(outgoing)
            self._taken(outgoing.size_bytes)
            _finish(outgoing)
            return True
        self.keep(outgoing)
        return False

    def keep(self, outgoing: Outgoing) -> None:
        """Copy what is not sent yet of the frame, so that its buffers may be reused."""
        outgoing.buffers = [b if type(b) is bytes else bytes(b) for b in outgoing.buffers]

    async def room(self) -> None:
        """Wait until the queue is below its limit, or closed."""
        while self.full and not self._closed:
            await self._room.park()

    async def run(self) -> None:
        """The writer task. Raises OSError when the stream breaks."""
        while not self._closed:
            if not self._queue:
                await self._work.park()
                continue
            burst = 0
            while self._send_some():
                burst += 1
                if burst == _BURST:
                    await trio.lowlevel.checkpoint()
                    burst = 0
            if self._queue:
                await self._stream.wait_writable()
                self.progress += 1

    def close(self) -> None:
        """Drop the queue; whoever waits for room or for a frame's end goes on."""
        self._closed = True
        dropped, self._queue, self.queued_bytes = self._queue, deque(), 0
        for outgoing in dropped:
            _finish(outgoing)
        self._work.unpark_all()
        self._room.unpark_all()

    def _send_some(self) -> bool:
        """One send; whether another one may bring more."""
        if not self._queue:
            return False
        batch = self._batch()
        sent = self._stream.send_nowait(batch)
        self._consume(sent)
        return sent > 0

    def _batch(self) -> list[Buffer]:
        first = self._queue[0]
        if len(self._queue) == 1:
            return first.buffers
        batch: list[Buffer] = []
        for outgoing in self._queue:
            batch += outgoing.buffers
            if len(batch) >= _BATCH_BUFFERS:
                break
        return batch

    def _consume(self, sent: int) -> None:
        count = sent
        queue = self._queue
        while count:
            first = queue[0]
            if count < first.size_bytes:
                _shorten(first, count)
                break
            count -= first.size_bytes
            queue.popleft()
            _finish(first)
        self._taken(sent)

    def _taken(self, count: int) -> None:
        self.queued_bytes -= count
        if self._room and not self.full:
            self._room.unpark_all()


def _shorten(outgoing: Outgoing, count: int) -> None:
    """Take the first `count` bytes, which are sent, off the frame."""
    outgoing.begun = True
    outgoing.size_bytes -= count
    buffers = outgoing.buffers
    for i, buffer in enumerate(buffers):
        if count < len(buffer):
            outgoing.buffers = [memoryview(buffer)[count:], *buffers[i + 1 :]]
            return
        count -= len(buffer)


def _finish(outgoing: Outgoing) -> None:
    outgoing.buffers = []
    on_sent, outgoing.on_sent = outgoing.on_sent, None
    if on_sent is not None:
        on_sent()
