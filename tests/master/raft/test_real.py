"""The same nodes over real sockets, threads and LMDB: what the simulated world cannot show."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from dfs.config import Master, Raft, Rpc
from dfs.errors import Failure
from dfs.rpc import Endpoint, Identity, serve
from dfs.runtime.current import activate
from dfs.runtime.real import RealEnv
from master.raft import RaftNode
from master.store import Store
from tests.conftest import ExpectedLogs
from tests.master.raft.ledger import Add, Ledger, Sum

KEY = b"the key of a real cluster"
LIMITS = Raft(compact_entries=60, keep_entries=20)


def free_addresses(count: int) -> dict[int, str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return {id: f"127.0.0.1:{port}" for id, port in enumerate(ports, start=1)}


class RealMaster:
    """One master of a cluster that lives in this process."""

    def __init__(self, directory: Path, id: int, addresses: dict[int, str], delay_s: float) -> None:
        self.id, self._addresses = id, addresses
        self._directory = directory / str(id)
        self._directory.mkdir(exist_ok=True)
        self._delay_s = delay_s
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        env = RealEnv(f"master-{self.id}", sync_delay_s=self._delay_s)
        activate(env)
        address = self._addresses[self.id]
        endpoint = Endpoint(env, KEY, Identity("master", self.id, address), Rpc())
        masters = {str(id): a for id, a in self._addresses.items()}
        config = Master("t", self.id, address, str(self._directory), "", masters, raft=LIMITS)
        self.store = Store.open(env, f"{self._directory}/state.mdb", LIMITS)
        self.ledger = Ledger(self.store)
        self.node = RaftNode(env, endpoint, config, self.store, self.ledger)
        with self.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(serve, endpoint, address, self.node.handlers()))
                await nursery.start(self.node.run)
                task_status.started()
        self.store.close()
        self.ended.set()


class RealCluster:
    def __init__(self, directory: Path, delay_s: float = 0.0) -> None:
        self._directory, self._delay_s = directory, delay_s
        self.addresses = free_addresses(3)
        self.masters: dict[int, RealMaster] = {}

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with trio.open_nursery() as self.nursery:
                for id in self.addresses:
                    await self.start(id)
                with trio.fail_after(60):
                    await main()
                self.nursery.cancel_scope.cancel()

        trio.run(whole)

    async def start(self, id: int) -> None:
        master = RealMaster(self._directory, id, self.addresses, self._delay_s)
        self.masters[id] = master
        await self.nursery.start(master.run)

    async def stop(self, id: int) -> None:
        """End it without any order."""
        master = self.masters.pop(id)
        master.scope.cancel()
        await master.ended.wait()

    async def leader(self) -> RealMaster:
        while True:
            for master in self.masters.values():
                if master.node.may_read():
                    return master
            await trio.lowlevel.checkpoint()

    async def add(self, add: Add) -> int:
        while True:
            try:
                answer: Sum = await (await self.leader()).node.propose(add)
            except Failure as failure:
                if not failure.retryable:
                    raise
            else:
                return answer.value

    async def caught_up(self, id: int) -> None:
        leader = await self.leader()
        while self.masters[id].node.applied_index < leader.node.applied_index:
            await trio.lowlevel.checkpoint()


def test_failover_snapshot_and_restart_on_real_disks(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("handshake")
    cluster = RealCluster(tmp_path)

    async def main() -> None:
        for number in range(1, 21):
            await cluster.add(Add(1, number, b"c", 1))
        away = next(id for id in cluster.masters if id != 0 and not _leads(cluster, id))
        await cluster.stop(away)
        for number in range(1, 201):
            await cluster.add(Add(2, number, b"c", 1))
        leader = await cluster.leader()
        assert leader.node._core is not None
        assert leader.node._core.journal.first_index > 50
        await cluster.start(away)
        await cluster.caught_up(away)
        assert cluster.masters[away].ledger.value(b"c") == 220
        # What was installed is good: it survives a restart and carries the cluster.
        await cluster.stop(away)
        await cluster.start(away)
        await cluster.caught_up(away)
        await cluster.stop(leader.id)
        assert await cluster.add(Add(3, 1, b"c", 1)) == 221

    cluster.run(main)


def _leads(cluster: RealCluster, id: int) -> bool:
    return cluster.masters[id].node.is_leader()


def test_many_proposers_at_once_share_entries(tmp_path: Path) -> None:
    cluster = RealCluster(tmp_path)

    async def main() -> None:
        leader = await cluster.leader()
        before = leader.node.applied_index

        async def client(id: int) -> None:
            for number in range(1, 21):
                await cluster.add(Add(id, number, b"c", 1))

        async with trio.open_nursery() as nursery:
            for id in range(64):
                nursery.start_soon(client, id)
        assert leader.ledger.value(b"c") == 64 * 20
        assert leader.node.applied_index - before < 64 * 20 / 4

    cluster.run(main)
