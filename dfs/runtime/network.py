"""The network seam: reliable byte streams between addresses of the form `host:port`.

The primitive operations never block, so that a caller makes the system call first and parks only
when told to (`facts`: this beats a readiness wait before each call). `send_all` and `recv_exactly`
build the usual verbs on them, once, for both worlds.

Errors: a dead peer or broken stream raises `OSError` (the real one's errno); `recv_nowait` and
`recv_exactly` report an orderly end as 0 and `EOFError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Stream(Protocol):
    """One connected, ordered, reliable byte stream. One reader and one writer task at a time."""

    @property
    def peer(self) -> str:
        """The other end's address, for log lines."""
        ...

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        """Hand over what fits now, in order; bytes taken, 0 when the stream would block."""
        ...

    def recv_nowait(self, buffer: memoryview) -> int | None:
        """Bytes put into `buffer`, 0 at the end of the stream, None when it would block."""
        ...

    async def wait_writable(self) -> None: ...

    async def wait_readable(self) -> None: ...

    def close(self) -> None:
        """End the stream in both directions; tasks waiting on it wake with `OSError`."""
        ...


class Listener(Protocol):
    """Accepts streams on one address."""

    @property
    def address(self) -> str:
        """The address really bound (port 0 resolved)."""
        ...

    async def accept(self) -> Stream: ...

    def close(self) -> None: ...


class Network(Protocol):
    """Makes streams."""

    async def listen(self, address: str) -> Listener: ...

    async def connect(self, address: str) -> Stream:
        """Raises OSError (ECONNREFUSED, EHOSTUNREACH, ...); bound it with the clock."""
        ...


async def send_all(stream: Stream, buffers: Sequence[Buffer]) -> None:
    """Send every byte of the buffers, in order, copying none of them.

    A cancelled or failed call leaves the stream in an unknown position: close it then.
    """
    rest: list[Buffer] = [b for b in buffers if len(b)]
    while rest:
        sent = stream.send_nowait(rest)
        if sent == 0:
            await stream.wait_writable()
            continue
        rest = remaining(rest, sent)


def remaining(buffers: list[Buffer], sent: int) -> list[Buffer]:
    """What is left of the buffers (of bytes, each contiguous) once `sent` bytes are gone."""
    for i, buffer in enumerate(buffers):
        if sent < len(buffer):
            return [memoryview(buffer)[sent:], *buffers[i + 1 :]] if sent else buffers[i:]
        sent -= len(buffer)
    return []


async def recv_exactly(stream: Stream, buffer: memoryview) -> None:
    """Fill the whole buffer. Raises EOFError when the stream ends before."""
    filled = 0
    while filled < len(buffer):
        got = stream.recv_nowait(buffer[filled:])
        if got is None:
            await stream.wait_readable()
        elif got == 0:
            raise EOFError(f"{stream.peer} closed after {filled} of {len(buffer)} bytes")
        else:
            filled += got
