"""The write chain's logic: order, versions, what goes to the next link, whose fault a failure is.

Owns no bytes and does no I/O; `service` moves the bytes. The rules:

- The order in which requests for a chunk arrive is the chunk's order (`Turns.enter` in the
  handler's synchronous prefix). A request has its turn until it is applied here and handed to
  the connection to the next link, so every link sees the same order.
- A request is checked against the replica at its turn, and refused before anything is forwarded.
- Each link gives the next less time than it has itself, so that the link next to the one that
  hangs is the first to notice, and names the right one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import trio

from dfs.errors import Code, Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.chunks import CutChunk, SyncChunk, WriteChunk

ChainRequest = WriteChunk | SyncChunk | CutChunk

# What a call to the next link ends with when the link itself, not its disk or replica, failed.
_LINK_FAILURES = frozenset(
    {
        Code.CONNECTION_LOST,
        Code.TIMEOUT,
        Code.OVERLOADED,
        Code.UNAVAILABLE,
        Code.UNAUTHENTICATED,
        Code.BAD_MESSAGE,
    }
)


# -- order


class Turn:
    """A place in the queue of one chunk. Leave it exactly once; a second time does nothing."""

    def __init__(self, turns: Turns, handle: int) -> None:
        self._turns, self._handle = turns, handle
        self._come = trio.Event()
        self._left = False

    @property
    def has_come(self) -> bool:
        return self._come.is_set()

    async def wait(self) -> None:
        """Return when all who entered before have left."""
        if not self._come.is_set():
            await self._come.wait()

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._turns.leave(self._handle, self)

    def call(self) -> None:
        """It is this one's turn now."""
        self._come.set()


class Turns:
    """First come, first served, per chunk."""

    def __init__(self) -> None:
        self._queues: dict[int, deque[Turn]] = {}

    def enter(self, handle: int) -> Turn:
        """Take a place; it has come at once when nobody else is there."""
        turn = Turn(self, handle)
        queue = self._queues.setdefault(handle, deque())
        queue.append(turn)
        if len(queue) == 1:
            turn.call()
        return turn

    def busy(self, handle: int) -> bool:
        """Whether anybody has a place in that chunk's queue."""
        return handle in self._queues

    def leave(self, handle: int, turn: Turn) -> None:
        """Give up a place, whether its turn has come or not."""
        queue = self._queues[handle]
        first = queue[0] is turn
        queue.remove(turn)
        if not queue:
            del self._queues[handle]
        elif first:
            queue[0].call()


# -- versions


@dataclass(frozen=True, slots=True)
class Stamp:
    """What decides whether a replica takes a request."""

    version: int
    generation: int
    serves: bool = True  # it is settled


def check_range(message: WriteChunk, length_bytes: int, max_chain: int) -> None:
    """Raise Failure BAD_MESSAGE for a write that no chunk can take."""
    if length_bytes < 1 or message.offset < 0 or message.offset + length_bytes > CHUNK_BYTES:
        end = message.offset + length_bytes
        raise Failure(Code.BAD_MESSAGE, f"a chunk has no range [{message.offset}, {end})")
    if len(message.chain) >= max_chain:
        raise Failure(Code.BAD_MESSAGE, f"a chain of {len(message.chain) + 1}, {max_chain} at most")


def check_version(handle: int, wanted: int, stamp: Stamp) -> None:
    """Raise Failure STALE_VERSION unless the replica serves the version that the request names."""
    if wanted != stamp.version:
        text = f"chunk {handle:x} has version {stamp.version} here, the request names {wanted}"
        raise Failure(Code.STALE_VERSION, text)
    if not stamp.serves:
        text = f"chunk {handle:x} is yet to be settled here with its other replicas"
        raise Failure(Code.STALE_VERSION, text)


def check_write(message: WriteChunk, stamp: Stamp) -> None:
    """Raise Failure STALE_VERSION unless version and generation are the replica's."""
    check_version(message.handle, message.version, stamp)
    if message.generation != stamp.generation:
        text = (
            f"chunk {message.handle:x} has generation {stamp.generation} here, "
            f"the write names {message.generation}"
        )
        raise Failure(Code.STALE_VERSION, text)


# -- the next link


def for_next_link(message: ChainRequest) -> tuple[str, ChainRequest]:
    """The next link's address and what to send it. The chain must not be empty."""
    return message.chain[0], replace(message, chain=message.chain[1:])


def link_timeout_s(links: int, timeout_s: float, margin_s: float) -> float:
    """How long to wait for the next of `links` links: longer, the more are behind it."""
    return timeout_s + margin_s * (links - 2)


def blame(error: Failure, link: str) -> Failure:
    """What to answer when the next link's call failed.

    A link that could not be reached or did not answer broke the chain. What it reports itself is
    passed on with its own address, unless it names another's.
    """
    if error.code in _LINK_FAILURES:
        text = f"chain broken at {link}: {error.message}"
        return Failure(Code.CHAIN_BROKEN, text, detail=link)
    detail = error.detail or link
    return Failure(error.code, error.message, errno=error.errno, detail=detail)


class Window:
    """Bounds what is under way to one link, first come, first served.

    Kept below the connection's own bounds, so that a call never waits inside the connection,
    where two writes to one chunk could overtake each other.
    """

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._requests = 0
        self._bytes = 0
        self._waiting: deque[tuple[int, trio.Event]] = deque()

    async def enter(self, length_bytes: int) -> None:
        """Wait for room. Leave it again, also after a failure."""
        if not self._waiting and self._fits(length_bytes):
            self._take(length_bytes)
            return
        place = (length_bytes, trio.Event())
        self._waiting.append(place)
        try:
            await place[1].wait()
        except trio.Cancelled:
            if place[1].is_set():
                self.leave(length_bytes)
            else:
                self._waiting.remove(place)
            raise

    def leave(self, length_bytes: int) -> None:
        self._requests -= 1
        self._bytes -= length_bytes
        while self._waiting and self._fits(self._waiting[0][0]):
            size, event = self._waiting.popleft()
            self._take(size)
            event.set()

    def _fits(self, length_bytes: int) -> bool:
        if self._requests == 0:
            return True
        return self._requests < self._max_requests and self._bytes + length_bytes <= self._max_bytes

    def _take(self, length_bytes: int) -> None:
        self._requests += 1
        self._bytes += length_bytes
