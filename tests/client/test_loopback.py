"""The same client over real sockets and real time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from dfs.client import open_client
from dfs.config import ClientLimits
from dfs.messages.common import ROOT
from dfs.runtime import Env
from dfs.runtime.real import RealEnv
from tests.client.fake_cluster import FakeCluster, create, pattern, start_cluster
from tests.conftest import ExpectedLogs

MIB = 1 << 20


def on_loopback(key_file: str, scene: Callable[[FakeCluster], Awaitable[None]]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def start(name: str, node: Callable[..., Awaitable[None]]) -> str:
                address: str = await nursery.start(partial(node, RealEnv(f"real-{name}")))
                return address

            env: Env = RealEnv("real-masters")
            await scene(await start_cluster(env, start, key_file))
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_file_written_and_read_over_real_sockets(key_file: str) -> None:
    data = pattern(20 * MIB + 5)

    async def scene(cluster: FakeCluster) -> None:
        async with open_client(RealEnv("real-client"), cluster.config(), "writer") as client:
            file = await create(client)
            for at in range(0, len(data), 300_000):
                await file.write(at, data[at : at + 300_000])
            await file.sync()
            await file.close()
        async with open_client(RealEnv("real-client"), cluster.config(), "reader") as client:
            file = await client.open_file(file.inode, ROOT, write=False)
            got = bytearray()
            while part := await file.read(len(got), 128 << 10):
                got += part
            assert got == data
            await file.close()

    on_loopback(key_file, scene)


def test_a_silent_server_is_left_in_real_time(key_file: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("inode .* chunk")
    limits = ClientLimits(data_timeout_s=0.3, slow_timeout_s=2)

    async def scene(cluster: FakeCluster) -> None:
        async with open_client(RealEnv("real-client"), cluster.config(limits), "writer") as client:
            file = await create(client)
            await file.write(0, b"before")
            await file.flush()
            chunk = (await client.chunk_map(file.inode, 0, 1)).chunks[0]
            cluster.server_at(chunk.replicas[0].address).hang = True
            await file.write(6, b" after")
            await file.close()
            again = await client.open_file(file.inode, ROOT, write=False)
            assert bytes(await again.read(0, 100)) == b"before after"
            await again.close()

    on_loopback(key_file, scene)
