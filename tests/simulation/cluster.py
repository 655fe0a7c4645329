"""A whole cluster in one process: real masters, chunkservers and clients on the simulated world."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from chunkserver.format import DATA_OFFSET
from chunkserver.server import ChunkServer
from dfs.cli.checks import Checked, Checks
from dfs.client import Client, open_client
from dfs.config import Chunkserver, ChunkserverLimits, ClientLimits, Master, MasterLimits, Raft
from dfs.config import Client as ClientConfig
from dfs.errors import Code, Failure
from dfs.messages.cluster import ClusterStatus, GetClusterStatus
from dfs.messages.metadata import ChunkLocation
from dfs.runtime import Env
from dfs.runtime.sim import World
from master import tables as names
from master.server import MasterServer
from master.sessions import LiveSessions
from master.state import queries
from master.state.records import key_number
from tests.master.state import invariants
from tests.simulation.violations import Violation

KEY = b"the key of a simulated cluster"
PORT = 7000


@dataclass(frozen=True)
class Knobs:
    """Sizes and times that tests turn, small ones to see more happen."""

    compact_entries: int = 200
    keep_entries: int = 100
    session_ttl_s: float = 10.0
    unknown_grace_s: float = 5.0
    packet_bytes: int = 256 << 10
    reap_batch: int = 256
    deletion_grace_s: float = 3.0
    repair_grace_s: float = 20.0
    chunk_replicas: int = 3
    raft_pace: float = 1.0  # Raft's times are so many times the usual ones
    batch_bytes: int = 4 << 20  # of an AppendEntries; a command is at most a quarter of it
    inline_flush_below_s: float = 0.004  # 0: flushes always leave the event loop
    beat_s: float = 1.0  # between two heartbeats of a chunkserver
    submits_in_flight: int = 4
    write_window_bytes: int = 1 << 20
    read_cache_bytes: int = 128 << 20

    @property
    def raft(self) -> Raft:
        """The masters' Raft limits."""
        return Raft(
            compact_entries=self.compact_entries,
            keep_entries=self.keep_entries,
            heartbeat_s=0.1 * self.raft_pace,
            election_timeout_min_s=0.5 * self.raft_pace,
            election_timeout_max_s=1.0 * self.raft_pace,
            batch_bytes=self.batch_bytes,
            max_command_bytes=self.batch_bytes // 4,
            inline_flush_below_s=self.inline_flush_below_s,
        )


