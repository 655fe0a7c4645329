"""What this server has, in the order of handles: for `dfs fsck`, which compares it with the map.

Listing looks at what is in memory and touches no disk. Verifying looks for the replica's file and
reads it from its disk, a few blocks at a time and at most `verify_bytes_per_s`; in between anybody
else has the replica's turn. What it finds is remembered and reported as what the scrub finds is.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from functools import partial

from chunkserver import format as layout
from chunkserver.replica import Replica
from chunkserver.store import Store
from chunkserver.verify import verify_blocks
from dfs.config import ChunkserverLimits
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES, BLOCKS_PER_CHUNK
from dfs.messages.chunks import ListedReplica, ListReplicas, ReplicaPage
from dfs.rpc import Handlers, Request
from dfs.runtime import Env

log = logging.getLogger(__name__)

_BLOCKS_AT_A_TIME = 16
_BITMAP_BYTES = BLOCKS_PER_CHUNK // 8
_QUARANTINED_MAX = 1000  # paths named in one answer


class Listing:
    """The handler of `ListReplicas`."""

    def __init__(self, env: Env, limits: ChunkserverLimits, store: Store) -> None:
        self._env, self._limits, self._store = env, limits, store
        self._order: list[int] = []  # the handles when a first page was asked for

    def handlers(self) -> Handlers:
        return {ListReplicas: self._list}

    async def _list(self, request: Request) -> ReplicaPage:
        message: ListReplicas = request.message
        limit = max(1, min(message.limit, self._limits.report_page))
        aside = () if message.after or message.up_to else await self._quarantined()
        listed: list[ListedReplica] = []
        after, complete = message.after, False
        while not listed and not complete:  # a page whose replicas have gone is no page
            handles, complete = self._page(message, after, limit)
            listed = await self._look(handles, verify=message.verify)
            after = handles[-1] if handles else after
        return ReplicaPage(tuple(listed), complete, aside)

    async def _look(self, handles: list[int], *, verify: bool) -> list[ListedReplica]:
        digests: dict[int, str] = {}
        if verify:
            for handle in handles:
                digests[handle] = await self._verify(handle)
        return [self._listed(h, digests.get(h, "")) for h in handles if self._store.has(h)]

    def _page(self, message: ListReplicas, after: int, limit: int) -> tuple[list[int], bool]:
        """The handles that are next, and whether none follow."""
        if message.up_to:
            end = min(message.up_to, after + limit)
            return list(range(after + 1, end + 1)), end >= message.up_to
        if message.after == 0 or not self._order:
            self._order = self._store.handles()
        first = bisect_right(self._order, after)
        complete = first + limit >= len(self._order)
        page = self._order[first : first + limit]
        if complete:
            self._order = []
        return page, complete

    def _listed(self, handle: int, digest: str) -> ListedReplica:
        entry, (report,) = self._store.find(handle), self._store.reports([handle])
        damaged = self._store.damage.blocks(handle)
        return ListedReplica(
            handle,
            report.version,
            entry.generation,
            report.length_bytes,
            report.state,
            entry.directory.path,
            damaged.bit_count(),
            damaged.to_bytes(_BITMAP_BYTES, "big") if damaged else b"",
            digest,
        )

    # -- verifying

    async def _verify(self, handle: int) -> str:
        """Read all of it; its digest, "" for one that cannot be read, or is gone.

        What is damaged is remembered by the replica itself.
        """
        block = 0
        while block < BLOCKS_PER_CHUNK:
            started = self._env.clock.monotonic()
            try:
                more, digest = await self._in_turn(handle, block)
            except Failure as error:
                if error.code is not Code.NO_REPLICA:
                    log.warning("%s: replica %x: %s", self._env.name, handle, error.message)
                return ""
            if not more:
                return digest
            block += _BLOCKS_AT_A_TIME
            due_s = _BLOCKS_AT_A_TIME * BLOCK_BYTES / self._limits.verify_bytes_per_s
            took_s = self._env.clock.monotonic() - started
            await self._env.clock.sleep(max(0.0, due_s - took_s))
        return digest

    async def _in_turn(self, handle: int, block: int) -> tuple[bool, str]:
        """Verify some blocks; whether there are more, and the replica's digest."""
        turn = self._store.turns.enter(handle)
        try:
            await turn.wait()
            entry = self._store.find(handle)
            if block == 0:
                await self._store.must_exist(entry)
            stop = block + _BLOCKS_AT_A_TIME
            wanted = layout.block_bits(block, stop)
            await self._store.verify(
                entry, partial(verify_blocks, wanted, entry.directory.writable)
            )
            digest = await self._store.run(entry, Replica.digest)
            return stop < layout.block_count(entry.length_bytes), f"{digest:016x}"
        finally:
            turn.leave()

    async def _quarantined(self) -> tuple[str, ...]:
        """What has been set aside for people to look at."""
        found: list[str] = []
        for directory in self._store.directories:
            quarantine = directory.quarantine
            work = partial(quarantine.page, "", _QUARANTINED_MAX)
            try:
                files = await self._env.run_blocking(work, directory.path)
            except OSError as error:
                log.warning("%s: %s cannot be listed: %s", self._env.name, quarantine.path, error)
                continue
            found += [f"{quarantine.path}/{file.name}" for file in files]
        return tuple(found[:_QUARANTINED_MAX])
