"""What is durable when, and which errors reach a program: the real client behind a real mount."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from fuse.command import mount, sync, umount
from tests.fuse.processes import MountProcess, mount_process
from tests.fuse.test_mounted_files import opened, refused

pytestmark = pytest.mark.mount

MODULE = "tests.fuse.cluster_mount"
NEW = os.O_CREAT | os.O_RDWR
DISK_ERRORS = [errno.ENOSPC, errno.EIO]
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountProcess]:
    base = tmp_path_factory.mktemp("sync")
    with mount_process(base / "mounted", base / "log", MODULE) as running:
        yield running


@pytest.fixture
def path(process: MountProcess, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A name of the test's own on a mount whose disks are whole, before and after."""
    yield process.mountpoint / request.node.name.translate({ord(c): "-" for c in "[]"})
    heal(process)


def break_disks(process: MountProcess, number: int, *kinds: str) -> None:
    refused_kinds = kinds or ("WriteChunk", "SyncChunk")
    process.order({"refuse": refused_kinds, "errno": number})


def heal(process: MountProcess) -> None:
    process.order({"refuse": [], "errno": 0})


def newest_synced(process: MountProcess) -> int:
    """How much of the newest chunk is durable everywhere."""
    return int(process.order("synced")[-1])


@contextmanager
def ending(descriptor: int, number: int) -> Iterator[None]:
    """Close the descriptor at the end; that must fail."""
    yield
    with refused(number):
        os.close(descriptor)


# -- errors


@pytest.mark.parametrize("number", DISK_ERRORS)
@pytest.mark.parametrize("flags", [NEW, os.O_CREAT | os.O_WRONLY])
def test_fsync_fails_once_and_then_the_file_can_be_used(
    process: MountProcess, path: Path, flags: int, number: int
) -> None:
    with opened(path, flags) as file:
        os.write(file, b"lost")
        break_disks(process, number)
        with refused(number):
            os.fsync(file)
        heal(process)
        os.pwrite(file, b"data", 0)
        os.fdatasync(file)
    assert path.read_bytes() == b"data"


@pytest.mark.parametrize("number", DISK_ERRORS)
def test_an_fsync_whose_sync_alone_fails(process: MountProcess, path: Path, number: int) -> None:
    """All data is on its replicas, but not durable."""
    path.write_bytes(b"data")
    with opened(path, os.O_RDONLY) as file:
        break_disks(process, number, "SyncChunk")
        with refused(number):
            os.fsync(file)
        heal(process)
        os.fsync(file)
    assert newest_synced(process) == 4


@pytest.mark.parametrize("number", DISK_ERRORS)
def test_close_fails(process: MountProcess, path: Path, number: int) -> None:
    file = os.open(path, NEW)
    with ending(file, number):
        os.write(file, b"lost")
        break_disks(process, number)


@pytest.mark.parametrize("number", DISK_ERRORS)
@pytest.mark.parametrize("how", [os.O_SYNC, os.O_DSYNC, os.O_DSYNC | os.O_DIRECT])
@pytest.mark.parametrize("access", [os.O_RDWR, os.O_WRONLY])
def test_a_synchronous_write_fails_by_itself(
    process: MountProcess, path: Path, access: int, how: int, number: int
) -> None:
    with opened(path, os.O_CREAT | access | how) as file:
        block = mmap.mmap(-1, 4096)  # aligned, as O_DIRECT likes it
        break_disks(process, number)
        with refused(number):
            os.write(file, block)
        heal(process)
        assert os.pwrite(file, block, 0) == 4096
        assert newest_synced(process) == 4096


@pytest.mark.parametrize("number", DISK_ERRORS)
def test_a_delayed_error_reaches_the_next_write_and_still_fsync_and_close(
    process: MountProcess, path: Path, number: int
) -> None:
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    with ending(file, number):
        os.write(file, b"lost")
        break_disks(process, number)
        assert failing_write(file) == number
        heal(process)
        os.write(file, b"kept")
        with refused(number):
            os.close(os.dup(file))
        with refused(number):
            os.fsync(file)
        os.fsync(file)
        break_disks(process, number)
        os.write(file, b"lost")


