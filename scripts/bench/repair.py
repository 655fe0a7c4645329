#!/usr/bin/env python3
"""Repair on real processes: one of four chunkservers is killed for good while a client goes on.

    repair.py [--gib 4] [--caps 0,64] [--grace-s 5]

For each cap (MiB/s, 0: none) a fresh local cluster of 3 masters and 4 chunkservers is filled with
that much data, three copies each. The foreground, one process that writes and reads files of 4 MiB
through the client library, is measured by itself first. Then one chunkserver is killed and stays
dead, and the foreground goes on until every chunk has all its copies again. Printed for each cap:
the data that had to be copied, the time from the kill and from the first copy to full redundancy,
the bandwidth used, the foreground's throughput before and meanwhile, and its longest stall.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from dfs import config
from dfs.client import Client, open_client
from dfs.messages.cluster import ClusterStatus, GetClusterStatus, GetRepairStatus, RepairStatus
from dfs.messages.common import ROOT
from dfs.messages.operations import Create
from dfs.runtime.real import RealEnv

R = TypeVar("R")
MIB = 1 << 20
FILE_BYTES = 256 * MIB
FOREGROUND_BYTES = 4 * MIB
BASELINE_S = 10.0
PATIENCE_S = 1800.0
VICTIM = 4


@dataclass
class Foreground:
    """What the client's own work got done."""

    moved_bytes: int = 0
    stall_s: float = 0.0
    running: bool = True

    def take(self) -> int:
        moved, self.moved_bytes = self.moved_bytes, 0
        return moved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--caps", default="0,64")
    parser.add_argument("--grace-s", type=float, default=5.0)
    options = parser.parse_args()
    head = "| cap MiB/s | copied MiB | s from the kill | s of copying | MiB/s |"
    print(f"{head} foreground before, meanwhile MB/s | longest stall s |")
    print("|---|---|---|---|---|---|---|")
    for cap in (int(word) for word in options.caps.split(",")):
        with tempfile.TemporaryDirectory(prefix="dfs-repair-") as name:
            root = Path(name) / "root"
            try:
                start(root, cap * MIB, options.grace_s)
                print(run(root, lambda c, root=root, cap=cap: measure(c, root, cap, options.gib)))
            finally:
                local(root, "down", "--force", "--purge", "--yes")


def local(root: Path, verb: str, *words: str) -> None:
    command = [sys.executable, "-m", "dfs.cli.main", "local", verb, "--root", str(root), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start(root: Path, cap_bytes_per_s: int, grace_s: float) -> None:
    """A cluster whose masters have these limits."""
    local(root, "up", "--chunkservers", "4")
    local(root, "down")
    limits = f"repair_bytes_per_s = {cap_bytes_per_s}\nrepair_grace_s = {grace_s}\n"
    for path in root.glob("master-*.toml"):
        text = path.read_text()
        head, mark, tail = text.partition("[limits]\n")
        path.write_text(head + mark + limits + tail if mark else f"{text}\n[limits]\n{limits}")
    local(root, "up")


def run(root: Path, work: Callable[[Client], Awaitable[R]]) -> R:
    settings = config.load(config.Client, str(root / "client.toml"))

    async def connected() -> R:
        async with open_client(RealEnv("bench"), settings, "bench") as client:
            return await work(client)

    return trio.run(connected)


async def measure(client: Client, root: Path, cap: int, gib: float) -> str:
    await fill(client, int(gib * 1024 * MIB))
    foreground = Foreground()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, client, foreground)
        await trio.sleep(1.0)
        foreground.take()
        await trio.sleep(BASELINE_S)
        before = foreground.take() / BASELINE_S
        foreground.stall_s = 0.0
        killed_at = time.monotonic()
        kill(root)
        copied, first_at = await until_repaired(client)
        ended_at = time.monotonic()
        meanwhile = foreground.take() / (ended_at - killed_at)
        foreground.running = False
    took_s = ended_at - first_at
    return (
        f"| {cap or 'none'} | {copied / MIB:.0f} | {ended_at - killed_at:.1f} | {took_s:.1f}"
        f" | {copied / MIB / took_s:.0f} | {before / 1e6:.0f}, {meanwhile / 1e6:.0f}"
        f" | {foreground.stall_s:.2f} |"
    )


async def fill(client: Client, total_bytes: int) -> None:
    piece = os.urandom(MIB)
    for number in range(max(1, total_bytes // FILE_BYTES)):
        file = await client.create_file(create(client, b"data-%d" % number))
        for offset in range(0, min(FILE_BYTES, total_bytes), MIB):
            await file.write(offset, piece)
        await file.sync()
        await file.close()


def create(client: Client, name: bytes) -> Create:
    return Create(client.root_inode, name, 0o644, False, ROOT)


async def work(client: Client, foreground: Foreground) -> None:
    """Write a file of 4 MiB and read it back, again and again, at most ten of them."""
    data = os.urandom(FOREGROUND_BYTES)
    for number in itertools.count():
        if not foreground.running:
            return
        began = time.monotonic()
        file = await client.create_file(create(client, b"work-%d" % (number % 10)))
        await file.write(0, data)
        await file.flush()
        if bytes(await file.read(0, FOREGROUND_BYTES)) != data:
            raise AssertionError("another content was read than had been written")
        await file.close()
        foreground.moved_bytes += 2 * FOREGROUND_BYTES
        foreground.stall_s = max(foreground.stall_s, time.monotonic() - began)


def kill(root: Path) -> None:
    pid = json.loads((root / "run" / f"chunkserver-{VICTIM}.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)


async def until_repaired(client: Client) -> tuple[int, float]:
    """(bytes copied, when the first copy began)."""
    began, first_at = time.monotonic(), 0.0
    start: RepairStatus = await client.cluster_call(GetRepairStatus())
    while time.monotonic() - began < PATIENCE_S:
        repair: RepairStatus = await client.cluster_call(GetRepairStatus())
        status: ClusterStatus = await client.cluster_call(GetClusterStatus())
        copied = repair.copied_bytes - start.copied_bytes
        if copied and not first_at:
            first_at = time.monotonic()
        dead = not all(server.alive for server in status.servers)
        if dead and not status.under_replicated and not any(c.chunks for c in repair.classes):
            return copied, first_at or time.monotonic()
        await trio.sleep(0.2)
    raise AssertionError(f"not repaired within {PATIENCE_S:.0f} s: {repair}")


if __name__ == "__main__":
    main()
