"""The leader's view of the chunkservers: who is alive, what space they have, and calling them.

Answers their registration and heartbeats, and calls them back over the connection they keep to the
leader. Owns, in the leader's memory alone, the liveness and space of each server; the registry of
addresses and the replica sets are replicated state. A server is alive while its heartbeats come:
they have a loop of their own there, so a slow disk does not look like a death. What the servers
report of their replicas is `master.reports`.
"""

from __future__ import annotations

import errno
import logging
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from dfs.config import MasterLimits
from dfs.errors import Code, Failure
from dfs.messages.cluster import (
    DeleteReplicas,
    DiskReport,
    Heartbeat,
    Registered,
    RegisterServer,
    ServerStatus,
)
from dfs.messages.common import Done
from dfs.rpc import Connection, Handlers, Request
from dfs.runtime import Env
from master import placement
from master.commands import SetServer
from master.raft import RaftNode
from master.recovery import Recovery
from master.state import queries
from master.tables import Tables

log = logging.getLogger(__name__)

CALLBACK_TIMEOUT_S = 2.0
STALLED_S = 1.0  # a data path that long without progress gets no new chunks


@dataclass(slots=True)
class LiveServer:
    """One chunkserver that has registered with this leader."""

    id: int
    address: str
    zone: str
    connection: Connection
    disks: tuple[DiskReport, ...]
    heard_at: float  # boottime
    stalled_s: float = 0.0
    recent: int = 0
    reported: bool = False  # its full report is in
    seen: array[int] = field(default_factory=lambda: array("Q"))  # chunks in it, until then

    @property
    def free_bytes(self) -> int:
        return sum(d.free_bytes for d in self.disks if d.healthy)

    @property
    def total_bytes(self) -> int:
        return sum(d.total_bytes for d in self.disks if d.healthy)


