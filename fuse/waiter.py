"""How the tasks of a mount wait for the kernel's next request.

pyfuse3 runs up to `max_tasks` tasks; each waits until /dev/fuse is readable, reads one request and
handles it. Its own waiter takes a lock, registers with epoll and reschedules for every request,
about 20 µs. This one looks first: when a request is there already, the task goes on at once. It
replaces a private function of pyfuse3 that is looked up by name for each request; where that name
is missing, the mount runs with the stock one.

What must hold, because the read that follows blocks the whole event loop when there is nothing to
read:

1. Between the look that found a request and the return of `wait` nothing is awaited.
2. When a task goes off with a request and nobody watches the descriptor, one parked task is woken
   to watch it, or requests would wait for that task's handler.
3. A task that keeps finding requests yields now and then, so that other tasks run.
4. When the connection has ended (error condition on the descriptor, `end`, or pyfuse3 closing it),
   every task is let go, or pyfuse3's main would never return.

What no waiter can help: a request that its caller's death withdraws between the look and the read
holds up the loop until the kernel's next request. The stock waiter's window for that is wider.
"""

from __future__ import annotations

import logging
import select
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import pyfuse3
import trio

log = logging.getLogger(__name__)

STOCK_NAME = "_wait_fuse_readable"
REQUESTS_PER_YIELD = 32  # at some 15 µs each, other tasks wait half a millisecond at the most
_ENDED = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Waiter:
    """Hands the requests that arrive at one descriptor to the tasks that call `wait`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._parked: deque[trio.lowlevel.Task] = deque()
        self._watched = False  # a task is in wait_readable, or woken to go there
        self._ended = False
        self._since_yield = 0

    async def wait(self) -> bool:
        """True when a request can be read at once, False when there will be no more."""
        while not self._ended:
            if self._since_yield >= REQUESTS_PER_YIELD:
                self._since_yield = 0
                await trio.lowlevel.cancel_shielded_checkpoint()
                continue
            if self._is_readable():
                self._since_yield += 1
                self._hand_over()
                return True
            if not self._ended:
                await (self._park() if self._watched else self._watch())
        return False

    def end(self) -> None:
        """Let every task go: there will be no more requests."""
        self._ended = True
        while self._parked:
            trio.lowlevel.reschedule(self._parked.popleft())

    def _is_readable(self) -> bool:
        """Look, without waiting; notices the end of the connection."""
        events = self._poll.poll(0)
        if not events:
            return False
        if events[0][1] & _ENDED:
            self.end()
            return False
        return True

    def _hand_over(self) -> None:
        """See to it that somebody watches while the current task is busy."""
        if self._parked and not self._watched:
            self._watched = True
            trio.lowlevel.reschedule(self._parked.popleft())

    async def _watch(self) -> None:
        self._watched = True
        self._since_yield = 0
        try:
            await trio.lowlevel.wait_readable(self._descriptor)
        except trio.ClosedResourceError:
            self.end()
        finally:
            self._watched = False

    async def _park(self) -> None:
        """Sleep until woken, which makes this task the one to watch."""
        task = trio.lowlevel.current_task()
        self._parked.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._parked.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        self._watched = False  # it was this task's; `wait` decides anew


@contextmanager
def installed(descriptor: int | None) -> Iterator[Waiter | None]:
    """Make pyfuse3 wait through a `Waiter` of its descriptor; yields None where it cannot."""
    stock = getattr(pyfuse3, STOCK_NAME, None)
    if stock is None or descriptor is None:
        log.warning(
            "this pyfuse3 (%s) cannot take the faster waiter: using its own", pyfuse3.__version__
        )
        yield None
        return
    waiter = Waiter(descriptor)
    setattr(pyfuse3, STOCK_NAME, waiter.wait)
    try:
        yield waiter
    finally:
        setattr(pyfuse3, STOCK_NAME, stock)
