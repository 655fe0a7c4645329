"""A disk that hangs delays neither heartbeats nor another disk, and the master is told."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from dfs.config import Chunkserver
from dfs.messages.chunks import InspectReplica
from dfs.runtime import Buffer
from dfs.runtime.real import RealDisk, RealEnv
from dfs.runtime.real.disk import RealFile
from tests.chunkserver.cluster import (
    Site,
    TestClient,
    chunkserver_config,
    real_site,
    running,
    start_leader,
)


class HangingFile(RealFile):
    """Writes wait while the gate is closed."""

    gate: threading.Event

    def pwrite(self, buffers: Sequence[Buffer], offset: int) -> None:
        self.gate.wait()
        super().pwrite(buffers, offset)


class HangingDisk(RealDisk):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.gate = threading.Event()
        self.gate.set()

    def open(self, path: str, *, write: bool = False, create: bool = False) -> RealFile:
        file = super().open(path, write=write, create=create)
        if path.startswith(self.path):
            file.__class__ = HangingFile
            file.gate = self.gate  # type: ignore[attr-defined]
        return file


class HangingEnv(RealEnv):
    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.hanging = HangingDisk(path)

    @property
    def disk(self) -> RealDisk:
        return self.hanging


@pytest.mark.parametrize("inline", [True, False], ids=["in the event loop", "in threads"])
def test_hanging_disk_delays_no_heartbeat_and_is_told(tmp_path: Path, inline: bool) -> None:
    async def main(site: Site) -> None:
        env = HangingEnv("cs1", str(tmp_path / "bad"))
        async with trio.open_nursery() as nursery:
            leader = await start_leader(nursery, site.env("master"), site.address("master"))
            config = chunkserver_config(
                1,
                site.address("cs1"),
                (str(tmp_path / "bad"),),
                site.address("master"),
                inline_below_s=10.0 if inline else 0.0,
            )
            opener = threading.Timer(1.5, env.hanging.gate.set)
            # The server in a thread of its own: in the first case its loop hangs as well.
            done = threading.Event()
            server = functools.partial(trio.run, _serve_until, done, env, config)
            nursery.start_soon(trio.to_thread.run_sync, server)
            await leader.until_heartbeats(2)
            client = TestClient(site.env("client"), nursery)
            await client.write((site.address("cs1"),), 1, 0, b"data")
            env.hanging.gate.clear()
            opener.start()
            nursery.start_soon(client.write, (site.address("cs1"),), 1, 0, b"more")
            beats = await leader.until_heartbeats(20)  # 20 x 0.05 s, while the disk hangs
            assert not env.hanging.gate.is_set()
            assert beats[-1].stalled_s > 0.5
            await trio.to_thread.run_sync(env.hanging.gate.wait)
            while leader.heartbeats[-1].stalled_s > 0:
                await leader.until_heartbeats(1)
            done.set()
            nursery.cancel_scope.cancel()

    real_site(tmp_path).run(main)


async def _serve_until(done: threading.Event, env: RealEnv, config: Chunkserver) -> None:
    async with running(env, config):
        await trio.to_thread.run_sync(done.wait)


def test_hanging_disk_does_not_stop_another_disk(tmp_path: Path) -> None:
    async def main(site: Site) -> None:
        env = HangingEnv("cs1", str(tmp_path / "bad"))
        async with trio.open_nursery() as nursery:
            await start_leader(nursery, site.env("master"), site.address("master"))
            directories = (str(tmp_path / "bad"), str(tmp_path / "good"))
            config = chunkserver_config(
                1, site.address("cs1"), directories, site.address("master"), inline_below_s=0.0
            )
            client = TestClient(site.env("client"), nursery)
            address = site.address("cs1")
            async with running(env, config) as server:
                for handle in range(4):
                    await client.write((address,), handle, 0, b"data")
                bad = [h for h in range(4) if server.store.find(h).directory.path == directories[0]]
                good = [h for h in range(4) if h not in bad]
                env.hanging.gate.clear()
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(client.write, (address,), bad[0], 0, b"late")
                    await client.write((address,), good[0], 0, b"soon")
                    assert await client.read(address, good[0], 0, 9) == b"soon"
                    await client.pool.call(address, InspectReplica(good[0]), timeout_s=5)
                    env.hanging.gate.set()
            nursery.cancel_scope.cancel()

    real_site(tmp_path).run(main)
