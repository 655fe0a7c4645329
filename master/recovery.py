"""The leader's part of a recovery: the chunk map learns from what the chunkservers have.

A state from a dump, or from one surviving master, may be older than the data (`master.state.
recovery` has what that means). While it is under way

    names and attributes   can be read
    file data              can be read once every chunkserver of the registry has reported all it
                           has: before, a map might lead to a replica that was left behind
    changes                wait (UNAVAILABLE, which clients repeat)
    nothing                is reaped, deleted, repaired or settled: the map is not the truth yet

and every report of a chunkserver goes to `report` instead of being judged by the map:

    version above the map's     the chunk takes that version, with the servers that have it
    of the version taken        that server belongs to the set, too
    handle unknown              kept: data of a file made, or of a file whose chunk was made, after
                                the state that was loaded
    JOINING                     was being made, never was a replica: counts for nothing

An operator looks at it (`dfs meta recovered`) and ends it; then every server registers anew and is
judged as always. What each server reported is known to this leader alone, the versions taken are
replicated: a new leader begins to ask again, and loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import trio

from dfs.errors import Code, Failure
from dfs.messages.chunks import ReplicaState
from dfs.messages.cluster import ReplicaReport, ReportAnswer, ReportReplicas
from dfs.messages.metadata import GetChunks, Submit
from dfs.messages.recovery import GetRecovery, RecoveryStatus
from dfs.rpc import Connection, Handlers, Request
from dfs.runtime import Env
from master import tables as names
from master.commands import Adoption, AdoptReplicas, EndRecovery
from master.raft import RaftNode
from master.state import queries
from master.state.records import Chunk, key_number
from master.state.recovery import recovering
from master.tables import Tables

log = logging.getLogger(__name__)

ADOPTIONS_PER_COMMAND = 1024
MISSING_SHOWN = 100
_SCANNED_AT_ONCE = 1024  # chunks looked at before others have their turn
_BITS = 15  # of a handle within a page of `Handles`


class Handles:
    """A set of chunk handles: one bit each, in pages, since they lie close together."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def add(self, handle: int) -> None:
        page = self._pages.setdefault(handle >> _BITS, bytearray(1 << (_BITS - 3)))
        page[(handle >> 3) & ((1 << (_BITS - 3)) - 1)] |= 1 << (handle & 7)

    def __contains__(self, handle: int) -> bool:
        page = self._pages.get(handle >> _BITS)
        at = (handle >> 3) & ((1 << (_BITS - 3)) - 1)
        return page is not None and bool(page[at] & (1 << (handle & 7)))


@dataclass(slots=True)
class Tally:
    """What one chunkserver has reported over one connection."""

    connection: Connection
    complete: bool = False
    replicas: int = 0
    unknown: int = 0
    unknown_bytes: int = 0
    behind: int = 0  # of a lower version than the chunk's


