"""A cluster to test the client on: the real state machine behind fake masters, fake chunkservers.

All masters share one state machine, so a failover is a change of `leader`. What goes wrong is
ordered by the test: `before` and `after` hold failures for the next requests, raised instead of
answering or, with the operation applied, instead of the answer ("drop": the connection ends).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import trio

from dfs.client import Client, OpenFile, open_client
from dfs.config import Client as ClientConfig
from dfs.config import ClientLimits, Rpc
from dfs.errors import Code, Failure
from dfs.layout import ROOT_INODE
from dfs.messages import metadata as md
from dfs.messages.cluster import GetMasters, Masters
from dfs.messages.common import ROOT, Attributes, Done, Refused
from dfs.messages.operations import AllocateChunks, Create, DropReplicas, SetAttributes
from dfs.rpc import Endpoint, Handlers, Identity, Request, serve
from dfs.rpc.codec import encode
from dfs.runtime import Env
from dfs.runtime.sim import World
from master.commands import (
    ApplyOperations,
    BeginSession,
    CommandBatch,
    EndSession,
    ReapOrphans,
    SetServer,
)
from master.state import StateMachine, queries
from tests.client.fake_chunkserver import FakeChunkserver
from tests.master.state.memory_tables import MemoryTables

A = TypeVar("A")

KEY = b"a key for tests, long enough"
COPIES = 3


class FakeMasters:
    """The masters' common state, and the handlers of each."""

    def __init__(self, env: Env, ttl_s: float) -> None:
        self._env, self._ttl_s = env, ttl_s
        self.tables = MemoryTables()
        self.machine = StateMachine(self.tables)
        self.addresses: list[str] = []
        self.leader = 0
        self.servers: dict[int, FakeChunkserver] = {}
        self.full: tuple[int, ...] = ()
        self.opens: dict[int, set[int]] = {}
        self.registered: list[tuple[int, ...]] = []
        self.before: deque[Failure] = deque()
        self.after: deque[Failure | str] = deque()
        self.requests: list[object] = []
        self.rumours: dict[int, str] = {}  # whom a master takes for the leader when there is none
        self.refusals = 0
        self.unplaceable = False  # too few chunkservers are known, for now
        self.next_session = 0x1000
        self.losses: dict[int, int] = {}  # chunk handle -> power losses; each raised the version

    def apply(self, command: object) -> object:
        batch = CommandBatch(self._env.clock.wall_ns(), (encode(command),))
        return self.machine.apply(encode(batch))[0]

    def change_leader(self, leader: int) -> None:
        """The new leader knows nothing of open inodes."""
        self.leader = leader
        self.opens.clear()

    def handlers(self, me: int) -> Handlers:
        answers: dict[type, Callable[[Any], Any]] = {
            md.OpenSession: self._open_session,
            md.KeepSession: lambda m: self._alive(m.session),
            GetMasters: lambda m: Masters(tuple(self.addresses)),
            md.CloseSession: self._close_session,
            md.RegisterOpens: self._register,
            md.OpenInode: self._open,
            md.Lookup: lambda m: queries.lookup(self.tables, m.parent, m.name),
            md.GetAttributes: lambda m: queries.attributes(self.tables, m.inode),
            md.ReadDirectory: lambda m: queries.read_directory(
                self.tables, m.inode, m.after_cookie, m.limit
            ),
            md.ReadLink: lambda m: md.LinkTarget(queries.read_link(self.tables, m.inode)),
            md.GetChunks: lambda m: self._with_losses(
                queries.chunk_map(self.tables, m.inode, m.first_index, m.count)
            ),
            md.StatFs: lambda m: md.FsInfo(1 << 40, 1 << 39, 1),
            md.Submit: self._submit,
        }

        def guarded(answer: Callable[[Any], Any]) -> Callable[[Request], Any]:
            async def handle(request: Request) -> object:
                self._must_lead(me)
                self.requests.append(request.message)
                if self.before:
                    raise self.before.popleft()
                result = answer(request.message)
                if self.after and isinstance(request.message, md.Submit):
                    await self._spoil(self.after.popleft(), request)
                return result

            return handle

        return {cls: guarded(answer) for cls, answer in answers.items()} | {
            md.CloseInode: self._close
        }

    def _must_lead(self, me: int) -> None:
        if me != self.leader:
            address = self.addresses[self.leader] if self.leader >= 0 else self.rumours.get(me, "")
            self.refusals += 1
            raise Failure(Code.NOT_LEADER, f"master {me} does not lead", detail=address)

    async def _spoil(self, how: Failure | str, request: Request) -> None:
        if isinstance(how, Failure):
            raise how
        request.connection.close()
        await trio.lowlevel.checkpoint()

    def _open_session(self, message: md.OpenSession) -> md.SessionOpened:
        self.next_session += 1
        self.apply(BeginSession(self.next_session, message.client))
        self.opens[self.next_session] = set()
        return md.SessionOpened(self.next_session, self._ttl_s, ROOT_INODE, "test")

    def expire(self, session: int) -> None:
        self.apply(EndSession(session))
        self.opens.pop(session, None)

    def _alive(self, session: int) -> Done:
        if queries.session(self.tables, session) is None:
            raise Failure(Code.NO_SESSION, f"session {session:#x} is not known")
        self.opens.setdefault(session, set())
        return Done()

    def _close_session(self, message: md.CloseSession) -> Done:
        self.expire(message.session)
        return Done()

    def _register(self, message: md.RegisterOpens) -> Done:
        self._alive(message.session)
        self.opens[message.session] |= set(message.inodes)
        self.registered.append(message.inodes)
        return Done()

    def _open(self, message: md.OpenInode) -> Attributes:
        self._alive(message.session)
        attributes = queries.attributes(self.tables, message.inode)
        self.opens[message.session].add(message.inode)
        return attributes

    def _close(self, request: Request) -> None:
        message: md.CloseInode = request.message
        self.opens.get(message.session, set()).discard(message.inode)
        self.reap()

    def reap(self) -> None:
        """Orphans that nobody has open, and replicas that nobody names any more, go."""
        is_open = {inode for opens in self.opens.values() for inode in opens}
        dead = tuple(i for i in queries.orphans(self.tables, 1000) if i not in is_open)
        if dead:
            self.apply(ReapOrphans(dead, 1000))

    def _submit(self, message: md.Submit) -> md.Submitted:
        self._alive(message.session)
        operations, refused = [], {}
        for numbered in message.operations:
            numbered = self._sparing_tail(message.session, numbered)
            try:
                operations.append(self._placed(numbered))
            except Failure as failure:
                refused[numbered.sequence] = Refused(
                    int(failure.code), failure.errno, failure.message, failure.detail
                )
        command = ApplyOperations(message.session, message.answered_below, tuple(operations))
        submitted = self.apply(command)
        assert isinstance(submitted, md.Submitted)
        answers: dict[int, md.Answer] = dict(refused)
        for numbered, answer in zip(operations, submitted.answers, strict=True):
            self._follow_up(message.session, numbered.operation, answer)
            answers[numbered.sequence] = self._with_losses(answer)
        return md.Submitted(tuple(answers[n.sequence] for n in message.operations))

    def _sparing_tail(self, session: int, numbered: md.Numbered) -> md.Numbered:
        operation = numbered.operation
        others = [opens for s, opens in self.opens.items() if s != session]
        if isinstance(operation, SetAttributes) and any(operation.inode in o for o in others):
            return replace(numbered, operation=replace(operation, keep_tail=True))
        return numbered

    def lose_power(self) -> None:
        """All chunkservers at once: what is not synced is gone, and the chunks have settled."""
        for server in self.servers.values():
            for replica in server.replicas.values():
                replica.data, replica.generation = replica.synced.copy(), replica.synced_generation
                replica.version += 1
        handles = (h for s in self.servers.values() for h in s.replicas)
        for handle in dict.fromkeys(handles):
            self.losses[handle] = self.losses.get(handle, 0) + 1

    def _with_losses(self, answer: A) -> A:
        if not isinstance(answer, md.ChunkMap):
            return answer
        chunks = tuple(
            replace(c, version=c.version + lost, losses=lost)
            for c in answer.chunks
            for lost in (self.losses.get(c.handle, 0),)
        )
        return replace(answer, chunks=chunks)

    def _placed(self, numbered: md.Numbered) -> md.Numbered:
        operation = numbered.operation
        if not isinstance(operation, AllocateChunks):
            return numbered
        fit = [s for s in sorted(self.servers) if s not in self.full]
        fit.sort(key=lambda s: s in operation.avoid)
        if self.unplaceable:
            raise Failure(Code.UNAVAILABLE, "too few chunkservers are alive")
        if len(fit) < 2:
            raise Failure(Code.DISK, "no room for a chunk", errno=28)
        placed = replace(operation, replicas=(tuple(fit[:COPIES]),) * operation.count)
        return md.Numbered(numbered.sequence, placed)

    def _follow_up(self, session: int, operation: object, answer: object) -> None:
        if isinstance(operation, Create) and isinstance(answer, Attributes):
            self.opens[session].add(answer.inode)
        if isinstance(operation, DropReplicas) and isinstance(answer, md.ChunkMap):
            for chunk in answer.chunks:
                for r in chunk.replicas:
                    replica = self.servers[r.server].replicas.get(chunk.handle)
                    if replica is not None:
                        replica.version = max(replica.version, chunk.version)


