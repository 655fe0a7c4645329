#!/usr/bin/env python3
"""Many files in one directory: what each costs, and what they do to the masters' memory.

    directory.py [--files 50000] [--tasks 64]

Starts a local cluster and creates the files through the client library, several at a time so that
commits are shared; prints, for each tenth of them, creates per second and the leader's resident
memory, then a listing of all. Rates that fall or memory that rises with the number are the
surprise to look for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trio

from dfs import config
from dfs.client import Client, open_client
from dfs.messages.common import ROOT
from dfs.messages.operations import MakeNode
from dfs.runtime.real import RealEnv

REGULAR = 0o100644
STEPS = 10
PAGE = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--tasks", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dfs-directory-") as name:
        root = Path(name) / "root"
        try:
            local(root, "up")
            trio.run(fill, root, options.files, options.tasks)
        finally:
            local(root, "down", "--force", "--purge", "--yes")


def local(root: Path, verb: str, *words: str) -> str:
    command = [sys.executable, "-m", "dfs.cli.main", "local", verb, "--root", str(root), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def leader_pid(root: Path) -> int:
    status = json.loads(local(root, "status", "--json"))
    return int(next(p["pid"] for p in status["processes"] if p["leader"]))


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} tells no memory")


async def fill(root: Path, files: int, tasks: int) -> None:
    settings = config.load(config.Client, str(root / "client.toml"))
    pid = leader_pid(root)
    print("| files | creates/s | leader's memory, MiB |")
    print("|---:|---:|---:|")
    async with open_client(RealEnv("bench"), settings, "bench") as client:
        for step in range(STEPS):
            numbers = iter(range(step * files // STEPS, (step + 1) * files // STEPS))
            began = time.monotonic()
            async with trio.open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(create, client, numbers)
            rate = files / STEPS / (time.monotonic() - began)
            print(f"| {(step + 1) * files // STEPS} | {rate:.0f} | {resident_mib(pid):.0f} |")
        began = time.monotonic()
        count = await listed(client)
        print(f"\n{count / (time.monotonic() - began):.0f} entries/s listed, {count} in all")


async def create(client: Client, numbers: Iterator[int]) -> None:
    for number in numbers:
        name = b"file-%d" % number
        await client.perform(MakeNode(client.root_inode, name, REGULAR, 0, ROOT))


async def listed(client: Client) -> int:
    count, cookie = 0, 0
    while True:
        page = await client.read_directory(client.root_inode, cookie, PAGE)
        count += len(page.entries)
        if page.complete:
            return count
        cookie = page.entries[-1].cookie


if __name__ == "__main__":
    main()
