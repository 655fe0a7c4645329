"""Answers operators about scrub and quarantine, and readers who were given bad data.

Owns the walks of all disks (`scrub.Walk`) and the bounded list of what readers complained of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio

from chunkserver import format as layout
from chunkserver.datadir import DataDir
from chunkserver.scrub import Walk, verify
from chunkserver.store import Store
from dfs.config import Chunkserver
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES, CHUNK_BYTES
from dfs.messages.chunks import CheckBlocks
from dfs.messages.scrubbing import (
    ClearQuarantine,
    ControlScrub,
    GetScrubStatus,
    ListQuarantine,
    QuarantineCleared,
    QuarantinePage,
    ScrubAction,
    ScrubStatus,
)
from dfs.rpc import Handlers, Request
from dfs.runtime import Env

log = logging.getLogger(__name__)

T = TypeVar("T")


class Scrub:
    """The scrub of one server."""

    def __init__(self, env: Env, config: Chunkserver, store: Store) -> None:
        self._env, self._config, self._store = env, config, store
        self.walks = [Walk(env, store, d, config.limits) for d in store.directories]
        self._checks: dict[int, int] = {}  # handle -> bitmap of blocks to verify
        self._complaint = trio.Event()

    def handlers(self) -> Handlers:
        return {
            ControlScrub: self._control,
            GetScrubStatus: self._status,
            ListQuarantine: self._list,
            ClearQuarantine: self._clear,
            CheckBlocks: self._check,
        }

    async def load(self) -> None:
        """Take up what the last run of this server left; before anybody can give orders."""
        for walk in self.walks:
            await walk.load()

    async def run(self) -> None:
        """For ever: walk every disk, and look after complaints."""
        async with trio.open_nursery() as nursery:
            for walk in self.walks:
                nursery.start_soon(walk.run)
            nursery.start_soon(self._verify_complaints)

    async def stop(self) -> None:
        """Keep how far the walks are."""
        for walk in self.walks:
            await walk.save()

    # -- operators

    async def _control(self, request: Request) -> ScrubStatus:
        message: ControlScrub = request.message
        if message.action not in list(ScrubAction):
            raise Failure(Code.BAD_MESSAGE, f"there is no scrub action {message.action}")
        action = ScrubAction(message.action)
        for walk in self.walks:
            await walk.order(action)
        log.info("%s: scrub: an operator says %s", self._env.name, action.name.lower())
        return self._status(request)

    def _status(self, request: Request) -> ScrubStatus:
        return ScrubStatus(self._config.id, tuple(walk.status() for walk in self.walks))

    async def _list(self, request: Request) -> QuarantinePage:
        message: ListQuarantine = request.message
        limit = max(1, min(message.limit, self._config.limits.quarantine_page))
        (directory,) = self._named(message.disk)
        page = partial(directory.quarantine.page, message.after, limit + 1)
        files = await self._on(directory, page)
        return QuarantinePage(tuple(files[:limit]), len(files) <= limit)

    async def _clear(self, request: Request) -> QuarantineCleared:
        message: ClearQuarantine = request.message
        directories = self._named(message.disk) if message.disk else self._store.directories
        cleared = [await self._on(d, d.quarantine.clear) for d in directories]
        files, sizes = (sum(counts) for counts in zip(*cleared, strict=True))
        return QuarantineCleared(files, sizes)

    def _named(self, disk: str) -> list[DataDir]:
        found = [d for d in self._store.directories if d.path == disk]
        if not found:
            raise Failure(Code.CONFIG, f"chunkserver {self._config.id} has no disk {disk!r}")
        return found

    async def _on(self, directory: DataDir, work: Callable[[], T]) -> T:
        try:
            return await self._env.run_blocking(work, directory.path)
        except OSError as error:
            text = f"chunkserver {self._config.id}: {directory.quarantine.path}: {error}"
            raise Failure(Code.DISK, text, errno=error.errno or 0) from None

    # -- readers

    def _check(self, request: Request) -> None:
        """A reader was given what does not match: note the blocks, as far as there is room."""
        message: CheckBlocks = request.message
        end = message.offset + message.length_bytes
        if message.offset < 0 or message.length_bytes < 1 or end > CHUNK_BYTES:
            raise Failure(Code.BAD_MESSAGE, f"a chunk has no range [{message.offset}, {end})")
        handle = message.handle
        full = handle not in self._checks and len(self._checks) >= self._config.limits.max_checks
        if full or self._store.version_of(handle) != message.version:
            return
        blocks = layout.block_bits(message.offset // BLOCK_BYTES, layout.block_count(end))
        self._checks[handle] = self._checks.get(handle, 0) | blocks
        self._complaint.set()

    async def _verify_complaints(self) -> None:
        while True:
            self._complaint = trio.Event()
            while self._checks:
                handle = next(iter(self._checks))
                await verify(self._store, handle, self._checks.pop(handle))
            await self._complaint.wait()
