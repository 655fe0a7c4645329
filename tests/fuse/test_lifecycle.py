"""How mounts begin and end: stale mountpoints, signals, kill -9, and both commands."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from dfs.config import Mount
from dfs.errors import Failure
from dfs.messages.common import Attributes
from dfs.runtime import Clock
from dfs.runtime.real import RealEnv
from fuse import mountpoints
from fuse.command import mount, umount
from fuse.invalidation import ForgetInode, ForgetName
from fuse.mounting import Mounting, Place, make_way
from fuse.xattrs import MOUNT_NAME
from tests.conftest import ExpectedLogs
from tests.fuse.memory import MemoryClient
from tests.fuse.processes import MountProcess, is_mounted, mount_process, unmount
from tests.fuse.test_mounted_files import opened, refused

pytestmark = pytest.mark.mount


@contextmanager
def held(path: Path) -> Iterator[int]:
    """A new open file, whose mount need not live as long."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        yield descriptor
    finally:
        with suppress(OSError):  # close(2) tells that the client is gone
            os.close(descriptor)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "mounted"


@pytest.fixture
def running(place: Path, tmp_path: Path) -> Iterator[MountProcess]:
    with mount_process(place, tmp_path / "log") as process:
        yield process


def log_of(tmp_path: Path) -> str:
    return (tmp_path / "log").read_text()


def test_unmounting_ends_the_process_in_order(running: MountProcess, place: Path) -> None:
    (place / "f").write_bytes(b"1")
    unmount(place)
    code, said = running.wait_end()
    assert (code, said) == (0, "closed 1")
    assert not is_mounted(place)


def test_sigterm_unmounts_an_idle_mount(running: MountProcess, place: Path) -> None:
    (place / "f").write_bytes(b"1")
    running.signal(signal.SIGTERM)
    assert running.wait_end() == (0, "closed 1")
    assert not is_mounted(place)


def test_sigterm_closes_what_programs_have_open(
    running: MountProcess, place: Path, tmp_path: Path
) -> None:
    with held(place / "f") as file:
        os.write(file, b"not closed yet")
        running.signal(signal.SIGTERM)
        assert running.wait_end() == (0, "closed 1")
        with refused(errno.ENOTCONN, errno.ECONNABORTED):
            os.write(file, b"more")
    assert not is_mounted(place)
    assert "in use" in log_of(tmp_path)