class Recovery:
    """One leader's view of it. `ended` is called when it is over."""

    def __init__(self, env: Env, raft: RaftNode, tables: Tables, ended: Callable[[], None]) -> None:
        self._env, self._raft, self._tables, self._ended = env, raft, tables, ended
        self.forget_all()

    def forget_all(self) -> None:
        """A leadership begins or ends: every server has to report again."""
        self._tallies: dict[int, Tally] = {}
        self._found, self._adopted = Handles(), Handles()

    def handlers(self) -> Handlers:
        return {GetRecovery: self._get}

    def under_way(self) -> bool:
        """Whether the chunk map is not to be trusted yet."""
        return recovering(self._tables) is not None

    # -- what waits

    def guarding(self, handlers: Handlers) -> Handlers:
        """These handlers, of which those that need the truth about chunks wait for it."""
        guarded = dict(handlers)
        guarded[Submit] = partial(self._guarded, handlers[Submit], self._check_changes)
        guarded[GetChunks] = partial(self._guarded, handlers[GetChunks], self._check_data)
        return guarded

    def _guarded(
        self, handler: Callable[[Request], Any], check: Callable[[], None], request: Request
    ) -> Any:
        if self.under_way():
            check()
        return handler(request)

    def _check_changes(self) -> None:
        text = "the cluster recovers; nothing can be changed until `dfs meta recovered` ends it"
        raise Failure(Code.UNAVAILABLE, text)

    def _check_data(self) -> None:
        for server, _, _ in queries.servers(self._tables):
            if server not in self._tallies or not self._tallies[server].complete:
                text = f"the cluster recovers; chunkserver {server} has not reported what it has"
                raise Failure(Code.UNAVAILABLE, text)

    # -- what the servers have

    async def report(self, message: ReportReplicas, connection: Connection) -> ReportAnswer:
        """Learn from a page of a server's report. Nothing is to be deleted."""
        tally = self._tallies.get(message.server)
        if tally is None or tally.connection is not connection:
            tally = self._tallies[message.server] = Tally(connection)
        adoptions: list[Adoption] = []
        for replica in message.replicas:
            adoptions += self._learn(message.server, replica, tally)
        for i in range(0, len(adoptions), ADOPTIONS_PER_COMMAND):
            some = tuple(adoptions[i : i + ADOPTIONS_PER_COMMAND])
            await self._raft.propose(AdoptReplicas(some))
        if message.last and not tally.complete:
            tally.complete = True
            text = "%s: recovery: chunkserver %d has %d replicas, %d unknown, %d behind"
            counts = (tally.replicas, tally.unknown, tally.behind)
            log.info(text, self._env.name, message.server, *counts)
        return ReportAnswer(())

    def _learn(self, server: int, replica: ReplicaReport, tally: Tally) -> list[Adoption]:
        """What follows from one replica, for the chunk map."""
        handle, version = replica.handle, replica.version
        tally.replicas += 1
        known = queries.chunk_by_handle(self._tables, handle)
        if known is None:
            tally.unknown += 1
            tally.unknown_bytes += replica.length_bytes
            return []
        if replica.state == ReplicaState.JOINING:
            return []
        chunk = known[2]
        if version > chunk.version:
            self._found.add(handle)
            self._adopted.add(handle)
            return [Adoption(handle, version, server, True)]
        tally.behind += version < chunk.version
        if server in chunk.servers:
            self._found.add(handle)
        elif version == chunk.version and handle in self._adopted:
            return [Adoption(handle, version, server, True)]
        return []

    # -- for operators

    async def _get(self, request: Request) -> RecoveryStatus:
        message: GetRecovery = request.message
        if not self._raft.may_read():
            raise self._raft.not_leader()
        if message.finish and self.under_way():
            await self._raft.propose(EndRecovery())
            log.warning("%s: the recovery is ended by an operator", self._env.name)
            self._ended()
        return await self._status()

    async def _status(self) -> RecoveryStatus:
        state = recovering(self._tables)
        if state is None:
            return RecoveryStatus(False)
        missing, count = await self._missing()
        return RecoveryStatus(
            True,
            state.source,
            state.since_ns,
            state.adopted,
            tuple(self._row(server) for server, _, _ in queries.servers(self._tables)),
            queries.counts(self._tables).chunks,
            count,
            tuple(missing),
        )

    def _row(self, server: int) -> tuple[int, ...]:
        tally = self._tallies.get(server)
        if tally is None:
            return (server, 0, 0, 0, 0, 0)
        complete = int(tally.complete)
        counts = (tally.replicas, tally.unknown, tally.unknown_bytes, tally.behind)
        return (server, complete, *counts)

    async def _missing(self) -> tuple[list[tuple[int, ...]], int]:
        """The first chunks without a replica that was reported, and how many there are.

        A fresh chunk was never written to, so it needs none.
        """
        first: list[tuple[int, ...]] = []
        count, chunks = 0, self._tables.scan(names.CHUNKS)
        while page := list(islice(chunks, _SCANNED_AT_ONCE)):
            for chunk_key, value in page:
                chunk = Chunk.decode(value)
                if chunk.fresh or chunk.handle in self._found:
                    continue
                count += 1
                if len(first) < MISSING_SHOWN:
                    place = (key_number(chunk_key), key_number(chunk_key, 8))
                    first.append((*place, chunk.handle))
            await trio.lowlevel.checkpoint()
        return first, count
