"""Chunkservers in memory for tests of the master: the control connection's protocol over real RPC.

They register, report, beat and obey (`SettleChunk`, `FetchReplica`, `DeleteReplicas`); what a
replica holds is a short text. Settling and copying reach the other servers directly, as far as the
test lets them, and keep to the rules that real ones keep to: whoever is fenced serves nobody, the
source serves last, a joining replica is none before it is settled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from dfs.client import Client, open_client
from dfs.config import Client as ClientConfig
from dfs.config import Master, MasterLimits, Rpc
from dfs.errors import Code, Failure
from dfs.messages.chunks import ListedReplica, ListReplicas, ReplicaPage, ReplicaState
from dfs.messages.cluster import (
    DeleteReplicas,
    DiskReport,
    FetchReplica,
    Heartbeat,
    Registered,
    RegisterServer,
    ReplicaReport,
    ReportAnswer,
    ReportReplicas,
    SettleChunk,
    Settled,
)
from dfs.messages.common import ROOT, Attributes, Done
from dfs.messages.metadata import ChunkLocation, ChunkMap
from dfs.messages.operations import AllocateChunks, CommitWrite, Create, DropReplicas
from dfs.rpc import Connection, Endpoint, Identity, Request, connect
from dfs.runtime import Env
from dfs.runtime.sim import World
from master.server import MasterServer

KEY = b"the key of a simulated cluster"
PORT = 7000
HEARTBEAT_S = 0.2
GIB = 1 << 30
STATES = ReplicaState


@dataclass
class FakeReplica:
    version: int
    content: str
    state: int = STATES.SETTLED
    damaged: bool = False
    disk: str = "/a"


@dataclass
class FakeServer:
    """One server; its replicas outlive its runs, as on a disk."""

    id: int
    zone: str
    cluster: FakeCluster
    disks: list[DiskReport] = field(default_factory=lambda: [DiskReport("/a", GIB, GIB, 0, True)])
    replicas: dict[int, FakeReplica] = field(default_factory=dict)
    unreachable: list[int] = field(default_factory=list)  # servers that this one cannot reach
    failing: dict[type, Failure] = field(default_factory=dict)  # orders that fail
    hanging: list[type] = field(default_factory=list)  # orders that are not answered
    orders: list[Any] = field(default_factory=list)
    deletes: tuple[int, ...] = ()  # what the last report was told to delete
    registered: bool = False
    client_bytes: int = 0
    repair_bytes: int = 0
    copy_delay_s: float = 0.0
    connection: Connection | None = None

    @property
    def address(self) -> str:
        return f"chunkserver-{self.id}:{PORT}"

    @property
    def name(self) -> str:
        return f"chunkserver-{self.id}"

    async def run(
        self, env: Env, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        endpoint = Endpoint(env, KEY, Identity("chunkserver", self.id, self.address), Rpc())
        task_status.started()
        while True:
            for master in self.cluster.masters.values():
                await self._serve(env, endpoint, master)
            await env.clock.sleep(HEARTBEAT_S)

    async def _serve(self, env: Env, endpoint: Endpoint, master: str) -> None:
        orders = {
            SettleChunk: self._ordered,
            FetchReplica: self._ordered,
            DeleteReplicas: self._ordered,
            ListReplicas: self._ordered,
        }
        async with trio.open_nursery() as nursery:
            try:
                connection = await connect(endpoint, master, nursery, orders)
                message = RegisterServer(self.id, self.address, self.zone, "sim", tuple(self.disks))
                answer = (await connection.call(message, timeout_s=1)).message
                assert isinstance(answer, Registered)
                self.connection = connection
                await self.report()
                self.registered = True
                while not connection.closed.is_set():
                    await connection.call(self._heartbeat(), timeout_s=1)
                    await env.clock.sleep(HEARTBEAT_S)
            except Failure:
                pass
            self.registered, self.connection = False, None
            nursery.cancel_scope.cancel()

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(self.id, tuple(self.disks), 0.0, self.client_bytes, self.repair_bytes)

    async def report(self) -> None:
        assert self.connection is not None
        reports = [
            ReplicaReport(h, r.version, len(r.content), r.state, r.damaged)
            for h, r in sorted(self.replicas.items())
        ]
        half = len(reports) // 2
        for page, last in ((reports[:half], False), (reports[half:], True)):
            message = ReportReplicas(self.id, tuple(page), last)
            answer: ReportAnswer = (await self.connection.call(message, timeout_s=1)).message
            self.deletes = answer.delete

    # -- orders

    async def _ordered(self, request: Request) -> object:
        message = request.message
        self.orders.append(message)
        if type(message) in self.hanging:
            await trio.sleep_forever()
        if type(message) in self.failing:
            raise self.failing[type(message)]
        if isinstance(message, SettleChunk):
            return self._settle(message)
        if isinstance(message, FetchReplica):
            return await self._fetch(message)
        if isinstance(message, ListReplicas):
            return self._list(message)
        for handle in message.handles:
            self.replicas.pop(handle, None)
        return Done()

    def _reach(self, address: str) -> FakeServer:
        other = self.cluster.by_address(address)
        alive = self.cluster.world.is_alive(other.name)
        if not alive or other.id in self.unreachable:
            text = f"{self.address} cannot reach {address}"
            raise Failure(Code.CHAIN_BROKEN, text, detail=address)
        return other

    def _settle(self, message: SettleChunk) -> Settled:
        source = self.replicas.get(message.handle)
        if source is None:
            raise Failure(Code.NO_REPLICA, "none here", detail=self.address)
        assert source.state != STATES.JOINING, "a joining replica is never a source"
        if source.version > message.version:
            raise Failure(Code.STALE_VERSION, "newer here", detail=self.address)
        others = [self._reach(address) for address in message.chain]
        for other in others:
            other.fence(message, joining=other.address in message.joining)
        copied = sum(o.replicas[message.handle].content != source.content for o in others)
        damaged = source.damaged and all(o.replicas[message.handle].damaged for o in others)
        for other in (*others, self):
            replica = other.replicas[message.handle]
            replica.content, replica.version = source.content, message.version
            replica.state, replica.damaged = STATES.SETTLED, damaged
        return Settled(1, 1, copied, b"\x01" if damaged else b"")

    def fence(self, message: SettleChunk, *, joining: bool) -> None:
        replica = self.replicas.get(message.handle)
        if replica is None:
            if not joining:
                raise Failure(Code.NO_REPLICA, "none here", detail=self.address)
            replica = self.replicas[message.handle] = FakeReplica(0, "")
        if replica.version > message.version:
            raise Failure(Code.STALE_VERSION, "newer here", detail=self.address)
        replica.version = message.version
        if joining:
            replica.state = STATES.JOINING
        else:
            assert replica.state != STATES.JOINING, "it holds no complete replica"
            replica.state = max(replica.state, STATES.UNSETTLED)

    async def _fetch(self, message: FetchReplica) -> Done:
        for address in message.sources:
            source = self._reach(address).replicas.get(message.handle)
            if source is not None and source.state == STATES.SETTLED:
                await self.cluster.world.clock.sleep(self.copy_delay_s)
                copy = FakeReplica(message.version, source.content, STATES.JOINING)
                self.replicas[message.handle] = copy
                return Done()
        raise Failure(Code.NO_REPLICA, "no source has it", detail=message.sources[0])

    def _list(self, message: ListReplicas) -> ReplicaPage:
        found = [
            ListedReplica(h, r.version, 0, len(r.content), r.state, r.disk)
            for h, r in sorted(self.replicas.items())
            if h > message.after
        ]
        return ReplicaPage(tuple(found[: message.limit]), len(found) <= message.limit)


class FakeCluster:
    """Real masters, fake servers, and a client, on the simulated world."""

    def __init__(
        self,
        world: World,
        directory: Path,
        zones: str,
        *,
        masters: int = 1,
        limits: MasterLimits | None = None,
    ) -> None:
        """`zones`: one letter per server, its zone."""
        self.world = world
        self.limits = limits or MasterLimits()
        self.masters = {n: f"master-{n}:{PORT}" for n in range(1, masters + 1)}
        self.servers = {n: FakeServer(n, zone, self) for n, zone in enumerate(zones, 1)}
        self.running: dict[str, MasterServer] = {}
        self._key_file = directory / "key"
        self._key_file.write_bytes(KEY)

    async def start(self) -> None:
        for n in self.masters:
            await self.world.start(f"master-{n}", partial(self._run_master, n))
        for server in self.servers.values():
            await self.world.start(server.name, server.run)
        await self.until(lambda: all(s.registered for s in self.servers.values()))

    async def _run_master(
        self, n: int, env: Env, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        config = Master(
            cluster="sim",
            id=n,
            listen=self.masters[n],
            data_dir="/data",
            key_file=str(self._key_file),
            masters={str(id): address for id, address in self.masters.items()},
            limits=self.limits,
        )
        server = MasterServer(env, config, KEY)
        self.running[env.name] = server
        await server.run(trio.Event(), task_status=task_status)

    def by_address(self, address: str) -> FakeServer:
        return next(s for s in self.servers.values() if s.address == address)

    def leader(self) -> MasterServer | None:
        for name, server in sorted(self.running.items()):
            if self.world.is_alive(name) and server.raft.may_read():
                return server
        return None

    def leading(self) -> MasterServer:
        leader = self.leader()
        assert leader is not None
        return leader

    async def until(self, condition: Any, timeout_s: float = 120.0) -> None:
        """Wait on the virtual clock until the condition holds."""
        until_s = self.world.clock.monotonic() + timeout_s
        while not condition():
            assert self.world.clock.monotonic() < until_s, "it never came to hold"
            await self.world.clock.sleep(0.05)

    def kill(self, *servers: int, **how: bool) -> None:
        for server in servers:
            self.world.crash(f"chunkserver-{server}", **how)

    def restart(self, *servers: int) -> None:
        for server in servers:
            self.world.restart(f"chunkserver-{server}")

    async def back(self, *servers: int) -> None:
        """Start killed servers again and wait until they have reported."""
        for server in servers:
            self.servers[server].registered = False
        self.restart(*servers)
        await self.until(lambda: all(self.servers[s].registered for s in servers))

    @asynccontextmanager
    async def client(self) -> AsyncIterator[FakeWriter]:
        config = ClientConfig("sim", str(self._key_file), tuple(self.masters.values()))
        async with open_client(self.world.env("client"), config, "client") as client:
            yield FakeWriter(self, client)


class FakeWriter:
    """Makes chunks as a client does, with replicas at the fake servers."""

    def __init__(self, cluster: FakeCluster, client: Client) -> None:
        self.cluster, self.client = cluster, client
        self.inode = 0

    async def make(self, count: int = 1, *, written: bool = True) -> list[ChunkLocation]:
        """A file of so many chunks; with `written` they are fresh no more."""
        root = self.client.root_inode
        created = await self.client.perform(
            Create(root, b"f%d" % self.cluster.world.clock.wall_ns(), 0o644, False, ROOT)
        )
        assert isinstance(created, Attributes)
        self.inode = created.inode
        answer = await self.client.perform(AllocateChunks(self.inode, 0, count, ()))
        assert isinstance(answer, ChunkMap)
        for chunk in answer.chunks:
            for replica in chunk.replicas if written else ():
                content = f"data of {chunk.handle}"
                self.cluster.servers[replica.server].replicas[chunk.handle] = FakeReplica(
                    1, content
                )
        if written:
            told = tuple(n for c in answer.chunks for n in (c.index, c.handle))
            await self.client.perform(CommitWrite(self.inode, count << 26, ROOT, written=told))
        return list(answer.chunks)

    async def chunk(self, index: int = 0) -> ChunkLocation:
        return (await self.chunks())[index]

    async def chunks(self) -> list[ChunkLocation]:
        return list((await self.client.chunk_map(self.inode, 0, 1024)).chunks)

    async def drop(self, chunk: ChunkLocation, *failed: int) -> ChunkLocation:
        """What a client does whose write has failed; the chunk as the answer has it."""
        operation = DropReplicas(self.inode, chunk.index, chunk.handle, chunk.version, failed)
        answer = await self.client.perform(operation)
        assert isinstance(answer, ChunkMap)
        return answer.chunks[0]

    def replicas(self, chunk: ChunkLocation) -> list[FakeReplica | None]:
        """Those of the chunk's set, in chain order."""
        servers = self.cluster.servers
        return [servers[r.server].replicas.get(chunk.handle) for r in chunk.replicas]

    def is_settled(self, chunk: ChunkLocation) -> bool:
        """Whether every replica of the set serves the chunk's version, all with one content."""
        found = self.replicas(chunk)
        contents = {r.content for r in found if r is not None}
        return len(contents) == 1 and all(
            r is not None and r.version == chunk.version and r.state == STATES.SETTLED
            for r in found
        )

    async def until_settled(self, timeout_s: float = 120.0) -> list[ChunkLocation]:
        until_s = self.cluster.world.clock.monotonic() + timeout_s
        while True:
            chunks = await self.chunks()
            if chunks and all(map(self.is_settled, chunks)):
                return chunks
            assert self.cluster.world.clock.monotonic() < until_s, f"never settled: {chunks}"
            await self.cluster.world.clock.sleep(0.05)


def servers_of(chunk: ChunkLocation) -> list[int]:
    return [r.server for r in chunk.replicas]
