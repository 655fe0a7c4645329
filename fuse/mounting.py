"""The life of one mount: from an empty directory to a clean end.

A mount ends when it is unmounted from outside, or when the process is told to stop. Told to stop,
it unmounts itself while it still serves, because the kernel then writes out what mappings have left
dirty. When that is refused (a program uses the mount), everything is flushed, the mount is taken
out of sight, and the program's files fail from then on with ENOTCONN. Either way the process ends
only when all that was written is durable.

The order at the end matters: no invalidation may be in the kernel when the session is destroyed,
and all of the kernel's requests are over before the files they left open are closed.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyfuse3
import trio

from dfs import config as configuration
from dfs.client import Client, open_client
from dfs.client.metrics import ClientMetrics, reasons
from dfs.errors import Code, Failure, os_failure
from dfs.metrics.monitor import Monitor
from dfs.metrics.rpc import Rpc
from dfs.runtime import Env
from fuse import mountpoints, waiter
from fuse.backend import Backend
from fuse.invalidation import Invalidation
from fuse.metrics import FuseMeter
from fuse.operations import Operations

log = logging.getLogger(__name__)

FUSE_DEVICE = "/dev/fuse"
LANE = "mount"


@dataclass(frozen=True, slots=True)
class Place:
    """Where to mount, for whom, and whether every write is to be durable when it returns."""

    mountpoint: str  # absolute, without symlinks
    cluster: str
    allow_other: bool
    sync: bool = False

    @property
    def options(self) -> set[str]:
        """For libfuse; `df` and `mount` show the cluster as the source."""
        source = re.sub(r"[^\w.:@+-]", "_", self.cluster, flags=re.ASCII)
        options = {"default_permissions", f"fsname=dfs#{source}", "subtype=dfs"}
        return options | {"allow_other"} if self.allow_other else options


async def run(
    env: Env,
    config: configuration.Client,
    place: Place,
    stop: trio.Event,
    on_ready: Callable[[], None],
) -> None:
    """Mount the cluster and serve until unmounted or told to stop. Raises Failure."""
    description = f"{os.uname().nodename} pid {os.getpid()} {place.mountpoint}"
    make_way(place.mountpoint)
    async with open_client(env, config, description) as client:
        mounting = Mounting(env, client, config.mount, place)
        async with trio.open_nursery() as nursery:
            await nursery.start(_monitor(env, config, client, mounting).run)
            await mounting.serve(stop, on_ready)
            nursery.cancel_scope.cancel()


def _monitor(env: Env, config: configuration.Client, client: Client, mounting: Mounting) -> Monitor:
    collectors = (Rpc(client.services.pool.meter), ClientMetrics(client), mounting.meter)
    why = partial(reasons, client)
    return Monitor(env, config.metrics_listen, config.metrics, collectors, why)


def make_way(mountpoint: str) -> None:
    """Check the directory, and take a dead client's mount off it. Raises Failure.

    EBUSY: a live client is mounted there.
    """
    mounted = mountpoints.mounted_at(mountpoint)
    if mounted is not None and mounted.kind == mountpoints.FILE_SYSTEM_TYPE:
        if mountpoints.describe(mountpoint) is not None:
            raise os_failure(errno.EBUSY, f"{mountpoint}: {mounted.source} is mounted here already")
        log.warning("%s: its client is gone: unmounting what it left", mountpoint)
        mountpoints.unmount(mountpoint, lazy=True)
    try:
        if os.listdir(mountpoint):
            log.warning("%s is not empty; what is in it is hidden while mounted", mountpoint)
    except OSError as error:
        raise os_failure(error.errno or errno.EIO, mountpoint) from None


class Mounting:
    """One mounted file system, served by this process. pyfuse3 allows one per process."""

    def __init__(
        self, env: Env, backend: Backend, config: configuration.Mount, place: Place
    ) -> None:
        about: dict[str, str | int] = {
            "pid": os.getpid(),
            "cluster": place.cluster,
            "mountpoint": place.mountpoint,
            "sync": place.sync,
        }
        self.operations = Operations(backend, about, sync=place.sync, sync_all=self._sync_all)
        self._backend = backend
        self.meter = FuseMeter(env)
        self.meter.watch(self.operations)
        self.invalidation = Invalidation(env, config.invalidation_queue)
        self._env = env
        self._config = config
        self._place = place
        self._device = ""  # major:minor, once mounted

    async def serve(self, stop: trio.Event, on_ready: Callable[[], None]) -> None:
        """Mount, call `on_ready` once the mount answers, serve until the end. Raises Failure."""
        descriptor = self._mount()
        with waiter.installed(descriptor) as fast:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.invalidation.run)
                nursery.start_soon(self._when_started, on_ready)
                nursery.start_soon(self._unmount_when_told, stop, fast, nursery.cancel_scope)
                try:
                    await pyfuse3.main(max_tasks=self._config.max_tasks)
                finally:
                    await self._end_session()
                nursery.cancel_scope.cancel()
        await self.operations.close()
        await self._make_durable()
        log.info("%s is unmounted", self._place.mountpoint)

    async def _make_durable(self) -> None:
        """What was unmounted is safe: nobody can ask for an fsync any more."""
        with self._env.clock.move_on_after(self._config.sync_timeout_s) as scope:
            try:
                await self._backend.sync_all()
            except Failure as failure:
                log.error("not everything written is durable: %s", failure.message)
        if scope.cancelled_caught:
            log.error("not everything written could be made durable in time")

    def _mount(self) -> int | None:
        """Mount; the descriptor of /dev/fuse, which pyfuse3 keeps to itself, or None."""
        before = _fuse_descriptors()
        try:
            pyfuse3.init(self.operations, self._place.mountpoint, self._place.options)
        except RuntimeError as error:
            about = f"cannot mount at {self._place.mountpoint}: {error}"
            raise Failure(Code.ERRNO, about, errno=errno.EPERM) from None
        new = [d for d in _fuse_descriptors() if d not in before]
        return new[0] if len(new) == 1 else None

    async def _when_started(self, on_ready: Callable[[], None]) -> None:
        await self.operations.started.wait()
        mountpoint = self._place.mountpoint
        mounted = mountpoints.mounted_at(mountpoint)
        if mounted is not None:
            self._device = mounted.device
            self._raise_read_ahead()
        # Through the kernel and back to this very loop: from a thread.
        await self._env.run_blocking(lambda: os.stat(mountpoint), LANE)
        log.info("%s is mounted at %s", self._place.cluster, mountpoint)
        on_ready()

    def _raise_read_ahead(self) -> None:
        try:
            mountpoints.set_read_ahead(self._device, self._config.read_ahead_kb)
        except OSError as error:
            log.debug("read-ahead stays as it is: %s", error)

    async def _unmount_when_told(
        self, stop: trio.Event, fast: waiter.Waiter | None, session: trio.CancelScope
    ) -> None:
        await stop.wait()
        try:
            await self._unmount()
            return  # the kernel ends the session by itself
        except Failure as failure:
            if failure.errno != errno.EBUSY:
                log.warning("cannot unmount: %s", failure.message)
        log.warning("%s is in use: its programs lose it now", self._place.mountpoint)
        await self._hand_over()
        if fast is not None:
            fast.end()
        pyfuse3.terminate()
        # Handlers that still wait for the cluster are given some time; nobody sees their answers.
        await self._env.clock.sleep(self._config.stop_timeout_s)
        session.cancel()

    async def _unmount(self) -> None:
        mountpoint = self._place.mountpoint
        await self._env.run_blocking(lambda: mountpoints.unmount(mountpoint, lazy=False), LANE)

    async def _sync_all(self) -> None:
        """What `dfs sync` asks for, after it has asked the kernel to write its dirty pages."""
        await self._until_handed_over()
        await self._backend.sync_all()

    async def _until_handed_over(self) -> None:
        """Wait, not for ever, until the kernel has no more to write.

        syncfs(2) does not wait for what it has begun on a FUSE file system, so a short silence has
        to do for a sign.
        """
        operations, clock = self.operations, self._env.clock
        with clock.move_on_after(self._config.stop_timeout_s):
            while True:
                begun = operations.writes_begun
                await clock.sleep(self._config.quiet_s)
                if operations.writes_begun == begun == operations.writes_ended:
                    return

    async def _hand_over(self) -> None:
        """Have the kernel hand over what is dirty in mappings, while we still serve."""
        mountpoint = self._place.mountpoint
        try:
            await self._env.run_blocking(lambda: mountpoints.sync_file_system(mountpoint), LANE)
        except OSError as error:
            log.error("%s: not everything could be flushed: %s", mountpoint, error)
        await self._until_handed_over()

    async def _end_session(self) -> None:
        """Leave the kernel, also when the mount ends by an error.

        pyfuse3 detaches what is still mounted. It would not help a notice that waits in the kernel
        for a lock held by a request that nobody will answer any more: our own thread, in the middle
        of its write to /dev/fuse, keeps the connection alive. Only aborting it does.
        """
        self.invalidation.stop()
        seconds = self._config.stop_timeout_s
        with trio.CancelScope(shield=True):
            if not await self._env.clock.wait(self.invalidation.idle, seconds):
                self._abort()
                await self.invalidation.idle.wait()
        pyfuse3.close()

    def _abort(self) -> None:
        mounted = mountpoints.mounted_at(self._place.mountpoint)
        if mounted is None or mounted.device != self._device:
            return
        try:
            mountpoints.abort(mounted)
        except (Failure, OSError) as error:
            log.error("%s cannot be aborted and may hang: %s", mounted.mountpoint, error)


def _fuse_descriptors() -> list[int]:
    """This process's descriptors of /dev/fuse."""
    found = []
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == FUSE_DEVICE:
                found.append(int(name))
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found
