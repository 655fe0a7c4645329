"""Carrying out one step of a repair: a copy that joins its chunk, or a removal.

A copy: the target fetches the chunk into a replica that does not count yet; then it is committed
as a member and settled with the others, which brings what was written meanwhile. A removal is
committed and the rest settled. Both end well only when the chunk's new version serves. Whatever is
interrupted leaves a state that the next plan starts from.

A fresh chunk that nobody has written to has nothing to be copied: the target becomes a member that
has no replica, as the others are, and whoever writes first makes all of them.
"""

from __future__ import annotations

import logging

from dfs.config import MasterLimits
from dfs.errors import Code, Failure
from dfs.messages.chunks import ReplicaState
from dfs.messages.cluster import FetchReplica
from dfs.messages.common import Refused
from dfs.runtime import Env
from master.chunkservers import Chunkservers
from master.commands import ChangeReplicas, ReplicaChange
from master.raft import RaftNode
from master.repair_plan import Copy, Remove
from master.replica_notes import MISSING, Note, ReplicaNotes
from master.settling import Settling
from master.state import queries
from master.state.records import Chunk
from master.tables import Tables

log = logging.getLogger(__name__)

JOIN_ATTEMPTS = 4  # a client may change the set at the same moment, more than once


class RepairSteps:
    """Does what `repair_plan` decided."""

    def __init__(
        self,
        env: Env,
        raft: RaftNode,
        tables: Tables,
        chunkservers: Chunkservers,
        notes: ReplicaNotes,
        settling: Settling,
        limits: MasterLimits,
    ) -> None:
        self._env, self._raft, self._tables = env, raft, tables
        self._chunkservers, self._notes = chunkservers, notes
        self._settling, self._limits = settling, limits

    async def copy(self, chunk: Chunk, step: Copy, size_bytes: int, bytes_per_s: int) -> bool:
        """Whether the target has a settled replica now. Raises Failure."""
        self._notes.begin_copy(step.target, chunk.handle)
        try:
            has_copy = await self._fetched(chunk, step, size_bytes, bytes_per_s)
            return await self._join(chunk.handle, step.target, has_copy=has_copy)
        finally:
            self._notes.end_copy(step.target, chunk.handle)

    async def _fetched(self, chunk: Chunk, step: Copy, size_bytes: int, bytes_per_s: int) -> bool:
        """Have the target fetch it; False when nobody has anything yet. Raises Failure."""
        sources = tuple(map(self._address, step.sources))
        message = FetchReplica(chunk.handle, chunk.version, sources, bytes_per_s)
        paced_s = 2 * size_bytes / bytes_per_s if bytes_per_s else 0.0
        timeout_s = self._limits.repair_timeout_s + paced_s
        try:
            await self._chunkservers.order(step.target, message, timeout_s=timeout_s)
        except Failure as failure:
            if failure.code is Code.NO_REPLICA and chunk.fresh:
                return False
            raise
        return True

    async def remove(self, chunk: Chunk, step: Remove) -> bool:
        """Whether these are out and the others serve. Raises Failure."""
        staying = tuple(s for s in chunk.servers if s not in step.servers)
        changed = await self._commit(chunk, staying)
        return changed is not None and await self._settled(changed)

    async def _join(self, handle: int, target: int, *, has_copy: bool) -> bool:
        for _ in range(JOIN_ATTEMPTS):
            found = queries.chunk_by_handle(self._tables, handle)
            if found is None:
                return True  # deleted meanwhile; what was copied is nobody's now
            chunk = found[2]
            # Before it is a member: it must never be taken for a complete one.
            joining = Note(chunk.version, ReplicaState.JOINING)
            self._notes.put(handle, target, joining if has_copy else MISSING)
            servers = chunk.servers if target in chunk.servers else (*chunk.servers, target)
            changed = await self._commit(chunk, servers)
            if changed is not None:
                settled = await self._settled(changed)
                return settled and target not in self._notes.of(handle)
        raise Failure(Code.UNAVAILABLE, f"chunk {handle:x}: its replica set kept changing")

    async def _commit(self, chunk: Chunk, servers: tuple[int, ...]) -> Chunk | None:
        """The chunk with its new set; None when it was changed by somebody else first."""
        change = ReplicaChange(chunk.handle, chunk.version, servers)
        answer = await self._raft.propose(ChangeReplicas((change,)))
        if isinstance(answer, Refused):
            raise Failure(Code(answer.code), answer.message)
        found = queries.chunk_by_handle(self._tables, chunk.handle)
        if found is None or found[2].version != chunk.version + 1 or found[2].servers != servers:
            return None
        self._settling.changed(chunk.handle, found[2].version)
        return found[2]

    async def _settled(self, chunk: Chunk) -> bool:
        timeout_s = 2 * self._limits.settle_timeout_s
        if not await self._settling.until_settled((chunk.handle,), timeout_s):
            text = f"chunk {chunk.handle:x}: version {chunk.version} is not settled in time"
            raise Failure(Code.TIMEOUT, text)
        return True

    def _address(self, server: int) -> str:
        entry = queries.server_entry(self._tables, server)
        return "" if entry is None else entry[0]