class FakeCluster:
    """Masters and chunkservers within one event loop."""

    def __init__(self, masters: FakeMasters, key_file: str) -> None:
        self.masters = masters
        self.key_file = key_file
        self.servers: list[FakeChunkserver] = []

    def config(self, limits: ClientLimits | None = None) -> ClientConfig:
        addresses = tuple(self.masters.addresses)
        limits = limits or ClientLimits()
        return ClientConfig("test", self.key_file, addresses, limits=limits)

    def server_at(self, address: str) -> FakeChunkserver:
        return next(s for s in self.servers if s.address == address)


Start = Callable[[str, Callable[..., Awaitable[None]]], Awaitable[Any]]


async def start_cluster(
    env: Env, start: Start, key_file: str, *, masters: int = 3, servers: int = 3, ttl_s: float = 30
) -> FakeCluster:
    """Start everything through `start(name, main(env, task_status))`."""
    cluster = FakeCluster(FakeMasters(env, ttl_s), key_file)
    for i in range(masters):

        async def run_master(
            node: Env,
            *,
            task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
            me: int = i,
        ) -> None:
            endpoint = Endpoint(node, KEY, Identity("master", me + 1, ""), Rpc())
            handlers = cluster.masters.handlers(me)
            await serve(endpoint, _listen(node, me), handlers, task_status=task_status)

        cluster.masters.addresses.append(await start(f"master-{i + 1}", run_master))
    for number in range(1, servers + 1):

        async def run_server(
            node: Env,
            *,
            task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
            number: int = number,
        ) -> None:
            endpoint = Endpoint(node, KEY, Identity("chunkserver", number, ""), Rpc())
            server = cluster.masters.servers.get(number)
            if server is None:
                server = cluster.masters.servers[number] = FakeChunkserver(number)
                cluster.servers.append(server)
            await server.run(endpoint, _listen(node, number), task_status=task_status)

        address = await start(f"chunkserver-{number}", run_server)
        cluster.masters.apply(SetServer(number, address, "default"))
    return cluster


