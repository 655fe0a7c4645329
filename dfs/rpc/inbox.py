"""The receiving half of a connection: bytes in, without a system call per field.

One receive takes whatever has come, up to the buffer's size, so that small frames are parsed many
at a time. The part of a large payload that did not come along is received straight into its
destination. A receive that brought less than there was room for is followed by waiting, not by
another one that would most likely find nothing. One task reads at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from dfs.runtime.network import Stream

_BURST = 16  # receives in a row that did not wait, before other tasks get their turn


def _nothing() -> None:
    """What happens before a receive until somebody says otherwise."""


class Inbox:
    """A stream's bytes that have been received and not yet been taken.

    `receives` changes whenever something was heard from the peer. `before_receive` is called
    before each system call.
    """

    def __init__(self, stream: Stream, capacity_bytes: int) -> None:
        self.data = bytearray(capacity_bytes)
        self.start = 0
        self.end = 0
        self.capacity_bytes = capacity_bytes
        self.receives = 0
        self.before_receive: Callable[[], None] = _nothing
        self._view = memoryview(self.data)
        self._stream = stream
        self._burst = 0
        self._is_dry = False  # the last receive took all there was

    async def need(self, count: int) -> None:
        """Return once `count` bytes (at most the capacity) are available. Raises EOFError."""
        while self.end - self.start < count:
            if self.start == self.end:
                self.start = self.end = 0
            elif self.capacity_bytes - self.start < count:
                self._compact()
            self.before_receive()
            if self._is_dry or self._burst == _BURST:
                await self._wait()
            self.end += self._receive(self._view[self.end :] if self.end else self._view)

    def take(self, count: int) -> memoryview:
        """The next `count` available bytes, valid until the next `need`, `fill` or `skip`."""
        taken = self._view[self.start : self.start + count]
        self.start += count
        return taken

    async def fill(self, destination: memoryview, wanted: Callable[[], bool]) -> bool:
        """Fill the destination from what is available and what comes. Raises EOFError.

        As soon as it is no longer wanted the destination is left alone, the rest of its bytes
        are thrown away and the result is False.
        """
        filled = min(self.end - self.start, len(destination))
        destination[:filled] = self.take(filled)
        while filled < len(destination):
            self.before_receive()
            if self._is_dry or self._burst == _BURST:
                await self._wait()
            if not wanted():
                await self.skip(len(destination) - filled)
                return False
            filled += self._receive(destination[filled:])
        return True

    async def skip(self, count: int) -> None:
        """Throw away the next `count` bytes. Raises EOFError."""
        while count:
            await self.need(1)
            step = min(count, self.end - self.start)
            self.start += step
            count -= step

    def _compact(self) -> None:
        count = self.end - self.start
        self.data[:count] = self.data[self.start : self.end]
        self.start, self.end = 0, count

    def _receive(self, destination: memoryview) -> int:
        """One system call; how many bytes it brought. Raises EOFError."""
        got = self._stream.recv_nowait(destination)
        if got is None:
            self._is_dry = True
            return 0
        if got == 0:
            raise EOFError("the peer closed the connection")
        self.receives += 1
        self._burst += 1
        self._is_dry = got < len(destination)
        return got

    async def _wait(self) -> None:
        """Wait for more to come, or only let others run after a burst."""
        if self._is_dry:
            await self._stream.wait_readable()
        else:
            await trio.lowlevel.checkpoint()
        self._burst = 0
