#!/usr/bin/env python3
"""What a write chain of three chunkserver processes on loopback carries, and what it costs.

    scripts/bench/chain.py [--gib 1] [--dir DIR] [--packets 512,1024] [--rims inline,thread]

Per rim (how a chunkserver waits for its disk) and packet size: MB/s of one client that streams
with a window of 8 MiB, CPU seconds per GiB over all processes, and p50/p99 of single 4 KiB writes.
The last line is the local bound: the same bytes written three times with pwrite into files of the
same file system. No master takes part: the client names the chain itself.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from dfs.checksums import piece_checksums
from dfs.config import Rpc
from dfs.layout import CHUNK_BYTES
from dfs.messages.chunks import WriteChunk
from dfs.messages.common import Done
from dfs.rpc import Endpoint, Identity, Pool
from dfs.runtime.real import RealEnv

KEY = "a key for the benchmark only"
WINDOW_BYTES = 8 << 20
SMALL_WRITES = 2000
# `inline_below_s` of the chunkserver: 0 is a thread for every packet, a day always inline.
RIMS = {"inline": 86400.0, "adaptive": 0.02, "thread": 0.0}


@dataclass
class Figures:
    """Of one variant."""

    mb_per_s: float
    cpu_s_per_gib: float
    p50_us: float
    p99_us: float


@contextmanager
def servers(root: Path, inline_below_s: float) -> Iterator[tuple[list[str], list[int]]]:
    """Three chunkserver processes; their addresses and process ids."""
    (root / "key").write_text(KEY)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    processes = [_start(root, i, address, inline_below_s) for i, address in enumerate(addresses, 1)]
    try:
        yield addresses, [p.pid for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _start(root: Path, number: int, address: str, inline_below_s: float) -> subprocess.Popen[bytes]:
    config = root / f"cs{number}.toml"
    config.write_text(
        f'cluster = "bench"\nid = {number}\nlisten = "{address}"\ndata_dirs = ["cs{number}"]\n'
        f'key_file = "key"\nmasters = ["127.0.0.1:29100"]\n'
        f"[limits]\ninline_below_s = {inline_below_s}\n"
    )
    run = "from chunkserver.command import chunkserver; chunkserver()"
    command = [sys.executable, "-c", run, "run", "--config", str(config)]
    with (root / f"cs{number}.log").open("wb") as log:
        return subprocess.Popen(command, stderr=log)


def cpu_s(pids: list[int]) -> float:
    """CPU seconds that these processes and this one have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    own = resource.getrusage(resource.RUSAGE_SELF)
    return ticks / os.sysconf("SC_CLK_TCK") + own.ru_utime + own.ru_stime


async def _connected(pool: Pool, addresses: list[str]) -> None:
    for address in addresses:
        with trio.fail_after(20):
            while True:
                try:
                    await pool.get(address)
                    break
                except Exception:  # noqa: BLE001  the server is still starting
                    await trio.sleep(0.05)


async def stream(pool: Pool, chain: list[str], total: int, packet: int) -> None:
    """Write `total` bytes, chunk after chunk, checksums computed as a client does."""
    data = memoryview(os.urandom(packet))
    window = trio.CapacityLimiter(max(1, WINDOW_BYTES // packet))
    async with trio.open_nursery() as nursery:
        for position in range(0, total, packet):
            handle, offset = divmod(position, CHUNK_BYTES)
            slot = object()
            await window.acquire_on_behalf_of(slot)
            nursery.start_soon(_send, pool, chain, handle + 1, offset, data, window, slot)


async def _send(
    pool: Pool,
    chain: list[str],
    handle: int,
    offset: int,
    data: memoryview,
    window: trio.CapacityLimiter,
    slot: object,
) -> None:
    sums = piece_checksums(data, offset)
    message = WriteChunk(handle, 1, 0, offset, sums, tuple(chain[1:]), create=True)
    answer = await pool.call(chain[0], message, (data,), timeout_s=60)
    assert answer.message == Done()
    window.release_on_behalf_of(slot)


async def small_writes(pool: Pool, chain: list[str]) -> list[float]:
    """Seconds that each of many 4 KiB writes takes, one after the other."""
    data = os.urandom(4096)
    times = []
    for i in range(SMALL_WRITES):
        offset = i * 4096
        started = time.perf_counter()
        message = WriteChunk(
            1 << 20, 1, 0, offset, piece_checksums(data, offset), tuple(chain[1:]), create=True
        )
        await pool.call(chain[0], message, (data,), timeout_s=60)
        times.append(time.perf_counter() - started)
    return sorted(times)


async def measure(chain: list[str], pids: list[int], total: int, packet: int) -> Figures:
    """One variant, on servers that already run."""
    async with trio.open_nursery() as nursery:
        endpoint = Endpoint(RealEnv("bench"), KEY.encode(), Identity("client", 0, ""), Rpc())
        pool = Pool(endpoint, nursery)
        await _connected(pool, chain)
        await stream(pool, chain, 64 << 20, packet)
        before, started = cpu_s(pids), time.perf_counter()
        await stream(pool, chain, total, packet)
        took, used = time.perf_counter() - started, cpu_s(pids) - before
        times = await small_writes(pool, chain)
        nursery.cancel_scope.cancel()
    return Figures(
        total / took / 1e6,
        used / (total / (1 << 30)),
        times[len(times) // 2] * 1e6,
        times[len(times) * 99 // 100] * 1e6,
    )


def local_bound(root: Path, total: int, packet: int) -> Figures:
    """The same bytes, three times pwrite, in this process."""
    data = os.urandom(packet)
    before, started = cpu_s([]), time.perf_counter()
    for copy in range(3):
        fd = os.open(root / f"local{copy}", os.O_RDWR | os.O_CREAT)
        for offset in range(0, total, packet):
            os.pwrite(fd, data, offset)
        os.close(fd)
    took, used = time.perf_counter() - started, cpu_s([]) - before
    return Figures(total / took / 1e6, used / (total / (1 << 30)), 0, 0)


def show(name: str, packet: int, figures: Figures) -> None:
    print(
        f"| {name} | {packet >> 10} KiB | {figures.mb_per_s:.0f} | {figures.cpu_s_per_gib:.2f} "
        f"| {figures.p50_us:.0f} / {figures.p99_us:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--dir", default=None)
    parser.add_argument("--packets", default="512,1024")
    parser.add_argument("--rims", default=",".join(RIMS))
    arguments = parser.parse_args()
    total = int(arguments.gib * (1 << 30))
    packets = [int(size) << 10 for size in arguments.packets.split(",")]
    print(
        "| rim | packet | MB/s | CPU s per GiB | 4 KiB write p50 / p99 µs |\n|---|---|---|---|---|"
    )
    for rim in arguments.rims.split(","):
        for packet in packets:
            root = Path(tempfile.mkdtemp(prefix="dfs-chain-", dir=arguments.dir))
            try:
                with servers(root, RIMS[rim]) as (chain, pids):
                    show(rim, packet, trio.run(measure, chain, pids, total, packet))
            finally:
                shutil.rmtree(root)
    for packet in packets:
        root = Path(tempfile.mkdtemp(prefix="dfs-chain-", dir=arguments.dir))
        try:
            show("3 x pwrite, local", packet, local_bound(root, total, packet))
        finally:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
