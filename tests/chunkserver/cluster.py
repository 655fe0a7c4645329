"""A few real chunkservers and a leader that only notes what it is told, on any world.

The leader speaks the real protocol over the real RPC; what it knows is set by the test.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from chunkserver.server import ChunkServer
from dfs.checksums import piece_checksums, verify
from dfs.config import Chunkserver, ChunkserverLimits, Rpc
from dfs.errors import Code, Failure
from dfs.messages.chunks import (
    CutChunk,
    InspectReplica,
    ReadChunk,
    ReplicaInfo,
    SyncChunk,
    WriteChunk,
)
from dfs.messages.cluster import (
    GetMasters,
    Heartbeat,
    Masters,
    Registered,
    RegisterServer,
    ReportAnswer,
    ReportReplicas,
    ReportSuspicions,
    Suspicion,
)
from dfs.messages.common import Done
from dfs.rpc import Connection, Endpoint, Handlers, Identity, Pool, Request, serve
from dfs.runtime import Env
from dfs.runtime.real import RealEnv
from dfs.runtime.sim import World

KEY = b"a key for tests, 16 bytes or more"
CLUSTER = "testing"


@dataclass
class Leader:
    """Answers as a leading master does, and keeps what it heard."""

    known: dict[int, int] | None = None  # handle -> version; None: every replica is known
    leads: bool = True
    leader_address: str = ""
    heartbeat_s: float = 0.05
    masters: tuple[str, ...] = ()  # what it says who the masters are
    registered: dict[int, Connection] = field(default_factory=dict)
    registrations: list[RegisterServer] = field(default_factory=list)
    reports: list[ReportReplicas] = field(default_factory=list)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    suspicions: list[tuple[int, Suspicion]] = field(default_factory=list)  # with who said so
    heard: trio.Event = field(default_factory=trio.Event)

    def handlers(self) -> Handlers:
        return {
            RegisterServer: self._register,
            ReportReplicas: self._report,
            Heartbeat: self._heartbeat,
            GetMasters: lambda _: Masters(self.masters),
            ReportSuspicions: self._suspicions,
        }

    async def until_heartbeats(self, count: int) -> list[Heartbeat]:
        """The next `count` heartbeats."""
        due = len(self.heartbeats) + count
        while len(self.heartbeats) < due:
            await self.until_heard()
        return self.heartbeats[-count:]

    async def until_heard(self) -> None:
        """Wait for any message."""
        self.heard = trio.Event()
        await self.heard.wait()

    def _must_lead(self) -> None:
        self.heard.set()
        if not self.leads:
            raise Failure(Code.NOT_LEADER, "another leads", detail=self.leader_address)

    def _register(self, request: Request) -> Registered:
        self._must_lead()
        self.registrations.append(request.message)
        self.registered[request.message.server] = request.connection
        return Registered(self.heartbeat_s)

    def _report(self, request: Request) -> ReportAnswer:
        self._must_lead()
        message: ReportReplicas = request.message
        self.reports.append(message)
        if self.known is None:
            return ReportAnswer(())
        return ReportAnswer(tuple(r.handle for r in message.replicas if r.handle not in self.known))

    def _suspicions(self, request: Request) -> Done:
        self._must_lead()
        message: ReportSuspicions = request.message
        self.suspicions += [(message.server, each) for each in message.suspicions]
        return Done()

    def _heartbeat(self, request: Request) -> Done:
        self._must_lead()
        if request.message.server not in self.registered:
            raise Failure(Code.UNAVAILABLE, "register first")
        self.heartbeats.append(request.message)
        return Done()


def chunkserver_config(
    number: int, listen: str, data_dirs: tuple[str, ...], master: str, **limits: float
) -> Chunkserver:
    made = replace(ChunkserverLimits(), **limits)  # type: ignore[arg-type]
    return Chunkserver(
        cluster=CLUSTER,
        id=number,
        listen=listen,
        data_dirs=data_dirs,
        key_file="",
        masters=(master,),
        limits=made,
    )


async def start_leader(
    nursery: trio.Nursery, env: Env, listen: str, leader: Leader | None = None
) -> Leader:
    leader = leader or Leader()
    endpoint = Endpoint(env, KEY, Identity("master", 1, listen), Rpc())
    await nursery.start(serve, endpoint, listen, leader.handlers())
    return leader


@contextlib.asynccontextmanager
async def running(env: Env, config: Chunkserver) -> AsyncIterator[ChunkServer]:
    """A chunkserver for the time of the block, then stopped in order."""
    server = ChunkServer(env, config, KEY)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run, stop)
        try:
            yield server
        finally:
            stop.set()


class TestClient:
    """Does what a client does with chunks, on the real protocol."""

    __test__ = False

    def __init__(self, env: Env, nursery: trio.Nursery, timeout_s: float = 5.0) -> None:
        self.pool = Pool(Endpoint(env, KEY, Identity("client", 0, ""), Rpc()), nursery)
        self.timeout_s = timeout_s

    async def write(
        self,
        chain: tuple[str, ...],
        handle: int,
        offset: int,
        data: bytes,
        *,
        version: int = 1,
        generation: int = 0,
        create: bool = True,
        sync: bool = False,
    ) -> None:
        message = WriteChunk(
            handle,
            version,
            generation,
            offset,
            piece_checksums(data, offset),
            chain[1:],
            create,
            sync,
        )
        await self.pool.call(chain[0], message, (data,), timeout_s=self.timeout_s)

    async def read(
        self, address: str, handle: int, offset: int, length_bytes: int, *, version: int = 1
    ) -> bytes:
        message = ReadChunk(handle, version, offset, length_bytes)
        answer = await self.pool.call(address, message, timeout_s=self.timeout_s)
        verify(answer.payload, offset, answer.message.checksums, f"read from {address}")
        return bytes(answer.payload)

    async def sync(self, chain: tuple[str, ...], handle: int, *, version: int = 1) -> None:
        message = SyncChunk(handle, version, chain[1:])
        await self.pool.call(chain[0], message, timeout_s=self.timeout_s)

    async def cut(
        self,
        chain: tuple[str, ...],
        handle: int,
        generation: int,
        length_bytes: int,
        *,
        version: int = 1,
    ) -> None:
        message = CutChunk(handle, version, generation, length_bytes, chain[1:])
        await self.pool.call(chain[0], message, timeout_s=self.timeout_s)

    async def inspect(self, address: str, handle: int) -> ReplicaInfo:
        answer = await self.pool.call(address, InspectReplica(handle), timeout_s=self.timeout_s)
        info: ReplicaInfo = answer.message
        return info


# -- both worlds


@dataclass
class Site:
    """Where a test's nodes live. `world` is None for the real one."""

    env: Callable[[str], Env]
    address: Callable[[str], str]
    directory: Callable[[str], str]
    start: Callable[[Callable[[], Awaitable[None]]], object]
    end_process: Callable[[str], None]
    world: World | None = None

    def end_processes(self, *names: str) -> None:
        """What ended in order is gone as a process too: its locks are free."""
        for name in names:
            self.end_process(name)

    def run(self, main: Callable[[Site], Awaitable[None]]) -> None:
        async def bounded() -> None:
            with trio.fail_after(60):
                await main(self)

        self.start(bounded)