def _listen(env: Env, number: int) -> str:
    """Simulated nodes keep their address over a restart; real ones share one host."""
    return "127.0.0.1:0" if env.name.startswith("real") else f"{env.name}:{7000 + number}"


async def create(client: Client, name: bytes = b"file", *, exclusive: bool = False) -> OpenFile:
    """A file in the root, open for writing."""
    return await client.create_file(Create(client.root_inode, name, 0o644, exclusive, ROOT))


def pattern(length: int, salt: int = 0) -> bytes:
    """Bytes that differ from place to place."""
    unit = bytes((i * 7 + salt) % 251 for i in range(4096))
    return (unit * (length // len(unit) + 1))[:length]


class Scene:
    """What a test gets: a running cluster, and clients on demand."""

    def __init__(self, world: World, cluster: FakeCluster) -> None:
        self.world, self.cluster = world, cluster
        self.masters, self.servers = cluster.masters, cluster.servers

    @asynccontextmanager
    async def client(
        self, name: str = "client-1", limits: ClientLimits | None = None
    ) -> AsyncIterator[Client]:
        env = self.world.env(name)
        async with open_client(env, self.cluster.config(limits), name) as client:
            yield client


def play(
    key_file: str,
    scene: Callable[[Scene], Awaitable[None]],
    *,
    seed: int = 1,
    servers: int = 3,
    ttl_s: float = 30,
) -> World:
    """Run one test on a simulated cluster."""
    world = World(seed)

    async def main() -> None:
        env = world.env("masters")
        cluster = await start_cluster(env, world.start, key_file, servers=servers, ttl_s=ttl_s)
        await scene(Scene(world, cluster))

    world.run(main)
    return world
