"""A process that mounts a file system in memory: `python -m tests.fuse.memory_mount DIR`.

Says "ready" on standard output; logs to standard error; ends when unmounted or on SIGTERM, and
then tells on standard output what was flushed.
"""

from __future__ import annotations

import sys

import trio

from dfs.config import Mount
from dfs.process import log_to_stderr, run_process
from dfs.runtime.real import RealEnv
from fuse.mounting import Mounting, Place, make_way
from tests.fuse.memory import MemoryClient


def main(mountpoint: str) -> int:
    log_to_stderr("memory-mount", verbose=True)
    env = RealEnv("memory-mount")
    place = Place(mountpoint, "memory", True)
    client = MemoryClient(env.clock)

    async def serve(stop: trio.Event) -> None:
        make_way(mountpoint)
        mounting = Mounting(env, client, Mount(), place)
        await mounting.serve(stop, lambda: print("ready", flush=True))
        print("closed", sum(what == "close" for what, _ in client.events), flush=True)

    return run_process(serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
