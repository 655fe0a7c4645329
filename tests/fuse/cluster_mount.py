"""A process that mounts a cluster in memory, with disks that fail to order.

`python -m tests.fuse.cluster_mount DIR [--sync]`: the real client library over real sockets, behind
it fake masters and chunkservers in this very process. Says "ready", then obeys lines of JSON:
{"refuse": ["WriteChunk", ...], "errno": N} has every chunkserver refuse these requests from now
on; "synced" answers the sizes of what is durable on every replica, by chunk; "written"
the same of what is there at all. At its end it says what "synced" would have.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from dfs.client import open_client
from dfs.config import ClientLimits, Mount
from dfs.errors import Code, Failure
from dfs.process import log_to_stderr, run_process
from dfs.runtime.real import RealEnv
from fuse.mounting import Mounting, Place, make_way
from master.state import queries
from tests.client.fake_cluster import KEY, FakeCluster, start_cluster

LIMITS = ClientLimits(retry_for_s=1, write_behind_s=0.2)
STANDARD_INPUT = 0


def refuse(cluster: FakeCluster, order: dict[str, Any]) -> None:
    def fault(message: object) -> Failure | None:
        if type(message).__name__ not in order["refuse"]:
            return None
        return Failure(Code.DISK, "refused to order", errno=order["errno"])

    for server in cluster.servers:
        server.fault = fault


def sizes(cluster: FakeCluster, *, synced: bool) -> list[int]:
    """Of each chunk, what every replica of its set has."""
    found: dict[int, list[int]] = {}
    for server in cluster.servers:
        for handle, replica in server.replicas.items():
            if queries.replica_version(cluster.masters.tables, handle, server.server) is None:
                continue
            data = replica.synced if synced else replica.data
            found.setdefault(handle, []).append(data.size)
    return [min(of_chunk) for _, of_chunk in sorted(found.items())]


async def obey(cluster: FakeCluster) -> None:
    received = bytearray()
    stream = trio.lowlevel.FdStream(STANDARD_INPUT)
    while part := await stream.receive_some():
        received += part
        while b"\n" in received:
            line, _, rest = bytes(received).partition(b"\n")
            received = bytearray(rest)
            print(json.dumps(carry_out(cluster, json.loads(line))), flush=True)


def carry_out(cluster: FakeCluster, order: Any) -> object:
    if isinstance(order, dict):
        refuse(cluster, order)
        return None
    return sizes(cluster, synced=order == "synced")


async def serve(directory: Path, mountpoint: str, sync: bool, stop: trio.Event) -> None:
    key_file = directory / "key"
    key_file.write_bytes(KEY)
    make_way(mountpoint)
    async with trio.open_nursery() as nursery:

        async def start(name: str, node: Callable[..., Awaitable[None]]) -> str:
            address: str = await nursery.start(partial(node, RealEnv(f"real-{name}")))
            return address

        env = RealEnv("real-mount")
        cluster = await start_cluster(env, start, str(key_file))
        nursery.start_soon(obey, cluster)
        async with open_client(env, cluster.config(LIMITS), "mount") as client:
            mounting = Mounting(env, client, Mount(), Place(mountpoint, "test", True, sync))
            await mounting.serve(stop, lambda: print("ready", flush=True))
            print(json.dumps(sizes(cluster, synced=True)), flush=True)
        nursery.cancel_scope.cancel()


def main(mountpoint: str, *options: str) -> int:
    log_to_stderr("cluster-mount", verbose=True)
    with tempfile.TemporaryDirectory(prefix="dfs-mount-") as directory:
        return run_process(partial(serve, Path(directory), mountpoint, "--sync" in options))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