class Chunkservers:
    """All chunkservers, as the leader sees them."""

    def __init__(
        self, env: Env, raft: RaftNode, tables: Tables, cluster: str, limits: MasterLimits
    ) -> None:
        self._env, self._raft, self._tables = env, raft, tables
        self._cluster, self._limits = cluster, limits
        self._live: dict[int, LiveServer] = {}
        self._leads_since_s = 0.0  # boottime
        self.on_registered: Callable[[int], None] = _ignore
        self.on_heartbeat: Callable[[int, int], None] = _ignore_bytes  # server, client bytes
        self.on_returned: Callable[[int], None] = _ignore  # beats again, and has not registered
        self.recovery = Recovery(env, raft, tables, self.forget_all)
        self.longest_silence_s = 0.0  # between two heartbeats of a server, in this leadership

    def handlers(self) -> Handlers:
        return {
            RegisterServer: self._register,
            Heartbeat: self._heartbeat,
        }

    def forget_all(self) -> None:
        """A leadership begins or ends: every server has to register again."""
        self._live.clear()
        self.recovery.forget_all()
        self._leads_since_s = self._now()
        self.longest_silence_s = 0.0

    # -- what the rest of the leader asks

    def alive(self) -> list[LiveServer]:
        """The live servers by id."""
        now = self._now()
        live = [s for s in self._live.values() if self._is_alive(s, now)]
        return sorted(live, key=lambda s: s.id)

    def place(self, count: int, avoid: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Replica sets for `count` new chunks. Raises Failure: UNAVAILABLE, or ENOSPC."""
        self._let_servers_return()
        modes = queries.active_modes(self._tables, self._env.clock.wall_ns())
        leaving = frozenset(server for server, _ in modes)
        return tuple(self._place_one(frozenset(avoid), leaving) for _ in range(count))

    def _let_servers_return(self) -> None:
        """Just elected, the leader waits a little for servers that the registry knows.

        A chunk given out before they have registered would have fewer replicas for good.
        """
        if not self.may_return():
            return
        alive, known = len(self.alive()), len(queries.servers(self._tables))
        if alive < min(known, self._limits.chunk_replicas):
            text = f"{alive} of {known} chunkservers have registered with the new leader"
            raise Failure(Code.UNAVAILABLE, text)

    def gathering(self) -> bool:
        """Whether known servers are missing that may just be late."""
        return self.may_return() and len(self.alive()) < len(queries.servers(self._tables))

    @property
    def copies(self) -> int:
        """How many replicas a new chunk gets."""
        return self._limits.chunk_replicas

    def space(self) -> tuple[int, int]:
        """(total, free) bytes of user data that fit, replication divided out."""
        alive = self.alive()
        copies = max(1, min(self._limits.chunk_replicas, len(alive)))
        return (
            sum(s.total_bytes for s in alive) // copies,
            sum(s.free_bytes for s in alive) // copies,
        )

    def status(self) -> tuple[ServerStatus, ...]:
        """Every server of the registry, alive or not."""
        alive = {s.id: s for s in self.alive()}
        return tuple(
            _status(server, address, zone, alive.get(server))
            for server, address, zone in queries.servers(self._tables)
        )

    def find(self, server: int) -> LiveServer | None:
        """The server, if it is alive."""
        live = self._live.get(server)
        return live if live is not None and self._is_alive(live, self._now()) else None

    def connected(self, server: int) -> LiveServer | None:
        """The server, if it can be told something: connected, and its last heartbeat not overdue.

        A killed server is missed at once, one that was cut off within `server_silence_s`.
        """
        live = self._live.get(server)
        if live is None or live.connection.closed.is_set() or self._is_silent(live):
            return None
        return live

    def dead_for_s(self, server: int) -> float:
        """For how long it has counted as dead; 0: it is alive, or this leader is too young."""
        live = self._live.get(server)
        heard_at = self._leads_since_s if live is None else live.heard_at
        return max(0.0, self._now() - heard_at - self._limits.server_timeout_s)

    def forget(self, server: int) -> None:
        """It is struck from the registry."""
        self._live.pop(server, None)

    def may_return(self) -> bool:
        """Whether this leadership is so young that a server that is missing may just be late."""
        return self._now() - self._leads_since_s < self._limits.servers_return_s

    async def order(self, server: int, message: object, *, timeout_s: float) -> Any:
        """Have a server do something, over the connection it keeps; its answer. Raises Failure.

        However long the work may take, it is given up when the server's heartbeats stop.
        """
        live = self._live.get(server)
        if live is None or live.connection.closed.is_set():
            text = f"chunkserver {server} is not connected"
            raise Failure(Code.CONNECTION_LOST, text)
        failure = Failure(Code.TIMEOUT, f"chunkserver {server} is silent")
        answer = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_silent, live, nursery.cancel_scope)
            try:
                answer = (await live.connection.call(message, timeout_s=timeout_s)).message
            except Failure as error:
                failure = error
            nursery.cancel_scope.cancel()
        if answer is None:
            raise failure
        return answer

    async def _cancel_when_silent(self, live: LiveServer, scope: trio.CancelScope) -> None:
        while not self._is_silent(live):
            await self._env.clock.sleep(self._limits.server_silence_s / 4)
        scope.cancel()

    async def delete_replicas(self, server: int, handles: tuple[int, ...]) -> bool:
        """Have a server delete replicas; whether it confirmed."""
        try:
            await self.order(server, DeleteReplicas(handles), timeout_s=CALLBACK_TIMEOUT_S)
        except Failure as error:
            log.warning(
                "chunkserver %d did not delete %d replicas: %s", server, len(handles), error
            )
            return False
        return True

    # -- handlers

    async def _register(self, request: Request) -> Registered:
        message: RegisterServer = request.message
        self.must_lead()
        self._refuse_impostor(message, request.connection)
        if queries.server_entry(self._tables, message.server) != (message.address, message.zone):
            await self._raft.propose(SetServer(message.server, message.address, message.zone))
        self._live[message.server] = LiveServer(
            message.server,
            message.address,
            message.zone,
            request.connection,
            message.disks,
            self._now(),
        )
        self.on_registered(message.server)
        log.info(
            "%s: chunkserver %d registered at %s", self._env.name, message.server, message.address
        )
        return Registered(self._limits.heartbeat_s, self._raft.lineage)

    def _heartbeat(self, request: Request) -> Done:
        message: Heartbeat = request.message
        if not self._raft.is_leader():
            raise self._raft.not_leader()
        live, now = self.registered(message.server), self._now()
        self.longest_silence_s = max(self.longest_silence_s, now - live.heard_at)
        was_silent, live.heard_at = self._is_silent(live), now
        if was_silent:
            self.on_returned(live.id)
        live.disks, live.stalled_s = message.disks, message.stalled_s
        self.on_heartbeat(live.id, message.client_bytes)
        live.recent = 0  # the space it reports now accounts for what was given to it
        return Done()

    # -- inside

    def must_lead(self) -> None:
        """Judging a report needs the whole truth: a leader with a valid lease."""
        if not self._raft.is_leader():
            raise self._raft.not_leader()
        if not self._raft.may_read():
            raise Failure(Code.UNAVAILABLE, f"{self._env.name} leads but holds no lease yet")

    def _refuse_impostor(self, message: RegisterServer, connection: Connection) -> None:
        if message.cluster != self._cluster:
            text = f"chunkserver {message.server} belongs to cluster {message.cluster!r}"
            raise Failure(Code.CONFIG, f"{text}, this is {self._cluster!r}")
        if message.lineage > self._raft.lineage:
            text = f"chunkserver {message.server} belongs to the group of masters that replaced"
            text += f" the one of {self._env.name}: stop this master, its state is out of date"
            raise Failure(Code.CONFIG, f"{text} (docs/operations-metadata.md)")
        old = self._live.get(message.server)
        if old is None or old.address == message.address or old.connection is connection:
            return
        if self._is_alive(old, self._now()) and not old.connection.closed.is_set():
            text = f"id {message.server} is in use by the live chunkserver at {old.address}"
            raise Failure(Code.CONFIG, f"{text}; give {message.address} another one")

    def registered(self, server: int) -> LiveServer:
        live = self._live.get(server)
        if live is None:
            raise Failure(Code.UNAVAILABLE, f"chunkserver {server} must register first")
        return live

    def _now(self) -> float:
        return self._env.clock.boottime()

    def _is_silent(self, live: LiveServer) -> bool:
        return self._now() - live.heard_at > self._limits.server_silence_s

    def _is_alive(self, server: LiveServer, now: float) -> bool:
        return now - server.heard_at <= self._limits.server_timeout_s

    def _place_one(self, avoid: frozenset[int], leaving: frozenset[int]) -> tuple[int, ...]:
        """`leaving`: servers of which, or of a disk of which, an operator has said to spare it."""
        alive = self.alive()
        fit = [s for s in alive if s.free_bytes > 0 and s.stalled_s < STALLED_S]
        random = self._env.random
        candidates = [placement.Candidate(s.id, s.zone, s.free_bytes, s.recent) for s in fit]
        jitters = [random.random() for _ in fit]
        wanted = self._limits.chunk_replicas
        chosen = placement.choose(candidates, wanted, avoid | leaving, jitters)
        if len(chosen) < self._limits.min_replicas:
            # Who is to be avoided is the client's opinion, and may be an old one: better than none.
            everybody = placement.choose(candidates, len(candidates), (), jitters)
            rest = [server for server in everybody if server not in chosen]
            rest.sort(key=leaving.__contains__)
            chosen += tuple(rest[: self._limits.min_replicas - len(chosen)])
        if len(chosen) < self._limits.min_replicas:
            raise _too_few(len(alive), len(fit), len(chosen), self._limits.min_replicas)
        for server in chosen:
            self._live[server].recent += 1
        return chosen


def _ignore(server: int) -> None:
    pass


def _ignore_bytes(server: int, client_bytes: int) -> None:
    pass


def _too_few(alive: int, fit: int, chosen: int, needed: int) -> Failure:
    """Space is what lacks when servers are alive but full; otherwise servers lack: wait."""
    text = f"a chunk needs {needed} chunkservers, {chosen} can take it ({alive} are alive)"
    if alive >= needed and fit < needed:
        return Failure(Code.DISK, text, errno=errno.ENOSPC)
    return Failure(Code.UNAVAILABLE, text)


def _status(server: int, address: str, zone: str, live: LiveServer | None) -> ServerStatus:
    if live is None:
        return ServerStatus(server, address, zone, False, (), 0)
    replicas = sum(d.replicas for d in live.disks)
    return ServerStatus(server, address, zone, True, live.disks, replicas)
