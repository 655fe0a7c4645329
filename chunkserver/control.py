"""Keeps the leading master informed, and does what it orders.

Two conversations. The control connection lives in the server's event loop: it finds the leader,
registers, reports every replica in pages, and takes the leader's orders (`DeleteReplicas`, and what
`settling` and `fetching` carry out). Heartbeats have an event loop and a connection of their own
(`Env.run_beside`), so that nothing a disk does delays them; the two loops share one `Board` of
plain values. A heartbeat that the leader does not take makes the control connection look for the
leader anew.

Nothing is deleted on this server's own judgement. What a leader does not know is reported to it a
second time after `unknown_grace_s`, and deleted if it still does not know it then.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import trio

from chunkserver.damage import report_damage
from chunkserver.lineage import Lineage
from chunkserver.members import MembersFile
from chunkserver.store import Store
from dfs.config import Chunkserver
from dfs.errors import Code, Failure
from dfs.known_masters import KnownMasters
from dfs.messages.cluster import (
    DeleteReplicas,
    DiskReport,
    GetMasters,
    Heartbeat,
    Masters,
    Registered,
    RegisterServer,
    ReplicaReport,
    ReportAnswer,
    ReportReplicas,
)
from dfs.messages.common import Done
from dfs.rpc import Backoff, Connection, Endpoint, Handlers, Request, connect
from dfs.runtime import Env

log = logging.getLogger(__name__)

MASTERS_BEATS = 5  # heartbeats between two questions who the masters are


@dataclass(slots=True)
class Board:
    """What the two loops tell each other; each field is written by one of them.

    By the server's loop: `leader` (the address it registered with, "" for none), `heartbeat_s`,
    `disks`, `alive_at` (when that loop last ran). By the heartbeats': `refused_by`, the leader
    that said it is none or does not know this server.
    """

    heartbeat_s: float
    leader: str = ""
    disks: tuple[DiskReport, ...] = ()
    alive_at: float = 0.0
    refused_by: str = ""


class Control:
    """The control connection of one chunkserver that is reached at `address`."""

    def __init__(
        self,
        env: Env,
        endpoint: Endpoint,
        config: Chunkserver,
        store: Store,
        address: str,
        orders: Handlers,
        fetching: Mapping[int, int],
    ) -> None:
        """`orders` are what others here carry out; `fetching` has the chunks being copied here."""
        self._env, self._endpoint, self._config = env, endpoint, config
        self._store, self._address = store, address
        self._other_orders, self._fetching = orders, fetching
        self._limits = config.limits
        self._board = Board(config.limits.heartbeat_s)
        self._lineage = Lineage(env, config.data_dirs)
        self._connection: Connection | None = None
        self._hint = ""  # who leads, as a master said
        self._members = MembersFile(env, config.data_dirs)
        self._masters: KnownMasters | None = None  # not read yet
        self._asked = ""  # the last address that was tried
        self._unknown: dict[int, float] = {}  # handle -> when the master first did not know it

    @property
    def registered(self) -> bool:
        """Whether a leader knows this server."""
        return bool(self._board.leader)

    async def run(self) -> None:
        """For ever: be registered with the leader, and beat."""
        async with trio.open_nursery() as nursery:
            beats = Heartbeats(self._env, self._endpoint, self._config, self._store, self._board)
            nursery.start_soon(self._env.run_beside, beats.run)
            nursery.start_soon(self._watch)
            nursery.start_soon(self._measure)
            backoff = Backoff(self._env, self._config.rpc)
            while True:
                if await self._serve_leader() or self._hint:
                    backoff.reset()
                await backoff.wait()

    # -- the control connection

    async def _serve_leader(self) -> bool:
        """One registration, to its end; whether there was one."""
        address = await self._candidate()
        registered = False
        async with trio.open_nursery() as nursery:
            try:
                connection = await connect(self._endpoint, address, nursery, self._orders())
                await self._register(connection)
                self._connection, registered = connection, True
                await self._report_all(connection, address)
                nursery.start_soon(self._keep_tidy, connection)
                nursery.start_soon(self._report_damage, connection)
                nursery.start_soon(self._follow_masters, connection)
                await connection.closed.wait()
            except Failure as error:
                self._learn(error, address)
            self._board.leader, self._connection = "", None
            nursery.cancel_scope.cancel()
        return registered

    async def _candidate(self) -> str:
        """Whom to ask next: where the last one pointed to, or each in turn."""
        masters = await self._known_masters()
        address, self._hint = self._hint or masters.after(self._asked), ""
        self._asked = address
        return address

    async def _known_masters(self) -> KnownMasters:
        if self._masters is None:
            self._masters = KnownMasters(self._config.masters)
            self._masters.learn(await self._env.run_blocking(self._members.read, "members"))
        return self._masters

    async def _follow_masters(self, connection: Connection) -> None:
        """Remember who the masters are, for the day when all that were configured are gone."""
        timeout_s = self._limits.control_timeout_s
        while True:
            try:
                told: Masters = (await connection.call(GetMasters(), timeout_s=timeout_s)).message
            except Failure as error:
                log.debug("%s: who the masters are: %s", self._env.name, error.message)
            else:
                await self._remember(told.addresses)
            await self._env.clock.sleep(MASTERS_BEATS * self._board.heartbeat_s)

    async def _remember(self, addresses: tuple[str, ...]) -> None:
        if (await self._known_masters()).learn(addresses):
            log.info("%s: the masters are %s", self._env.name, ", ".join(addresses))
            await self._env.run_blocking(partial(self._members.write, addresses), "members")

    def _learn(self, error: Failure, address: str) -> None:
        if error.code is Code.NOT_LEADER:
            self._hint = error.detail
        for_operators = error.code in (Code.CONFIG, Code.UNAUTHENTICATED)
        level = logging.ERROR if for_operators else logging.DEBUG
        log.log(level, "%s: master at %s: %s", self._env.name, address, error.message)

    async def _register(self, connection: Connection) -> None:
        config = self._config
        self._board.disks = await self._store.measure()
        message = RegisterServer(
            config.id,
            self._address,
            config.zone,
            config.cluster,
            self._board.disks,
            await self._env.run_blocking(self._lineage.known, "lineage"),
        )
        timeout_s = self._limits.control_timeout_s
        answer: Registered = (await connection.call(message, timeout_s=timeout_s)).message
        learn = partial(self._lineage.learn, answer.lineage)
        await self._env.run_blocking(learn, "lineage")
        self._board.heartbeat_s = answer.heartbeat_s

    async def _report_all(self, connection: Connection, address: str) -> None:
        """Report every replica; heartbeats begin first, since this may take a while."""
        self._board.refused_by, self._board.leader = "", address
        self._store.take_created()  # they are among all
        reports = self._store.reports()
        page = self._limits.report_page
        pages = [tuple(reports[i : i + page]) for i in range(0, len(reports), page)] or [()]
        self._unknown.clear()
        for i, replicas in enumerate(pages):
            await self._report(connection, replicas, last=i == len(pages) - 1)
        name, count = self._env.name, len(reports)
        log.info("%s: registered with the master at %s, %d replicas", name, address, count)

    async def _report(
        self, connection: Connection, replicas: tuple[ReplicaReport, ...], *, last: bool
    ) -> tuple[int, ...]:
        """Report some replicas; those that the master does not know are remembered."""
        message = ReportReplicas(self._config.id, replicas, last)
        timeout_s = self._limits.control_timeout_s
        answer: ReportAnswer = (await connection.call(message, timeout_s=timeout_s)).message
        now = self._env.clock.monotonic()
        for handle in answer.delete:
            self._unknown.setdefault(handle, now)
        return answer.delete

    async def _keep_tidy(self, connection: Connection) -> None:
        """Delete what the master does not know, for as long as the connection lasts.

        New replicas are reported, too: a packet that was long on its way may make one again that
        has been deleted, or one that has missed a change of version. A copy is reported again and
        again until it is a member: its chunk may be deleted, or the master may think better of it.
        """
        await self._delete_unknown(connection, logging.WARNING)
        unreported: list[int] = []
        every_s = self._limits.unknown_grace_s
        joining_due = self._env.clock.monotonic() + every_s
        while True:
            left_s = joining_due - self._env.clock.monotonic()
            if not unreported and left_s > 0:
                await self._env.clock.wait(self._store.created, left_s)
            await self._env.clock.sleep(self._board.heartbeat_s)  # many at a time
            unreported += self._store.take_created()
            if self._env.clock.monotonic() >= joining_due:
                joining_due = self._env.clock.monotonic() + every_s
                unreported += [h for h in self._store.joining() if h not in self._fetching]
            if await self._report_new(connection, unreported):
                unreported = []
                # Mostly, these are of files that lived shortly.
                await self._delete_unknown(connection, logging.INFO)

    async def _report_damage(self, connection: Connection) -> None:
        damage, version_of = self._store.damage, self._store.version_of
        server = self._config.id
        await report_damage(self._env, self._limits, server, damage, version_of, connection)

    async def _report_new(self, connection: Connection, handles: list[int]) -> bool:
        """Report replicas made since the full report; whether that was possible."""
        reports = self._store.reports(handles)
        page = self._limits.report_page
        try:
            for i in range(0, len(reports), page):
                await self._report(connection, tuple(reports[i : i + page]), last=True)
        except Failure as error:
            log.info("%s: new replicas not reported yet: %s", self._env.name, error)
            return False
        return True

    async def _delete_unknown(self, connection: Connection, level: int) -> None:
        """After the grace period, ask again about what the master did not know, and delete."""
        if not self._unknown:
            return
        count, grace_s = len(self._unknown), self._limits.unknown_grace_s
        text = "%s: the master does not know %d replicas; asking again in %.0f s"
        log.log(level, text, self._env.name, count, grace_s)
        await self._env.clock.sleep(grace_s)
        reports = self._store.reports(sorted(self._unknown))
        page = self._limits.report_page
        for i in range(0, len(reports), page):
            try:
                asked = tuple(reports[i : i + page])
                unknown = await self._report(connection, asked, last=True)
                doomed = [h for h in unknown if h in self._unknown and h not in self._fetching]
                await self._delete(doomed)
            except Failure as error:
                log.warning("%s: unknown replicas are kept: %s", self._env.name, error)
                return
        self._unknown.clear()

    # -- orders

    def _orders(self) -> Handlers:
        return {DeleteReplicas: self._delete_replicas, **self._other_orders}

    def _delete_replicas(self, request: Request) -> Coroutine[Any, Any, Done]:
        message: DeleteReplicas = request.message
        return self._delete_all(message.handles)

    async def _delete_all(self, handles: tuple[int, ...]) -> Done:
        await self._delete(list(handles))
        return Done()

    async def _delete(self, handles: list[int]) -> None:
        """Delete what the master ordered. Raises Failure for the last one that failed."""
        failure = None
        for handle in handles:
            try:
                await self._delete_one(handle)
            except Failure as error:
                failure = error
        log.info("%s: deleted %d replicas as ordered", self._env.name, len(handles))
        if failure is not None:
            raise failure

    async def _delete_one(self, handle: int) -> None:
        turn = self._store.turns.enter(handle)
        try:
            await turn.wait()
            await self._store.delete(handle)
            self._unknown.pop(handle, None)
        finally:
            turn.leave()

    # -- the board

    async def _watch(self) -> None:
        """Show that this loop runs, and leave a leader that refuses the heartbeats."""
        board = self._board
        while True:
            board.alive_at = self._env.clock.monotonic()
            if self._connection is not None and board.refused_by == board.leader:
                self._connection.close()
            await self._env.clock.sleep(board.heartbeat_s / 2)

    async def _measure(self) -> None:
        """Keep the disks' figures current; a disk that hangs only makes them old."""
        while True:
            self._board.disks = await self._store.measure()
            await self._env.clock.sleep(self._board.heartbeat_s)


