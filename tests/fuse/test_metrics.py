"""What the kernel asks for is counted, and answered as if nobody counted."""

from __future__ import annotations

import os

import pyfuse3
import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest
from pyfuse3 import FileNameT, InodeT, ModeT

from dfs.runtime.real import RealClock, RealEnv
from fuse.metrics import FuseMeter
from fuse.operations import Operations
from tests.fuse.memory import MemoryClient
from tests.fuse.test_operations import ROOT, Mount, context
from tests.metrics.scraping import Scrape

COUNT = "dfs_fuse_operation_duration_seconds_count"


def watched(mount: Mount) -> FuseMeter:
    meter = FuseMeter(RealEnv("mount"))
    meter.watch(mount.operations)
    return meter


def told(meter: FuseMeter) -> Scrape:
    registry = CollectorRegistry()
    registry.register(meter)
    return Scrape(generate_latest(registry).decode())


def test_operations_and_errors_are_counted() -> None:
    async def main() -> None:
        mount = Mount()
        meter = watched(mount)
        fh, inode = await mount.create(b"f", os.O_RDWR)
        assert await mount.operations.write(fh, 0, b"abc") == 3
        assert (await mount.operations.getattr(inode, mount.ctx)).st_size == 3
        for _ in range(2):
            with pytest.raises(pyfuse3.FUSEError):
                await mount.operations.lookup(ROOT, FileNameT(b"absent"), mount.ctx)
        with pytest.raises(pyfuse3.FUSEError):
            await mount.operations.mkdir(ROOT, FileNameT(b"f"), ModeT(0o755), mount.ctx)
        seen = told(meter)
        assert [seen.value(COUNT, operation=o) for o in ("create", "write", "getattr")] == [1, 1, 1]
        assert seen.value(COUNT, operation="lookup") == 2
        assert seen.value(COUNT, operation="read") == 0
        assert seen.value("dfs_fuse_errors_total", errno="ENOENT") == 2
        assert seen.value("dfs_fuse_errors_total", errno="EEXIST") == 1

    trio.run(main)


def test_a_cancelled_operation_is_counted() -> None:
    class Stuck(MemoryClient):
        async def attributes(self, inode: int) -> None:  # type: ignore[override]
            await trio.sleep_forever()

    async def main() -> None:
        mount = Mount(Stuck(RealClock()))
        meter = watched(mount)
        with trio.CancelScope() as scope:
            scope.cancel()
            await mount.operations.getattr(InodeT(1), context())
        assert told(meter).value(COUNT, operation="getattr") == 1

    trio.run(main)


def test_every_handler_is_watched() -> None:
    """Those that pyfuse3 would call, but for what is no request (init) or cannot fail (forget)."""
    mount = Mount()
    meter = watched(mount)
    counted = {
        name
        for name in vars(pyfuse3.Operations)
        if not name.startswith("_") and told(meter).has(COUNT, operation=name)
    }
    own = {name for name in vars(Operations) if callable(getattr(Operations, name))}
    handled = own & {n for n in vars(pyfuse3.Operations) if not n.startswith("_")}
    assert handled - counted <= {"init", "forget", "stacktrace"}
    assert len(counted) > 20
