"""A whole cluster in one process: real masters, chunkservers and clients on the simulated world."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from chunkserver.server import ChunkServer
from dfs.client import Client, open_client
from dfs.config import Chunkserver, ClientLimits, Master, MasterLimits, Raft
from dfs.config import Client as ClientConfig
from dfs.messages.cluster import ClusterStatus, GetClusterStatus
from dfs.runtime import Env
from dfs.runtime.sim import World
from master.server import MasterServer
from master.state import queries

KEY = b"the key of a simulated cluster"
PORT = 7000


class SimCluster:
    """Masters `master-N` and chunkservers `chunkserver-N`, N from 1 on."""

    def __init__(
        self, world: World, directory: Path, *, masters: int = 3, chunkservers: int = 3
    ) -> None:
        self.world = world
        self.masters = {n: f"master-{n}:{PORT}" for n in range(1, masters + 1)}
        self.chunkservers = {n: f"chunkserver-{n}:{PORT}" for n in range(1, chunkservers + 1)}
        self.running: dict[str, MasterServer] = {}
        self._key_file = directory / "key"
        self._key_file.write_bytes(KEY)

    async def start(self) -> None:
        """Start every process; returns when all listen."""
        for n in self.masters:
            await self.world.start(f"master-{n}", partial(self._run_master, n))
        for n in self.chunkservers:
            await self.world.start(f"chunkserver-{n}", partial(self._run_chunkserver, n))

    async def _run_master(
        self, n: int, env: Env, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        server = MasterServer(env, self._master_config(n), KEY)
        self.running[env.name] = server
        await server.run(trio.Event(), task_status=task_status)

    async def _run_chunkserver(
        self, n: int, env: Env, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        server = ChunkServer(env, self._chunkserver_config(n), KEY)
        await server.run(trio.Event(), task_status=task_status)

    @asynccontextmanager
    async def client(self, name: str = "client") -> AsyncIterator[Client]:
        """A client of its own session on a node of that name."""
        env = self.world.env(name)
        async with open_client(env, self.client_config(), name) as client:
            yield client

    def client_config(self) -> ClientConfig:
        limits = ClientLimits(packet_bytes=256 << 10, write_window_bytes=1 << 20)
        return ClientConfig("sim", str(self._key_file), tuple(self.masters.values()), limits=limits)

    def _master_config(self, n: int) -> Master:
        return Master(
            cluster="sim",
            id=n,
            listen=self.masters[n],
            data_dir="/data",
            key_file=str(self._key_file),
            masters={str(id): address for id, address in self.masters.items()},
            raft=Raft(compact_entries=200, keep_entries=100),
            limits=MasterLimits(session_ttl_s=10.0),
        )

    def _chunkserver_config(self, n: int) -> Chunkserver:
        return Chunkserver(
            cluster="sim",
            id=n,
            listen=self.chunkservers[n],
            data_dirs=("/disk-a", "/disk-b"),
            key_file=str(self._key_file),
            masters=tuple(self.masters.values()),
        )

    # -- what tests look at

    def leader(self) -> str:
        """The name of the leading master, "" while there is none."""
        for name, server in sorted(self.running.items()):
            if self.world.is_alive(name) and server.raft.may_read():
                return name
        return ""

    async def until_leader(self) -> str:
        while not self.leader():
            await self.world.clock.sleep(0.05)
        return self.leader()

    async def until_agreed(self) -> str:
        """Wait until all living masters have applied the same; their common state digest."""
        while True:
            alive = [s for n, s in sorted(self.running.items()) if self.world.is_alive(n)]
            indices = sorted(s.raft.applied_index for s in alive)
            if indices[0] == indices[-1] and self.leader():
                digests = {queries.state_digest(s.tables) for s in alive}
                assert len(digests) == 1, "masters at one applied index hold different states"
                return digests.pop()
            await self.world.clock.sleep(0.1)

    async def until_registered(self, client: Client, count: int) -> None:
        """Wait until that many chunkservers are alive to the leader."""
        while True:
            status: ClusterStatus = await client.cluster_call(GetClusterStatus())
            if sum(s.alive for s in status.servers) >= count:
                return
            await self.world.clock.sleep(0.1)
