"""Telling the kernel to forget cached names, attributes and pages.

The kernel carries such a notice out while it is being sent, and for a name it takes the directory's
lock to do so, which a request in progress may hold. Sent from a handler, or from the event loop
while a handler of that directory waits for something, it would block for ever, beyond the reach of
SIGKILL. So notices wait in one bounded queue and are sent in order from a thread, in batches, and
nothing in a handler may ever wait for one.

A name or inode that the kernel does not know is ENOENT, which is what was wanted.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import pyfuse3
import trio

from dfs.errors import Code, Failure
from dfs.runtime import Env

log = logging.getLogger(__name__)

LANE = "kernel invalidation"
BATCH = 256


@dataclass(frozen=True, slots=True)
class ForgetInode:
    """Drop an inode's cached attributes, and its pages too unless `attributes_only`."""

    inode: int
    attributes_only: bool = False


@dataclass(frozen=True, slots=True)
class ForgetName:
    """Drop what the kernel knows of a name in a directory, be it an inode or its absence."""

    parent: int
    name: bytes


Notice = ForgetInode | ForgetName


class Kernel(Protocol):
    """The two notices, as pyfuse3 sends them. Both block and raise OSError."""

    def invalidate_inode(self, inode: int, attr_only: bool) -> None: ...

    def invalidate_entry(self, inode_p: int, name: bytes) -> None: ...


class Invalidation:
    """The queue of notices to one kernel, and the task that sends them."""

    def __init__(self, env: Env, limit: int, kernel: Kernel = pyfuse3) -> None:
        self._env = env
        self._limit = limit
        self._kernel = kernel
        self._queue: deque[tuple[Notice, trio.Event]] = deque()
        self._wake = trio.Event()
        self._stopped = False
        self.idle = trio.Event()  # set when `run` has sent its last notice

    def submit(self, notice: Notice) -> trio.Event:
        """Queue a notice; the event comes once the kernel has carried it out.

        Never wait for the event in a handler. Raises Failure OVERLOADED when the queue is full,
        UNAVAILABLE when the mount is ending (and with it all that its kernel has cached).
        """
        if self._stopped:
            raise Failure(Code.UNAVAILABLE, "the mount is ending")
        if len(self._queue) >= self._limit:
            raise Failure(Code.OVERLOADED, f"{self._limit} kernel invalidations are waiting")
        done = trio.Event()
        self._queue.append((notice, done))
        self._wake.set()
        return done

    async def run(self) -> None:
        """Send notices until `stop`."""
        try:
            while not self._stopped:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._queue and not self._stopped:
                    await self._send_batch()
        finally:
            self.idle.set()

    def stop(self) -> None:
        """Send no more. What is being sent may still block: see `idle`."""
        self._stopped = True
        self._wake.set()

    async def _send_batch(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
        notices = [notice for notice, _ in batch]
        await self._env.run_blocking(lambda: self._send(notices), LANE)
        for _, done in batch:
            done.set()

    def _send(self, notices: list[Notice]) -> None:
        """In the thread."""
        for notice in notices:
            if self._stopped:
                return
            try:
                self._send_one(notice)
            except FileNotFoundError:
                continue
            except OSError as error:
                # The kernel of a mount that is ending; anything else would leave stale caches.
                log.error("%s: the kernel did not take %s: %s", self._env.name, notice, error)

    def _send_one(self, notice: Notice) -> None:
        match notice:
            case ForgetInode(inode, attributes_only):
                self._kernel.invalidate_inode(inode, attributes_only)
            case ForgetName(parent, name):
                self._kernel.invalidate_entry(parent, name)