def test_sigterm_flushes_dirty_mappings_first(
    running: MountProcess, place: Path, tmp_path: Path
) -> None:
    script = (
        "import mmap, os, sys\n"
        "f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "os.ftruncate(f, 4096)\n"
        "m = mmap.mmap(f, 4096); m[:5] = b'dirty'\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", script, str(place / "f")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    running.signal(signal.SIGTERM)
    code, _ = running.wait_end()
    program.communicate("")
    assert code == 0
    assert "written b'dirty'" in log_of(tmp_path)  # the double logs the first bytes it is given


def test_a_killed_clients_mountpoint_can_be_mounted_again(place: Path, tmp_path: Path) -> None:
    with mount_process(place, tmp_path / "log") as first:
        (place / "f").touch()
        first.signal(signal.SIGKILL)
        assert first.wait_end()[0] == -signal.SIGKILL
        with refused(errno.ENOTCONN, errno.ECONNABORTED):
            os.listdir(place)
        with mount_process(place, tmp_path / "log"):
            assert os.listdir(place) == []
    assert "its client is gone" in log_of(tmp_path)
    assert not is_mounted(place)


def test_a_killed_clients_mountpoint_in_use_can_be_mounted_again(
    place: Path, tmp_path: Path
) -> None:
    with mount_process(place, tmp_path / "log") as first, held(place / "f"):
        first.signal(signal.SIGKILL)
        first.wait_end()
        with mount_process(place, tmp_path / "log"):
            (place / "g").write_bytes(b"2")
            assert os.listdir(place) == ["g"]


def test_the_mount_tells_of_its_process(running: MountProcess, place: Path) -> None:
    about = json.loads(os.getxattr(place, MOUNT_NAME))
    assert about == {
        "pid": running.pid,
        "cluster": "memory",
        "mountpoint": str(place),
        "sync": False,
    }
    assert MOUNT_NAME.decode() not in os.listxattr(place)


def test_a_live_mount_is_not_mounted_over(running: MountProcess, place: Path) -> None:
    with pytest.raises(Failure, match="mounted here already") as caught:
        make_way(str(place))
    assert caught.value.errno == errno.EBUSY


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, number in (("file", errno.ENOTDIR), ("missing", errno.ENOENT)):
        with pytest.raises(Failure, match=name) as caught:
            make_way(str(tmp_path / name))
        assert caught.value.errno == number


def test_a_directory_with_entries_is_warned_of(tmp_path: Path, expected_logs: ExpectedLogs) -> None:
    expected_logs("is not empty")
    (tmp_path / "entry").touch()
    make_way(str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="/sys/class/bdi is root's")
def test_read_ahead_is_raised(running: MountProcess, place: Path) -> None:
    mounted = mountpoints.mounted_at(str(place))
    assert mounted is not None
    path = Path(f"/sys/class/bdi/{mounted.device}/read_ahead_kb")
    assert path.read_text().strip() == "1024"


def test_the_state_of_all_tasks_can_be_asked_for(
    running: MountProcess, place: Path, tmp_path: Path
) -> None:
    os.setxattr(place, "fuse_stacktrace", b"")
    assert "task pyfuse-" in log_of(tmp_path)
    assert "memory_mount.py" in log_of(tmp_path)


# -- told to forget, by a mount within this process


class Gated(MemoryClient):
    """Answers a lookup of `slow` only once `gate` is open."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.asked = trio.Event()
        self.gate = trio.Event()

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        if name == b"slow":
            self.asked.set()
            await self.gate.wait()
        return await super().lookup(parent, name)


async def mount_here(
    place: Path, body: Callable[[Gated, Mounting, trio.Event], Awaitable[None]]
) -> None:
    """Mount in this very process; `body` must look at the mount from threads only."""
    env = RealEnv("test")
    client = Gated(env.clock)
    os.mkdir(place)
    config = Mount(stop_timeout_s=0.2)
    mounting = Mounting(env, client, config, Place(str(place), "memory", False))
    ready, stop = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mounting.serve, stop, ready.set)
        await ready.wait()
        await body(client, mounting, stop)
        stop.set()


def test_the_kernel_takes_notices_of_what_it_knows_and_of_what_it_does_not(place: Path) -> None:
    async def body(client: Gated, mounting: Mounting, stop: trio.Event) -> None:
        def make() -> int:
            (place / "f").write_bytes(b"1")
            return (place / "f").stat().st_ino

        inode = await trio.to_thread.run_sync(make)
        for notice in (
            ForgetInode(inode),
            ForgetInode(inode, attributes_only=True),
            ForgetInode(4711),
            ForgetName(1, b"f"),
            ForgetName(1, b"unknown"),
            ForgetName(4711, b"f"),
        ):
            await mounting.invalidation.submit(notice).wait()
        assert await trio.to_thread.run_sync((place / "f").read_bytes) == b"1"

    trio.run(mount_here, place, body)


def test_a_notice_of_a_directory_in_use_waits_without_holding_up_anything(place: Path) -> None:
    async def body(client: Gated, mounting: Mounting, stop: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, (place / "slow").exists)
            await client.asked.wait()
            done = mounting.invalidation.submit(ForgetName(1, b"slow"))
            for _ in range(3):  # other requests are served meanwhile
                await trio.to_thread.run_sync(os.statvfs, place)
            assert not done.is_set()
            client.gate.set()
            await done.wait()

    trio.run(mount_here, place, body)


def test_a_request_that_is_never_answered_does_not_keep_the_mount_from_ending(
    place: Path, expected_logs: ExpectedLogs
) -> None:
    """Nor does a notice that waits for that request's directory."""
    expected_logs("is in use")

    async def body(client: Gated, mounting: Mounting, stop: trio.Event) -> None:
        def look() -> None:
            with refused(errno.ENOTCONN, errno.ECONNABORTED, errno.EIO):
                (place / "slow").stat()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, look)
            await client.asked.wait()
            mounting.invalidation.submit(ForgetName(1, b"slow"))
            stop.set()

    trio.run(mount_here, place, body)
    assert not is_mounted(place)


