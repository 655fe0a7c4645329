"""What this server has, in the order of handles: for `dfs fsck`, which compares it with the map.

Listing reads what is in memory and touches no disk. Verifying reads a replica from its disk, a few
blocks at a time, at most `verify_bytes_per_s`, and lets everybody else go first in between.
"""

from __future__ import annotations

import errno
import logging
from bisect import bisect_right
from functools import partial

from chunkserver import format as layout
from chunkserver.replica import Replica
from chunkserver.store import Entry, Store
from dfs.checksums import checksum
from dfs.config import ChunkserverLimits
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES
from dfs.messages.chunks import ListedReplica, ListReplicas, ReplicaPage, ReplicaState
from dfs.rpc import Handlers, Request
from dfs.runtime import Env

log = logging.getLogger(__name__)

_BLOCKS_AT_A_TIME = 16


class Listing:
    """The handler of `ListReplicas`."""

    def __init__(self, env: Env, limits: ChunkserverLimits, store: Store) -> None:
        self._env, self._limits, self._store = env, limits, store

    def handlers(self) -> Handlers:
        return {ListReplicas: self._list}

    async def _list(self, request: Request) -> ReplicaPage:
        message: ListReplicas = request.message
        handles = self._store.handles()
        first = bisect_right(handles, message.after)
        limit = max(1, min(message.limit, self._limits.report_page))
        asked = handles[first : first + limit]
        found = [await self._listed(handle, message.verify) for handle in asked]
        aside = await self._quarantined() if message.after == 0 else ()
        listed = tuple(replica for replica in found if replica is not None)
        return ReplicaPage(listed, first + limit >= len(handles), aside)

    async def _listed(self, handle: int, verify: bool) -> ListedReplica | None:
        """None for one that has gone meanwhile."""
        if not self._store.has(handle):
            return None
        entry = self._store.find(handle)
        digest = ""
        if verify:
            try:
                digest = await self._verify(handle)
            except Failure as error:
                if error.code is Code.NO_REPLICA:
                    return None
                if error.code is Code.CORRUPT or error.errno == errno.EIO:
                    return _unreadable(entry)
                raise
        return _describe(entry, digest)
