#!/usr/bin/env python3
"""What slow disks cost: a real cluster whose every fsync takes that much longer.

    slow_sync.py [--delay-ms 20] [--seconds 10]

Starts a local cluster, once as it is and once with the delay injected at the disk seam of every
master and chunkserver, makes directories in one process and reads attributes from the leader in
another, and prints for each: changes per second, the percentiles of a leased read, whether the
Raft term changed, and whether the leader held every chunkserver for alive throughout.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from dfs import config
from dfs.client import Client, open_client
from dfs.messages.cluster import ClusterStatus, GetClusterStatus
from dfs.messages.common import ROOT
from dfs.messages.operations import MakeDirectory
from dfs.runtime.real import RealEnv

R = TypeVar("R")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay-ms", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    print("| fsync delay | changes/s | read p50 ms | p99 ms | max ms | term changed | all alive |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="dfs-slow-") as name:
        root = Path(name) / "root"
        try:
            for delay_ms in (0.0, options.delay_ms):
                slow_down(root, delay_ms)
                print(measure(root, delay_ms, options.seconds))
        finally:
            local(root, "down", "--force", "--purge", "--yes")


def local(root: Path, verb: str, *words: str) -> None:
    command = [sys.executable, "-m", "dfs.cli.main", "local", verb, "--root", str(root), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def slow_down(root: Path, delay_ms: float) -> None:
    """Have every server of the (running) cluster delay its syncs."""
    local(root, "up")
    if not delay_ms:
        return
    local(root, "down")
    for path in itertools.chain(root.glob("**/master-*.toml"), root.glob("**/chunkserver-*.toml")):
        path.write_text(f"debug_sync_delay_ms = {delay_ms}\n{path.read_text()}")
    local(root, "up")


def measure(root: Path, delay_ms: float, seconds: float) -> str:
    context = multiprocessing.get_context("spawn")
    made: multiprocessing.Queue[int] = context.Queue()
    writer = context.Process(target=write, args=(root, seconds, made))
    writer.start()
    taken, terms, alive = run(root, lambda client: read(client, seconds))
    writer.join()
    p50, p99 = taken[len(taken) // 2] * 1e3, taken[int(len(taken) * 0.99)] * 1e3
    changed = "no" if len(terms) == 1 else "YES"
    return (
        f"| {delay_ms:.0f} ms | {made.get() / seconds:.0f} | {p50:.2f} | {p99:.2f}"
        f" | {taken[-1] * 1e3:.1f} | {changed} | {'yes' if alive else 'NO'} |"
    )


def run(root: Path, work: Callable[[Client], Awaitable[R]]) -> R:
    settings = config.load(config.Client, str(root / "client.toml"))

    async def connected() -> R:
        async with open_client(RealEnv("bench"), settings, "bench") as client:
            return await work(client)

    return trio.run(connected)


async def read(client: Client, seconds: float) -> tuple[list[float], frozenset[int], bool]:
    """Sorted times of reads, the terms seen, and whether every chunkserver stayed alive."""
    taken, terms, alive = [], [], True
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        for _ in range(200):
            began = time.monotonic()
            await client.attributes(client.root_inode)
            taken.append(time.monotonic() - began)
        status: ClusterStatus = await client.cluster_call(GetClusterStatus())
        terms.append(status.term)
        alive = alive and all(server.alive for server in status.servers)
    return sorted(taken), frozenset(terms), alive


def write(root: Path, seconds: float, made: multiprocessing.Queue[int]) -> None:
    async def directories(client: Client) -> int:
        ends_at, count = time.monotonic() + seconds, 0
        prefix = b"%d" % time.monotonic_ns()
        while time.monotonic() < ends_at:
            name = prefix + b"-%d" % count
            await client.perform(MakeDirectory(client.root_inode, name, 0o755, ROOT))
            count += 1
        return count

    made.put(run(root, directories))


if __name__ == "__main__":
    main()
