"""What a master answers operators: the cluster's status, membership, leadership, snapshots.

Status comes from any master, of what it knows itself; changes of membership go through the
leader.
"""

from __future__ import annotations

import dataclasses
import logging

from dfs.messages.cluster import (
    AddMaster,
    ClusterStatus,
    CreateSnapshot,
    GetClusterStatus,
    GetMasters,
    GetStateDigest,
    Masters,
    MasterStatus,
    RemoveMaster,
    TransferLeadership,
)
from dfs.messages.common import Done
from dfs.rpc import Handlers, Request
from dfs.runtime import Env
from master.chunkservers import Chunkservers
from master.raft import RaftNode
from master.state import queries, recovery
from master.tables import Tables

log = logging.getLogger(__name__)


class Operators:
    """The handlers of what operators ask."""

    def __init__(
        self, env: Env, raft: RaftNode, tables: Tables, chunkservers: Chunkservers, cluster: str
    ) -> None:
        self._env, self._raft, self._tables = env, raft, tables
        self._chunkservers, self._cluster = chunkservers, cluster

    def handlers(self) -> Handlers:
        return {
            GetClusterStatus: self._status,
            GetMasters: self._members,
            GetStateDigest: self._digest,
            AddMaster: self._add_master,
            RemoveMaster: self._remove_master,
            TransferLeadership: self._transfer,
            CreateSnapshot: self._snapshot,
        }

    def _status(self, request: Request) -> ClusterStatus:
        raft, counts = self._raft, queries.counts(self._tables)
        servers, state = self._chunkservers.status(), recovery.recovering(self._tables)
        lacks = queries.redundancy(self._tables, [s.id for s in servers if s.alive])
        return ClusterStatus(
            cluster=self._cluster,
            master=raft.id,
            leader=raft.leader_id(),
            leader_address=raft.leader_address(),
            term=raft.term,
            commit_index=raft.commit_index,
            applied_index=raft.applied_index,
            masters=self._masters(),
            servers=servers,
            sessions=counts.sessions,
            inodes=counts.inodes,
            chunks=counts.chunks,
            under_replicated=lacks.lacking,
            endangered=lacks.endangered,
            unreadable=lacks.unreadable,
            copies=self._chunkservers.copies,
            gathering=self._chunkservers.gathering(),
            recovering="" if state is None else state.source,
        )

    def _masters(self) -> tuple[MasterStatus, ...]:
        return tuple(
            MasterStatus(id, address, self._raft.state_of(id), self._raft.is_reachable(id))
            for id, address in sorted(self._raft.members().items())
        )

    def _members(self, request: Request) -> Masters:
        if not self._raft.is_leader():
            raise self._raft.not_leader()
        return Masters(tuple(address for _, address in sorted(self._raft.members().items())))

    def _digest(self, request: Request) -> ClusterStatus:
        digest = queries.state_digest(self._tables)
        return dataclasses.replace(self._status(request), state_digest=digest)

    async def _add_master(self, request: Request) -> Done:
        message: AddMaster = request.message
        if self._raft.is_leader() and self._raft.members().get(message.id) == message.address:
            return Done()  # a retry: the first answer was lost
        await self._raft.add_master(message.id, message.address)
        log.info("%s: master %d at %s added", self._env.name, message.id, message.address)
        return Done()

    async def _remove_master(self, request: Request) -> Done:
        message: RemoveMaster = request.message
        await self._raft.remove_master(message.id)
        log.info("%s: master %d removed", self._env.name, message.id)
        return Done()

    async def _transfer(self, request: Request) -> Done:
        message: TransferLeadership = request.message
        await self._raft.transfer(message.id)
        return Done()

    async def _snapshot(self, request: Request) -> Done:
        await self._raft.create_snapshot()
        return Done()
