"""What one RPC costs: two processes on loopback, real sockets.

    scripts/bench/rpc.py [--seconds 2]

Prints calls per second and CPU time per call on either side with 1 and with 64 calls outstanding
(inline handler and handler in a task), and MB/s with payloads of 1 MiB in either direction.
Run it on an otherwise idle machine; the figures in ARCHITECTURE.md name the machine they are from.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from dfs.config import Rpc
from dfs.messages.chunks import ChunkData, ReadChunk, WriteChunk
from dfs.messages.common import Attributes, Done
from dfs.messages.metadata import GetAttributes, OpenInode
from dfs.rpc import Connection, Endpoint, Identity, Reply, Request, connect, serve
from dfs.runtime.real import RealEnv

KEY = b"key of a benchmark, not a secret"
PACKET_BYTES = 1 << 20
ATTRIBUTES = Attributes(7, 0o100644, 1, 0, 0, 0, 1 << 30, *(1_700_000_000_123_456_789,) * 4, 5)

Work = Callable[[], Awaitable[object]]


def endpoint(role: str) -> Endpoint:
    return Endpoint(RealEnv(f"{role}-1"), KEY, Identity(role, 1, ""), Rpc())


# -- the server's process


def inline(_: Request) -> Attributes:
    return ATTRIBUTES


async def in_task(_: Request) -> Attributes:
    return ATTRIBUTES


async def write(request: Request) -> Done:
    assert len(request.payload) == PACKET_BYTES
    return Done()


async def serve_until_killed() -> None:
    packet = bytes(PACKET_BYTES)
    handlers = {
        GetAttributes: inline,
        OpenInode: in_task,
        WriteChunk: write,
        ReadChunk: lambda _: Reply(ChunkData(b"x" * 128), [packet]),
    }
    async with trio.open_nursery() as nursery:
        start = partial(serve, endpoint("master"), "127.0.0.1:0", handlers)
        print(await nursery.start(start), flush=True)


# -- the client's


def cpu_s(pid: int) -> float:
    """CPU time that a process has used."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


class Measure:
    """Runs one kind of call for a while and prints what it cost."""

    def __init__(self, server: int, seconds: float) -> None:
        self._server = server
        self._seconds = seconds

    async def run(self, title: str, outstanding: int, work: Work, call_bytes: int = 0) -> None:
        mine, theirs = cpu_s(os.getpid()), cpu_s(self._server)
        begun = time.perf_counter()
        calls = await self._calls(outstanding, work, begun + self._seconds)
        took = time.perf_counter() - begun
        mine, theirs = cpu_s(os.getpid()) - mine, cpu_s(self._server) - theirs
        volume = f"{calls * call_bytes / took / 1e6:8.0f} MB/s" if call_bytes else ""
        print(
            f"{title:34} x{outstanding:<3} {calls / took:9.0f} calls/s  CPU per call "
            f"{mine / calls * 1e6:6.1f} us client {theirs / calls * 1e6:6.1f} us server {volume}"
        )

    async def _calls(self, outstanding: int, work: Work, until: float) -> int:
        counts = []

        async def caller() -> None:
            count = 0
            while time.perf_counter() < until:
                await work()
                count += 1
            counts.append(count)

        async with trio.open_nursery() as nursery:
            for _ in range(outstanding):
                nursery.start_soon(caller)
        return sum(counts)


async def measure_all(connection: Connection, measure: Measure) -> None:
    inline, task = GetAttributes(7), OpenInode(1, 7)
    for outstanding in (1, 64):
        await measure.run(
            "small, answered inline", outstanding, lambda: connection.call(inline, timeout_s=5)
        )
        await measure.run(
            "small, answered in a task", outstanding, lambda: connection.call(task, timeout_s=5)
        )
    packet, into = bytes(PACKET_BYTES), memoryview(bytearray(PACKET_BYTES))
    sums = b"x" * 128
    writing = WriteChunk(1, 1, 1, 0, sums, ())
    reading = ReadChunk(1, 1, 0, PACKET_BYTES)
    for outstanding in (1, 8):
        await measure.run(
            "1 MiB there",
            outstanding,
            lambda: connection.call(writing, [packet], timeout_s=5),
            PACKET_BYTES,
        )
        await measure.run(
            "1 MiB back",
            outstanding,
            lambda: connection.call(reading, timeout_s=5, into=into),
            PACKET_BYTES,
        )


async def main(server: int, address: str, seconds: float) -> None:
    async with trio.open_nursery() as nursery:
        connection = await connect(endpoint("client"), address, nursery)
        await measure_all(connection, Measure(server, seconds))
        connection.close()


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        trio.run(serve_until_killed)
        return
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            trio.run(main, server.pid, server.stdout.readline().strip(), arguments.seconds)
        finally:
            server.kill()


if __name__ == "__main__":
    run()
