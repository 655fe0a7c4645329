"""A leader of four chunkservers that does what operators say, over the real RPC; a process.

    python -m tests.cli.fake_leader DIRECTORY KNOWS CHUNKS_PER_LOOK

Writes DIRECTORY/client.toml and prints a line when it answers. With KNOWS "old" it is of a version
that knows nothing of repair. Draining moves CHUNKS_PER_LOOK chunks each time somebody looks, so a
drain is over when it was looked at often enough, whatever the clock says; with 0 it is stuck.

Chunkservers 1 and 2 live (8 chunks on /disk1 of each, none on /disk2), 3 is dead with 4 chunks,
4 is dead and empty.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from dfs.config import Rpc, load_key
from dfs.errors import Code, Failure
from dfs.messages.cluster import (
    ClusterStatus,
    DiskReport,
    GetClusterStatus,
    GetRepairStatus,
    MasterStatus,
    RemoveServer,
    RepairClass,
    RepairStatus,
    ServerMode,
    ServerRepair,
    ServerStatus,
    SetServerMode,
)
from dfs.messages.common import Done
from dfs.messages.metadata import CloseSession, KeepSession, OpenSession, SessionOpened
from dfs.rpc import Endpoint, Handlers, Identity, Request, serve
from dfs.runtime.real import RealEnv

DEAD_FOR_S = {3: 90.0, 4: 900.0}
GIB = 1 << 30


class FakeLeader:
    """What the leader knows: the chunks of each disk, and what was said of servers and disks."""

    def __init__(self, per_look: int) -> None:
        self._per_look = per_look
        self._chunks = {(1, "/disk1"): 8, (1, "/disk2"): 0, (2, "/disk1"): 8, (2, "/disk2"): 0}
        self._chunks |= {(3, "/disk1"): 4, (4, "/disk1"): 0}
        self._modes: dict[tuple[int, str], ServerMode] = {}
        self._until_s: dict[int, float] = {}

    def handlers(self, *, old: bool) -> Handlers:
        answers: dict[type, Callable[[Any], Any]] = {
            OpenSession: lambda _: SessionOpened(1, 30.0, 1, "fake"),
            KeepSession: lambda _: Done(),
            CloseSession: lambda _: Done(),
            GetClusterStatus: lambda _: self._status(),
        }
        if not old:
            answers |= {
                GetRepairStatus: lambda _: self._repair(),
                SetServerMode: self._set_mode,
                RemoveServer: self._remove,
            }

        def handler(answer: Callable[[Any], Any]) -> Callable[[Request], Any]:
            return lambda request: answer(request.message)

        return {cls: handler(answer) for cls, answer in answers.items()}

    def _servers(self) -> list[int]:
        return sorted({server for server, _ in self._chunks})

    def _held(self, server: int, disk: str = "") -> int:
        return sum(n for (s, d), n in self._chunks.items() if s == server and disk in ("", d))

    def _status(self) -> ClusterStatus:
        masters = (MasterStatus(1, "m1", "leader", True),)
        servers = tuple(self._server(id) for id in self._servers())
        return ClusterStatus("fake", 1, 1, "m1", 1, 5, 5, masters, servers, 1, 9, 20, 4, copies=2)

    def _server(self, id: int) -> ServerStatus:
        alive = id not in DEAD_FOR_S
        disks = tuple(
            DiskReport(disk, 4 * GIB, 3 * GIB, chunks, True)
            for (server, disk), chunks in self._chunks.items()
            if server == id and alive
        )
        return ServerStatus(id, f"s{id}:7002", "rack", alive, disks, self._held(id) if alive else 0)

    def _repair(self) -> RepairStatus:
        draining = [key for key, mode in self._modes.items() if mode == ServerMode.DRAINING]
        for server, disk in draining:
            for key in [(server, disk)] if disk else [k for k in self._chunks if k[0] == server]:
                self._chunks[key] = max(0, self._chunks[key] - self._per_look)
        left = sum(self._held(server, disk) for server, disk in draining)
        said = {**{(server, ""): ServerMode.IN_SERVICE for server in DEAD_FOR_S}, **self._modes}
        return RepairStatus(
            (RepairClass("draining", left, 1, left * GIB),),
            tuple(self._said(server, disk, mode) for (server, disk), mode in said.items()),
            bytes_per_s=GIB,
            cap_bytes_per_s=2 * GIB,
            eta_s=float(left),
            stuck="" if self._per_look else "no server has room",
        )

    def _said(self, server: int, disk: str, mode: ServerMode) -> ServerRepair:
        until_s = 0.0 if disk else self._until_s.get(server, 0.0)
        dead_for_s = DEAD_FOR_S.get(server, 0.0)
        return ServerRepair(server, disk, mode, self._held(server, disk), until_s, dead_for_s)

    def _set_mode(self, message: SetServerMode) -> Done:
        self._modes[message.server, message.disk] = ServerMode(message.mode)
        self._until_s[message.server] = message.seconds
        return Done()

    def _remove(self, message: RemoveServer) -> Done:
        if self._held(message.server) or message.server not in DEAD_FOR_S:
            raise Failure(Code.CONFIG, f"chunkserver {message.server} cannot be removed")
        self._chunks = {key: n for key, n in self._chunks.items() if key[0] != message.server}
        return Done()


async def main(directory: Path, *, old: bool, per_look: int) -> None:
    key_file = directory / "key"
    key_file.write_text("the key of a cluster that is made up\n")
    endpoint = Endpoint(RealEnv("fake"), load_key(str(key_file)), Identity("master", 1, ""), Rpc())
    handlers = FakeLeader(per_look).handlers(old=old)
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve, endpoint, "127.0.0.1:0", handlers)
        config = f'cluster = "fake"\nkey_file = "key"\nmasters = ["{address}"]\n'
        (directory / "client.toml").write_text(f"{config}[limits]\nwatch_interval_s = 0.01\n")
        print("ready", flush=True)


if __name__ == "__main__":
    trio.run(lambda: main(Path(sys.argv[1]), old=sys.argv[2] == "old", per_look=int(sys.argv[3])))