class Heartbeats:
    """The other loop: tells the leader of the board that this server lives."""

    def __init__(
        self, env: Env, endpoint: Endpoint, config: Chunkserver, store: Store, board: Board
    ) -> None:
        self._env, self._config, self._store, self._board = env, config, store, board
        self._endpoint = replace(endpoint)  # with buffers of its own: this is another thread
        self._connection: Connection | None = None
        self._address = ""

    async def run(self) -> None:
        """For ever."""
        async with trio.open_nursery() as nursery:
            while True:
                started = self._env.clock.monotonic()
                address = self._board.leader
                if address:
                    await self._beat(nursery, address)
                took = self._env.clock.monotonic() - started
                await self._env.clock.sleep(max(0.0, self._board.heartbeat_s - took))

    async def _beat(self, nursery: trio.Nursery, address: str) -> None:
        store = self._store
        message = Heartbeat(
            self._config.id,
            self._board.disks,
            self.stalled_s(),
            store.client_bytes,
            store.repair_bytes,
        )
        try:
            connection = await self._connected(nursery, address)
            await connection.call(message, timeout_s=self._config.limits.control_timeout_s)
        except Failure as error:
            text = "%s: heartbeat to %s failed: %s"
            log.warning(text, self._env.name, address, error.message)
            self._board.refused_by = address

    async def _connected(self, nursery: trio.Nursery, address: str) -> Connection:
        old = self._connection
        if old is not None and self._address == address and not old.closed.is_set():
            return old
        if old is not None:
            old.close()
        self._connection = await connect(self._endpoint, address, nursery)
        self._address = address
        return self._connection

    def stalled_s(self) -> float:
        """For how long a disk, or the server's loop as a whole, has made no progress."""
        now = self._env.clock.monotonic()
        loop_s = now - self._board.alive_at - self._board.heartbeat_s
        since = self._store.busy_since()
        return max(0.0, loop_s, 0.0 if since is None else now - since)
