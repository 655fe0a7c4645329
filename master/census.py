"""Replicas that a server should have and does not: found after every full report.

A disk may come back empty, a file may be gone, a replica may have been set aside for having no
valid header after a power loss; none of that is in a report. So the leader counts what a server has
reported of what the replica sets say that it has. When that is fewer, it walks through all chunks,
some at a time, and asks the server once more about each that was not reported (it may have been
made since) before it notes it as missing. Whoever does not answer is asked again, after a time that
doubles. What becomes of it is settling's and repair's business.

A chunk that is fresh may lack its replicas: nobody has committed a write to it.
"""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_left

import trio

from dfs.config import MasterLimits
from dfs.errors import Code, Failure
from dfs.messages.chunks import InspectReplica
from dfs.rpc import Pool
from dfs.runtime import Env
from master.chunkservers import Chunkservers
from master.raft import RaftNode
from master.repair import Repair
from master.replica_notes import MISSING, ReplicaNotes
from master.settling import Settling
from master.state import queries
from master.state.records import Chunk
from master.tables import Tables

log = logging.getLogger(__name__)

PAUSE_S = 0.02  # between two slices of the walk
AGAIN_S, AGAIN_MAX_S = 5.0, 600.0  # before another walk, for servers that did not answer


class Census:
    """One task of the leader, and the reports that are still to be gone through."""

    def __init__(
        self,
        env: Env,
        raft: RaftNode,
        tables: Tables,
        chunkservers: Chunkservers,
        notes: ReplicaNotes,
        settling: Settling,
        repair: Repair,
        limits: MasterLimits,
    ) -> None:
        self._env, self._raft, self._tables = env, raft, tables
        self._chunkservers, self._notes = chunkservers, notes
        self._settling, self._repair, self._limits = settling, repair, limits
        self._reports: dict[int, array[int]] = {}  # server -> handles of its replicas, sorted
        self._wake = trio.Event()
        self._again_s = AGAIN_S

    def restart(self) -> None:
        """A leadership begins or ends."""
        self._reports.clear()

    def reported(self, server: int, handles: array[int]) -> None:
        """The full report of a server is in; it has these chunks' replicas, as it should."""
        sets = queries.replica_sets(self._tables)
        expected = sum(count for _, servers, count in sets if server in servers)
        self._reports.pop(server, None)
        if len(handles) < expected:
            self._reports[server] = array("Q", sorted(handles))
            self._again_s = AGAIN_S
            self._wake.set()

    async def run(self, pool: Pool) -> None:
        """Work for as long as this master lives."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            unsure = await self._walk(pool)
            if self._wake.is_set():
                continue  # who reported meanwhile was not looked for from the walk's beginning
            self._reports = {s: of for s, of in self._reports.items() if s in unsure}
            if self._reports:
                await self._env.clock.wait(self._wake, self._again_s)
                self._again_s = min(AGAIN_MAX_S, 2 * self._again_s)
                self._wake.set()

    async def _walk(self, pool: Pool) -> dict[int, None]:
        """Look for all that was not reported; the servers that did not say."""
        unsure: dict[int, None] = {}
        after = (0, 0)
        while self._reports and self._raft.is_leader():
            limit = self._limits.repair_scan_chunks
            page = queries.chunks_after(self._tables, after, limit)
            for _, _, chunk in page:
                unsure.update(dict.fromkeys(await self._look_at(pool, chunk)))
            if len(page) < limit:
                break
            after = page[-1][:2]
            await self._env.clock.sleep(PAUSE_S)
        return unsure

    async def _look_at(self, pool: Pool, chunk: Chunk) -> list[int]:
        """Note what is missing of the chunk; who did not say whether it is."""
        unsure: list[int] = []
        for server in () if chunk.fresh else chunk.servers:
            handles = self._reports.get(server)
            if handles is None or _has(handles, chunk.handle):
                continue
            missing = await self._is_missing(pool, server, chunk.handle)
            if missing is None:
                unsure.append(server)
            elif missing:
                self._note(server, chunk)
        return unsure

    async def _is_missing(self, pool: Pool, server: int, handle: int) -> bool | None:
        """None: it did not answer."""
        if server in self._notes.of(handle):
            return False
        live = self._chunkservers.connected(server)
        if live is None:
            return None
        message, timeout_s = InspectReplica(handle), self._limits.server_silence_s
        try:
            await pool.call(live.address, message, timeout_s=timeout_s)
        except Failure as error:
            if error.code is Code.NO_REPLICA:
                return True
            text = "%s: whether chunkserver %d has chunk %x: %s"
            log.info(text, self._env.name, server, handle, error.message)
            return None if error.retryable else False
        return False

    def _note(self, server: int, before: Chunk) -> None:
        found = queries.chunk_by_handle(self._tables, before.handle)
        if found is None or server not in found[2].servers:
            return
        inode, index, chunk = found
        text = "%s: chunkserver %d has lost its replica of chunk %x (inode %d, chunk %d)"
        log.error(text, self._env.name, server, chunk.handle, inode, index)
        self._notes.put(chunk.handle, server, MISSING)
        self._settling.need(chunk.handle)
        self._repair.look_at(chunk.handle)


def _has(handles: array[int], handle: int) -> bool:
    at = bisect_left(handles, handle)
    return at < len(handles) and handles[at] == handle