def real_site(root: Path) -> Site:
    envs: dict[str, RealEnv] = {}
    ports: dict[str, int] = {}

    def address(name: str) -> str:
        return f"127.0.0.1:{ports.setdefault(name, free_port())}"

    def env(name: str) -> Env:
        return envs.setdefault(name, RealEnv(name))

    def end(name: str) -> None:
        envs.pop(name).disk.unlock_all()

    return Site(env, address, lambda name: str(root / name), trio.run, end)


def simulated_site(seed: int = 1) -> Site:
    world = World(seed)

    def end(name: str) -> None:
        world.crash(name, power_loss=False)

    return Site(world.env, lambda n: f"{n}:1", lambda n: "/data", world.run, end, world)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


NAMES = ("cs1", "cs2", "cs3")


@dataclass
class Cluster:
    site: Site
    leader: Leader
    client: TestClient
    servers: dict[str, ChunkServer]
    nursery: trio.Nursery

    @property
    def chain(self) -> tuple[str, ...]:
        return tuple(self.site.address(name) for name in self.servers)

    async def digests(self, handle: int) -> list[tuple[int, int, int, int]]:
        """What tells replicas apart, one per server."""
        infos = [await self.client.inspect(address, handle) for address in self.chain]
        return [(i.version, i.generation, i.length_bytes, i.digest) for i in infos]


@contextlib.asynccontextmanager
async def cluster(
    site: Site, names: tuple[str, ...] = NAMES, *, timeout_s: float = 5.0, **limits: float
) -> AsyncIterator[Cluster]:
    """A leader and some chunkservers, registered with it."""
    async with trio.open_nursery() as nursery, contextlib.AsyncExitStack() as stack:
        master = site.address("master")
        leader = await start_leader(nursery, site.env("master"), master)
        servers = {}
        for number, name in enumerate(names, 1):
            config = chunkserver_config(
                number, site.address(name), (site.directory(name),), master, **limits
            )
            servers[name] = await stack.enter_async_context(running(site.env(name), config))
        client = TestClient(site.env("client"), nursery, timeout_s)
        yield Cluster(site, leader, client, servers, nursery)
        await stack.aclose()
        nursery.cancel_scope.cancel()