# -- commands


def test_umount_waits_for_the_process(running: MountProcess, place: Path) -> None:
    (place / "f").touch()
    ended = CliRunner().invoke(umount, [str(place)])
    assert (ended.exit_code, ended.output) == (0, "")
    assert not is_mounted(place)
    assert subprocess.run(
        ["ps", "-o", "stat=", "-p", str(running.pid)], capture_output=True, text=True, check=False
    ).stdout.strip()[:1] in ("", "Z")


def test_umount_of_a_mount_in_use_is_one_clear_line(running: MountProcess, place: Path) -> None:
    with opened(place / "f", os.O_CREAT | os.O_RDWR):
        ended = CliRunner().invoke(umount, [str(place)])
    assert ended.exit_code == 1
    assert "is in use" in ended.output
    assert len(ended.output.splitlines()) == 1
    assert is_mounted(place)


def test_umount_lazily_takes_a_mount_in_use_out_of_sight(
    running: MountProcess, place: Path
) -> None:
    with opened(place / "f", os.O_CREAT | os.O_RDWR) as file:
        assert CliRunner().invoke(umount, ["--lazy", str(place)]).exit_code == 0
        assert not is_mounted(place)
        os.write(file, b"still served")
    assert running.wait_end()[0] == 0


def test_umount_cleans_up_after_a_killed_client(running: MountProcess, place: Path) -> None:
    running.signal(signal.SIGKILL)
    running.wait_end()
    assert CliRunner().invoke(umount, [str(place)]).exit_code == 0
    assert not is_mounted(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="others need fusectl")
def test_umount_by_force_ends_a_mount_in_use(running: MountProcess, place: Path) -> None:
    with held(place / "f") as file:
        assert CliRunner().invoke(umount, ["--force", str(place)]).exit_code == 0
        assert not is_mounted(place)
        with refused(errno.ENOTCONN, errno.ECONNABORTED):
            os.write(file, b"x")
    assert running.wait_end()[0] == 0


def test_umount_of_nothing_is_one_clear_line(tmp_path: Path) -> None:
    ended = CliRunner().invoke(umount, [str(tmp_path)])
    assert ended.exit_code == 1
    assert "no dfs is mounted here" in ended.output


def test_mount_without_a_cluster_is_one_clear_line(tmp_path: Path) -> None:
    ended = CliRunner().invoke(mount, [str(tmp_path)], env={"DFS_CONFIG": None})
    assert ended.exit_code == 2
    assert "--config FILE or DFS_CONFIG" in ended.output


def test_mount_with_a_wrong_configuration_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "client.toml").write_text("masters = 3\n")
    ended = CliRunner().invoke(mount, [str(tmp_path), "--config", str(tmp_path / "client.toml")])
    assert ended.exit_code == 2
    assert len(ended.output.splitlines()) == 1


def test_mount_leaves_a_mount_of_the_same_cluster_alone(
    running: MountProcess, place: Path, tmp_path: Path
) -> None:
    for cluster, code, words in (("memory", 0, "already"), ("other", 1, "the cluster memory")):
        config = tmp_path / f"{cluster}.toml"
        config.write_text(f'cluster = "{cluster}"\nkey_file = "k"\nmasters = ["127.0.0.1:1"]\n')
        ended = CliRunner().invoke(mount, [str(place), "--config", str(config)])
        assert (ended.exit_code, words in ended.output) == (code, True), ended.output


def test_mount_in_the_background_fails_in_one_line(tmp_path: Path) -> None:
    """Through the fork: the child's error reaches the user, and its exit code the caller."""
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef")
    config = tmp_path / "client.toml"
    config.write_text('cluster = "c"\nkey_file = "key"\nmasters = ["127.0.0.1:1"]\n')
    (tmp_path / "file").touch()
    command = "from fuse.command import mount; mount()"
    arguments = ["--config", str(config), "--log-file", str(tmp_path / "log")]
    ended = subprocess.run(
        [sys.executable, "-c", command, str(tmp_path / "file"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [f"dfs: {tmp_path}/file: Not a directory"]
    assert logging.getLogger("fuse").level == logging.NOTSET
