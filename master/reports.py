"""What chunkservers report of their replicas, judged against the replicated state.

A full report after registering, page by page; then the replicas made since, and suspicions. What is
out of order becomes a note and is settled; what belongs to no chunk is named for deletion (the
server asks again after a grace before it deletes), unless a copy is just being made there or the
state itself says that it is to be deleted: that has a grace of its own (`master.janitor`).

A replica with a higher version than its chunk can only mean that the metadata are older than the
data (an old dump was loaded). It is never deleted, and never served.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable

from dfs.messages.chunks import ReplicaState
from dfs.messages.cluster import (
    ReplicaReport,
    ReportAnswer,
    ReportReplicas,
    ReportSuspicions,
    Suspicion,
)
from dfs.messages.common import Done
from dfs.rpc import Handlers, Request
from dfs.runtime import Env
from master.chunkservers import Chunkservers, LiveServer
from master.replica_notes import MISSING, Note, ReplicaNotes
from master.settling import Settling
from master.state import queries
from master.state.records import Chunk
from master.tables import Tables

log = logging.getLogger(__name__)


class Reports:
    """The handlers of reports."""

    def __init__(
        self,
        env: Env,
        tables: Tables,
        chunkservers: Chunkservers,
        notes: ReplicaNotes,
        settling: Settling,
    ) -> None:
        self._env, self._tables, self._chunkservers = env, tables, chunkservers
        self._notes, self._settling = notes, settling
        self.on_reported: Callable[[int, array[int]], None] = _ignore
        chunkservers.on_registered = self._begin

    def handlers(self) -> Handlers:
        return {ReportReplicas: self._report, ReportSuspicions: self._suspect}

    def _begin(self, server: int) -> None:
        """A server has registered: what was known of its replicas may not be so any more."""
        self._notes.drop_server(server)

    async def _report(self, request: Request) -> ReportAnswer:
        message: ReportReplicas = request.message
        self._chunkservers.must_lead()
        live = self._chunkservers.registered(message.server)
        recovery = self._chunkservers.recovery
        if recovery.under_way():
            return await recovery.report(message, request.connection)
        delete = tuple(r.handle for r in message.replicas if not self._judge(live, r))
        if message.last and not live.reported:
            live.reported, seen = True, live.seen
            live.seen = array("Q")
            self.on_reported(live.id, seen)
        return ReportAnswer(delete)

    def _judge(self, live: LiveServer, replica: ReplicaReport) -> bool:
        """Note what is out of order; whether the replica may stay."""
        server = live.id
        found = queries.chunk_by_handle(self._tables, replica.handle)
        if found is None or server not in found[2].servers:
            noted = queries.deletion_noted(self._tables, server, replica.handle)
            return noted is not None or self._notes.is_copying(server, replica.handle)
        if not live.reported:
            live.seen.append(replica.handle)
        if _in_order(replica, found[2]):
            self._notes.drop(replica.handle, server)
            return True
        if replica.version > found[2].version:
            self._log_ahead(server, replica, found)
        note = Note(replica.version, replica.state, replica.damaged, replica.length_bytes)
        self._notes.put(replica.handle, server, note)
        self._settling.need(replica.handle)
        return True

    def _log_ahead(
        self, server: int, replica: ReplicaReport, found: tuple[int, int, Chunk]
    ) -> None:
        inode, index, chunk = found
        log.error(
            "%s: chunkserver %d has version %d of chunk %x (inode %d, chunk %d), the metadata know"
            " only %d: they are older than the data. The replica is kept and not served",
            self._env.name,
            server,
            replica.version,
            replica.handle,
            inode,
            index,
            chunk.version,
        )

    def _suspect(self, request: Request) -> Done:
        message: ReportSuspicions = request.message
        self._chunkservers.must_lead()
        if not self._chunkservers.recovery.under_way():
            for suspicion in message.suspicions:
                self._weigh(message.server, suspicion)
        return Done()

    def _weigh(self, server: int, suspicion: Suspicion) -> None:
        """A suspicion of an older version is out of date: that change was settled.

        Version 0 stands for a replica that cannot even be read any more.
        """
        found = queries.chunk_by_handle(self._tables, suspicion.handle)
        if found is None or server not in found[2].servers:
            return
        if suspicion.damaged and not suspicion.version:
            self._notes.put(suspicion.handle, server, MISSING)
            self._settling.need(suspicion.handle)
        if suspicion.version != found[2].version:
            return
        if suspicion.damaged:
            log.warning(
                "%s: chunkserver %d has damaged blocks in chunk %x (inode %d, chunk %d)",
                self._env.name,
                server,
                suspicion.handle,
                *found[:2],
            )
            note = Note(suspicion.version, ReplicaState.SETTLED, damaged=True)
            self._notes.put(suspicion.handle, server, note)
            self._settling.need(suspicion.handle)
        else:
            self._settling.suspect(suspicion.handle, suspicion.version)


def _ignore(server: int, handles: array[int]) -> None:
    pass


def _in_order(replica: ReplicaReport, chunk: Chunk) -> bool:
    settled = replica.state == ReplicaState.SETTLED and not replica.damaged
    return settled and replica.version == chunk.version