def failing_write(file: int) -> int:
    """Write until an earlier write's failure is told; its errno."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            os.pwrite(file, b"lost", 0)
        except OSError as error:
            return error.errno or 0
    return 0


def test_an_error_told_to_a_child_that_ends_is_still_told_to_its_parent(
    process: MountProcess, path: Path
) -> None:
    """The kernel flushes whenever somebody closes a duplicate of the descriptor, or just ends."""
    with opened(path, NEW) as file:
        os.write(file, b"lost")
        break_disks(process, errno.ENOSPC)
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        heal(process)
        with refused(errno.ENOSPC):
            os.fsync(file)


def test_an_error_nobody_saw_is_left_to_the_next_program_that_syncs(
    process: MountProcess, path: Path
) -> None:
    child = os.fork()
    if child == 0:
        file = os.open(path, NEW)
        os.write(file, b"lost")
        break_disks(process, errno.EIO)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    heal(process)
    with opened(path, os.O_RDWR) as file:
        with refused(errno.EIO):
            os.fsync(file)
        os.fsync(file)


@pytest.mark.parametrize("number", DISK_ERRORS)
def test_what_a_mapping_could_not_write_fails_in_msync(
    process: MountProcess, path: Path, number: int
) -> None:
    with opened(path, NEW) as file:
        os.ftruncate(file, 8192)
        with mmap.mmap(file, 8192) as mapped:
            mapped[:4] = b"lost"
            break_disks(process, number)
            with refused(number):
                mapped.flush()
            heal(process)
            mapped[:4] = b"kept"
            mapped.flush()
            assert newest_synced(process) == 4096
    assert path.read_bytes()[:4] == b"kept"


# -- what is durable


def test_fsync_of_a_directory_succeeds(process: MountProcess, path: Path) -> None:
    path.mkdir()
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as directory:
        os.fsync(directory)


def test_sync_by_command_covers_files_open_closed_and_mapped(
    process: MountProcess, path: Path
) -> None:
    path.write_bytes(b"closed")
    with opened(path.with_suffix(".open"), NEW) as file:
        os.write(file, b"still open")
        mapping = path.with_suffix(".mapped")
        mapping.touch()
        os.truncate(mapping, 3 << 20)
        with opened(mapping, os.O_RDWR) as other, mmap.mmap(other, 3 << 20) as mapped:
            mapped[:] = b"x" * (3 << 20)
            ended = CliRunner().invoke(sync, [str(process.mountpoint)])
            assert (ended.exit_code, ended.output) == (0, "")
            written = process.order("written")
            assert process.order("synced") == written
            assert {6, 10, 3 << 20} <= set(written)


def test_sync_by_command_tells_what_failed(process: MountProcess, path: Path) -> None:
    path.write_bytes(b"data")
    break_disks(process, errno.EIO)
    ended = CliRunner().invoke(sync, [str(process.mountpoint)])
    assert ended.exit_code == 1
    assert "not everything is durable: Input/output error" in ended.output
    heal(process)
    assert CliRunner().invoke(sync, [str(process.mountpoint)]).exit_code == 0


def test_sync_of_what_is_no_mount_is_one_clear_line(tmp_path: Path) -> None:
    ended = CliRunner().invoke(sync, [str(tmp_path)])
    assert ended.exit_code == 1
    assert "no dfs is mounted here" in ended.output


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND])
def test_on_a_synchronous_mount_a_write_is_durable_when_it_returns(
    tmp_path: Path, flags: int
) -> None:
    with mount_process(tmp_path / "mounted", tmp_path / "log", MODULE, ["--sync"]) as running:
        with opened(tmp_path / "mounted" / "f", flags | os.O_CREAT) as file:
            for n in (1, 2, 3):
                os.write(file, b"data")
                assert newest_synced(running) == 4 * n
            break_disks(running, errno.ENOSPC)
            with refused(errno.ENOSPC):
                os.write(file, b"lost")
            heal(running)
        config = tmp_path / "client.toml"
        config.write_text('cluster = "test"\nkey_file = "k"\nmasters = ["127.0.0.1:1"]\n')
        arguments = [str(tmp_path / "mounted"), "--config", str(config)]
        ended = CliRunner().invoke(mount, arguments)
        assert (ended.exit_code, "with --sync" in ended.output) == (1, True)
        ended = CliRunner().invoke(mount, [*arguments, "--sync"])
        assert (ended.exit_code, "mounted at" in ended.output) == (0, True)


@pytest.mark.parametrize("how", ["umount", "SIGTERM", "SIGTERM in use"])
def test_all_is_durable_once_the_mount_has_ended(tmp_path: Path, how: str) -> None:
    with mount_process(tmp_path / "mounted", tmp_path / "log", MODULE) as running:
        (tmp_path / "mounted" / "closed").write_bytes(b"closed")
        file = os.open(tmp_path / "mounted" / "open", NEW)
        os.ftruncate(file, 4 << 20)
        with mmap.mmap(file, 4 << 20) as mapped:
            mapped[:] = b"x" * (4 << 20)
            if how == "SIGTERM in use":
                running.signal(signal.SIGTERM)
                code, said = running.wait_end()
        close_anyhow(file)
        if how == "umount":
            ended = CliRunner().invoke(umount, [str(tmp_path / "mounted")])
            assert (ended.exit_code, ended.output) == (0, "")
            code, said = running.wait_end()
        elif how == "SIGTERM":
            running.signal(signal.SIGTERM)
            code, said = running.wait_end()
        assert (code, said) == (0, "[6, 4194304]")


def close_anyhow(file: int) -> None:
    """The mount may be gone, which close(2) tells."""
    with suppress(OSError):
        os.close(file)


def test_umount_tells_what_could_not_be_made_durable(tmp_path: Path) -> None:
    with mount_process(tmp_path / "mounted", tmp_path / "log", MODULE) as running:
        (tmp_path / "mounted" / "f").write_bytes(b"data")
        break_disks(running, errno.EIO)
        ended = CliRunner().invoke(umount, [str(tmp_path / "mounted")])
        assert ended.exit_code == 1
        assert "unmounted, but not everything is durable" in ended.output
    assert "not everything written is durable" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("access", "durable"), [(os.O_RDWR, 4), (os.O_WRONLY, 0)])
def test_a_flag_that_asks_for_one_write_to_be_synced_is_lost_on_a_handle_only_for_writing(
    process: MountProcess, path: Path, access: int, durable: int
) -> None:
    """RWF_DSYNC of pwritev2: the kernel tells of it, pyfuse3 does not pass it on."""
    with opened(path, os.O_CREAT | access) as file:
        os.write(file, b"made")
        os.close(os.dup(file))
        os.pwritev(file, [b"data"], 0, os.RWF_DSYNC)
        assert newest_synced(process) == durable