class SimCluster:
    """Masters `master-N` and chunkservers `chunkserver-N`, N from 1 on."""

    def __init__(
        self,
        world: World,
        directory: Path,
        *,
        masters: int = 3,
        chunkservers: int = 3,
        knobs: Knobs | None = None,
    ) -> None:
        self.world = world
        self.knobs = knobs or Knobs()
        self.masters = {n: f"master-{n}:{PORT}" for n in range(1, masters + 1)}
        self.chunkservers = {n: f"chunkserver-{n}:{PORT}" for n in range(1, chunkservers + 1)}
        self._configured: dict[int, tuple[str, ...]] = {}  # the masters in their configurations
        self._last_master = masters
        self.running: dict[str, MasterServer] = {}
        self.storing: dict[str, ChunkServer] = {}
        self._stops: dict[str, tuple[trio.Event, trio.Event]] = {}  # to be told to, and has ended
        self._key_file = directory / "key"
        self._key_file.write_bytes(KEY)

    async def start(self) -> None:
        """Start every process; returns when all listen."""
        for n in self.masters:
            await self.world.start(f"master-{n}", partial(self._run_master, n))
        for n in self.chunkservers:
            await self.start_chunkserver(n)

    async def start_master(self) -> int:
        """Start one more, not yet a member, under a number that was never used."""
        self._last_master += 1
        n = self._last_master
        self.masters[n] = f"master-{n}:{PORT}"
        await self.world.start(f"master-{n}", partial(self._run_master, n))
        return n

    def forget_master(self, n: int) -> None:
        """It is no member any more."""
        del self.masters[n]
        self.running.pop(f"master-{n}", None)

    def configure(self, n: int) -> None:
        """Write a chunkserver's configuration: with the masters that there are now."""
        self._configured[n] = tuple(self.masters.values())

    async def start_chunkserver(self, n: int) -> None:
        self.configure(n)
        await self.world.start(f"chunkserver-{n}", partial(self._run_chunkserver, n))

    async def _run_master(
        self, n: int, env: Env, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        server = MasterServer(env, self._master_config(n), KEY)
        self.running[env.name] = server
        await self._serve(env, server, task_status)

    async def _run_chunkserver(
        self, n: int, env: Env, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        server = ChunkServer(env, self._chunkserver_config(n), KEY)
        self.storing[env.name] = server
        await self._serve(env, server, task_status)

    async def _serve(
        self, env: Env, server: MasterServer | ChunkServer, task_status: trio.TaskStatus[str]
    ) -> None:
        stop, ended = self._stops[env.name] = trio.Event(), trio.Event()
        try:
            await server.run(stop, task_status=task_status)
        except Failure as failure:  # it could not start
            if failure.code is not Code.DISK or not self.world.disk(env.name).is_failing:
                raise
            self.world.trace("no start", env.name, failure.message)
            self.world.crash(env.name, power_loss=False)
        ended.set()

    async def stop(self, name: str) -> None:
        """Have a living server stop in order; returns when it has, and its tasks have ended."""
        stop, ended = self._stops[name]
        stop.set()
        await ended.wait()
        await self.world.clock.sleep(0.001)

    @asynccontextmanager
    async def client(self, name: str = "client") -> AsyncIterator[Client]:
        """A client of its own session on a node of that name."""
        env = self.world.env(name)
        async with open_client(env, self.client_config(), name) as client:
            yield client

    def client_config(self) -> ClientConfig:
        knobs = self.knobs
        limits = ClientLimits(
            packet_bytes=knobs.packet_bytes,
            write_window_bytes=knobs.write_window_bytes,
            cache_bytes=knobs.read_cache_bytes,
            submits_in_flight=knobs.submits_in_flight,
            submit_bytes=min(256 << 10, knobs.batch_bytes // 16),
        )
        return ClientConfig("sim", str(self._key_file), tuple(self.masters.values()), limits=limits)

    def _master_config(self, n: int) -> Master:
        return Master(
            cluster="sim",
            id=n,
            listen=self.masters[n],
            data_dir="/data",
            key_file=str(self._key_file),
            masters={str(id): address for id, address in self.masters.items()},
            raft=self.knobs.raft,
            limits=MasterLimits(
                session_ttl_s=self.knobs.session_ttl_s,
                reap_batch=self.knobs.reap_batch,
                deletion_grace_s=self.knobs.deletion_grace_s,
                heartbeat_s=self.knobs.beat_s,
                repair_grace_s=self.knobs.repair_grace_s,
                chunk_replicas=self.knobs.chunk_replicas,
            ),
        )

    def _chunkserver_config(self, n: int) -> Chunkserver:
        return Chunkserver(
            cluster="sim",
            id=n,
            listen=self.chunkservers[n],
            data_dirs=("/disk-a", "/disk-b"),
            key_file=str(self._key_file),
            masters=self._configured[n],
            limits=ChunkserverLimits(unknown_grace_s=self.knobs.unknown_grace_s),
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
                if len(digests) > 1:
                    text = "at one applied index they hold different states"
                    raise Violation("masters are equal", text)
                return digests.pop()
            await self.world.clock.sleep(0.1)

    async def until_registered(self, client: Client, count: int) -> None:
        """Wait until that many chunkservers are alive to the leader."""
        while True:
            status: ClusterStatus = await client.cluster_call(GetClusterStatus())
            if sum(s.alive for s in status.servers) >= count:
                return
            await self.world.clock.sleep(0.1)

    # -- what must hold once all is quiet

    def leading(self) -> MasterServer:
        return self.running[self.leader()]

    def live_sessions(self) -> LiveSessions:
        """What the leader knows of the sessions."""
        return self.leading()._sessions

    def replicas(self, server: int) -> frozenset[int]:
        """The chunks that a chunkserver has a replica of."""
        name = f"chunkserver-{server}"
        return frozenset(r.handle for r in self.storing[name].store.reports())

    def wanted_replicas(self, server: int) -> frozenset[int]:
        """The chunks that it should have one of, as the leader's state says."""
        tables = self.leading().tables
        handles = (key_number(k) for k, _ in tables.scan(names.HANDLES))
        found = ((h, queries.replica_version(tables, h, server)) for h in handles)
        return frozenset(h for h, version in found if version is not None)

    def housekeeping_due(self) -> str:
        """What the masters and chunkservers still have to do; "" for nothing."""
        if not self.leader():
            return "no leader"
        tables = self.leading().tables
        if orphans := queries.orphans(tables, 10):
            return f"orphans {orphans}"
        for server in self.chunkservers:
            if doomed := queries.deletions(tables, server, 10):
                return f"chunkserver {server} is to delete {doomed}"
            if surplus := self.replicas(server) - self.wanted_replicas(server):
                return f"chunkserver {server} keeps {sorted(surplus)}"
        return ""

    def is_redundant(self) -> bool:
        """Whether every chunk has all its replicas on servers that are there, and settled."""
        if not self.leader():
            return False
        leader = self.leading()
        connected = [s for s in self.chunkservers if leader.chunkservers.connected(s)]
        reported = [s for s in connected if leader.chunkservers.registered(s).reported]
        whole = all(
            len(servers) >= wanted for wanted, servers, _ in queries.replica_sets(leader.tables)
        )
        settled = leader.care.settling.counts() == (0, 0)
        return (
            whole and settled and reported == list(self.chunkservers) and not self._out_of_order()
        )

    def _out_of_order(self) -> list[int]:
        """Chunks of which the leader knows that a member has no replica, or not the chunk's own."""
        leader = self.leading()
        noted = ((h, leader.care.notes.of(h)) for h in leader.care.notes.chunks())
        found = ((queries.chunk_by_handle(leader.tables, h), of) for h, of in noted)
        return [
            c[2].handle for c, of in found if c and not c[2].fresh and set(of) & set(c[2].servers)
        ]

    async def until_redundant(self, timeout_s: float) -> bool:
        """Wait for that, for so long at most; whether it came."""
        until_s = self.world.clock.monotonic() + timeout_s
        while not self.is_redundant():
            if self.world.clock.monotonic() > until_s:
                return False
            await self.world.clock.sleep(0.2)
        return True

    async def until_clean(self, timeout_s: float = 60.0) -> None:
        """Wait until orphans are reaped and replicas without a chunk are gone."""
        until_s = self.world.clock.monotonic() + timeout_s
        while due := self.housekeeping_due():
            if self.world.clock.monotonic() > until_s:
                raise Violation("what is due is done", due)
            await self.world.clock.sleep(0.2)

    def check_invariants(self) -> None:
        """Every living master's state must be consistent in itself."""
        for name, server in sorted(self.running.items()):
            if self.world.is_alive(name):
                try:
                    invariants.check(server.tables)
                except AssertionError as error:
                    raise Violation("masters are sound", f"{name}: {error}") from error

    async def fsck(self, client: Client, *, deep: bool = False, inode: int = 0) -> Checked:
        """What `dfs fsck` finds."""
        checks = Checks(self.world.env("fsck"), client)
        return await checks.check(lambda _: None, deep=deep, inode=inode)

    async def check_replicas(self, client: Client, inode: int, count: int) -> int:
        """All replicas of a file's chunks must be equal; the number of chunks looked at."""
        chunks = (await client.chunk_map(inode, 0, count)).chunks
        for chunk in chunks:
            await self._check_chunk(client, chunk)
        return len(chunks)

    async def _check_chunk(self, client: Client, chunk: ChunkLocation) -> None:
        if chunk.fresh:
            return
        found = [await client.inspect(r.address, chunk.handle) for r in chunk.replicas]
        versions = [info.version for info in found]
        if set(versions) != {chunk.version}:
            raise Violation("replicas are equal", f"{chunk} has versions {versions}")
        contents = {(info.generation, info.length_bytes, info.digest) for info in found}
        if len(contents) > 1:
            raise Violation("replicas are equal", f"{chunk} differs: {found}")
        length = found[0].length_bytes
        first, *others = (self._data_of(r.server, chunk.handle, length) for r in chunk.replicas)
        if not any(all(data in other for other in others) for data in first):
            raise Violation("replicas are equal", f"{chunk}: their checksums are, not their bytes")

    def _data_of(self, server: int, handle: int, length_bytes: int) -> list[dict[int, bytes]]:
        """What a chunkserver's file holds of a chunk: the pages that are not zeros.

        Another one may stand on its other disk, the header of which cannot be read.
        """
        media = self.world.disk(f"chunkserver-{server}")
        name = f"{handle:016x}"
        paths = [path for path in media.files("/") if path.endswith(name) and "/replicas/" in path]
        return [
            media.inode(path).content(DATA_OFFSET, DATA_OFFSET + length_bytes) for path in paths
        ]
