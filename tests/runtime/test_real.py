"""What only the real world has: descriptors, permissions, threads, LMDB's file."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import random
import resource
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio

from dfs.errors import Code, Failure
from dfs.runtime import WriteBatch
from dfs.runtime.current import current_env
from dfs.runtime.real import RealDisk, RealEnv, activate
from dfs.runtime.real.key_value import RealKeyValue
from tests.conftest import ExpectedLogs
from tests.house import ROOT


@pytest.fixture
def env() -> RealEnv:
    return RealEnv("real")


@pytest.fixture
def store(env: RealEnv, tmp_path: Path) -> RealKeyValue:
    return env.disk.open_key_value(f"{tmp_path}/store", ["table"], 1 << 30)


def filled(keys: int, value: bytes = b"v" * 500) -> WriteBatch:
    batch = WriteBatch()
    for i in range(keys):
        batch.put("table", b"%d" % i, value)
    return batch


def descriptors() -> list[tuple[int, str]]:
    """This process's open descriptors and what they are open on."""
    links = {int(fd): f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")}
    return [(fd, os.readlink(link)) for fd, link in links.items() if os.path.islink(link)]


def test_files_are_private_and_not_inherited(env: RealEnv, tmp_path: Path) -> None:
    env.disk.make_directory(f"{tmp_path}/a/b")
    file = env.disk.open(f"{tmp_path}/a/b/file", write=True, create=True)
    env.disk.write_file(f"{tmp_path}/a/whole", b"secret")
    store = env.disk.open_key_value(f"{tmp_path}/a/store", ["table"], 1 << 20)
    env.disk.lock(f"{tmp_path}/a/lock")
    for path in ("a/b/file", "a/whole", "a/store", "a/store-lock", "a/lock"):
        assert stat.S_IMODE(os.stat(tmp_path / path).st_mode) == 0o600, path
    for path in ("a", "a/b"):
        assert stat.S_IMODE(os.stat(tmp_path / path).st_mode) == 0o700, path
    # But for LMDB's data file, whose descriptor is LMDB's own.
    here = [(fd, t) for fd, t in descriptors() if t.startswith(str(tmp_path))]
    ours = [fd for fd, target in here if not target.endswith("store")]
    assert len(ours) >= 2
    assert [fd for fd in ours if os.get_inheritable(fd)] == []
    store.close()
    file.close()


def test_a_lock_is_given_up_with_the_process(tmp_path: Path) -> None:
    first, second = RealDisk(), RealDisk()
    first.lock(f"{tmp_path}/lock")
    with pytest.raises(BlockingIOError):
        second.lock(f"{tmp_path}/lock")
    first.unlock_all()
    second.lock(f"{tmp_path}/lock")


def test_cached_reads_are_served_or_declined_on_any_file_system(tmp_path: Path) -> None:
    for directory in (str(tmp_path), "/dev/shm"):
        path = f"{directory}/dfs-test-cached"
        file = RealDisk().open(path, write=True, create=True)
        file.pwrite([b"cached"], 0)
        data = bytearray(6)
        assert file.pread_cached(memoryview(data), 0) in (6, None)
        file.close()
        os.unlink(path)


def test_a_write_cut_short_by_the_system_is_no_success(env: RealEnv, tmp_path: Path) -> None:
    file = env.disk.open(f"{tmp_path}/file", write=True, create=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r".") as caught:
            file.pwrite([b"a" * 100_000, b"b" * 100_000], 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    file.pwrite([b"a" * 100_000, b"b" * 100_000], 0)
    assert env.disk.read_file(f"{tmp_path}/file") == b"a" * 100_000 + b"b" * 100_000


def test_a_punched_hole_gives_its_blocks_back(env: RealEnv, tmp_path: Path) -> None:
    file = env.disk.open(f"{tmp_path}/file", write=True, create=True)
    file.pwrite([os.urandom(1 << 20)], 0)
    file.datasync()
    before = os.stat(f"{tmp_path}/file").st_blocks
    file.punch(0, 1 << 19)
    assert os.stat(f"{tmp_path}/file").st_blocks < before
    assert file.size() == 1 << 20


# -- network


def test_ipv6_and_names_are_addresses(env: RealEnv) -> None:
    async def main() -> None:
        for address in ("[::1]:0", "localhost:0", "127.0.0.1:0"):
            listener = await env.network.listen(address)
            stream = await env.network.connect(listener.address)
            accepted = await listener.accept()
            assert listener.address.rpartition(":")[0] == accepted.peer.rpartition(":")[0]
            stream.close()
            accepted.close()
            listener.close()

    trio.run(main)


def test_an_unknown_host_is_unreachable(env: RealEnv) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="no-such-host") as caught:
            await env.network.connect("no-such-host.invalid:1")
        assert caught.value.errno == errno.EHOSTUNREACH

    trio.run(main)


def test_sockets_have_no_delay_and_large_buffers(env: RealEnv) -> None:
    limit = int(Path("/proc/sys/net/core/wmem_max").read_text())

    async def main() -> None:
        listener = await env.network.listen("127.0.0.1:0")
        stream = await env.network.connect(listener.address)
        accepted = await listener.accept()
        for end in (stream, accepted):
            sock = end._socket  # type: ignore[attr-defined]
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= min(1 << 20, limit)

    trio.run(main)


def test_accepting_survives_a_lack_of_descriptors(
    env: RealEnv, expected_logs: ExpectedLogs
) -> None:
    expected_logs("cannot accept a connection: Too many open files")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    complaint = threading.Event()

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaint.set()

    async def main() -> None:
        listener = await env.network.listen("127.0.0.1:0")
        stream = await env.network.connect(listener.address)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            async with trio.open_nursery() as nursery:

                async def relieve() -> None:
                    while not complaint.is_set():
                        await trio.lowlevel.checkpoint()
                    resource.setrlimit(resource.RLIMIT_NOFILE, limits)

                nursery.start_soon(relieve)
                accepted = await listener.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        accepted.close()
        stream.close()
        listener.close()

    watch = Watch()
    logging.getLogger("dfs.runtime.real.network").addHandler(watch)
    try:
        trio.run(main)
    finally:
        logging.getLogger("dfs.runtime.real.network").removeHandler(watch)


# -- threads


def test_lanes_are_bounded_and_apart() -> None:
    env = RealEnv("real", lane_limit=2)
    running: dict[str, int] = {"a": 0, "b": 0}
    most: dict[str, int] = {"a": 0, "b": 0}
    guard, both = threading.Lock(), threading.Barrier(4, timeout=20)

    def work(lane: str) -> None:
        with guard:
            running[lane] += 1
            most[lane] = max(most[lane], running[lane])
        both.wait()  # two of each lane at once, or never
        with guard:
            running[lane] -= 1

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for lane in ("a", "a", "a", "a", "b", "b", "b", "b"):
                nursery.start_soon(env.run_blocking, lambda lane=lane: work(lane), lane)

    trio.run(main)
    assert most == {"a": 2, "b": 2}


def test_a_slow_sync_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    env = RealEnv("real", sync_delay_s=0.3)
    store = env.disk.open_key_value(f"{tmp_path}/store", ["table"], 1 << 30)

    async def main() -> None:
        start = env.clock.monotonic()
        pauses = [start]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(env.run_blocking, lambda: store.write(filled(10)))
            while store.get("table", b"7") is None:
                await env.clock.sleep(0.001)
                pauses.append(env.clock.monotonic())
        assert env.clock.monotonic() - start >= 0.3
        gaps = [b - a for a, b in itertools.pairwise(pauses)]
        assert max(gaps) < 0.25

    trio.run(main)


def test_the_loop_beside_runs_while_this_one_is_held_up(env: RealEnv) -> None:
    started, done = threading.Event(), threading.Event()

    async def task() -> None:
        started.set()
        await env.clock.sleep(0.001)
        await env.run_blocking(done.set, "of its own loop")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(env.run_beside, task)
            await trio.to_thread.run_sync(started.wait, 20)
            assert done.wait(20), "holding this loop up held up the other one"

    trio.run(main)


def test_threads_know_the_current_env(env: RealEnv) -> None:
    async def main() -> None:
        activate(env)
        assert await env.run_blocking(lambda: current_env.get().name) == "real"

    trio.run(main)


FATAL = """
import logging, sys
from dfs.runtime.real import RealEnv
logging.basicConfig(stream=sys.stdout)
try:
    RealEnv("node-7").fatal("the disk is gone")
finally:
    print("never printed")
"""


def test_fatal_ends_the_process_with_a_log_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FATAL], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 70
    assert "node-7 ends at once: the disk is gone" in ended.stdout
    assert "never printed" not in ended.stdout


# -- LMDB's file


def damaged(store: RealKeyValue, path: str, size_bytes: int) -> Failure:
    """What opening says when the file was cut to that size."""
    store.close()
    os.truncate(path, size_bytes)
    with pytest.raises(Failure) as caught:
        RealDisk().open_key_value(path, ["table"], 1 << 30)
    return caught.value


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_store_is_refused(store: RealKeyValue, tmp_path: Path, share: float) -> None:
    path = f"{tmp_path}/store"
    store.write(filled(2000))
    failure = damaged(store, path, int(os.path.getsize(path) * share))
    assert failure.code is Code.DISK
    assert path in failure.message
    assert "truncated" in failure.message


def test_a_store_cut_to_its_first_bytes_is_refused(store: RealKeyValue, tmp_path: Path) -> None:
    store.write(filled(10))
    assert "meta pages" in damaged(store, f"{tmp_path}/store", 100).message


def test_a_foreign_file_is_refused(env: RealEnv, tmp_path: Path) -> None:
    env.disk.write_file(f"{tmp_path}/foreign", b"certainly no store" * 1000)
    with pytest.raises(Failure, match="not a store"):
        env.disk.open_key_value(f"{tmp_path}/foreign", ["table"], 1 << 20)


def put_and_delete(store: RealKeyValue, chance: random.Random) -> None:
    """Within one transaction, so that pages at the file's end are never written."""
    table = store._tables["table"]
    keys = [b"x%d" % i for i in range(chance.randrange(800))]
    with store._environment.begin(write=True) as transaction:
        for key in keys:
            transaction.put(key, bytes(chance.randrange(3000)), db=table)
        chance.shuffle(keys)
        for key in keys:
            transaction.delete(key, db=table)


def test_a_store_that_ends_in_free_pages_is_sound(
    env: RealEnv, store: RealKeyValue, tmp_path: Path
) -> None:
    """LMDB leaves the file shorter than its meta page says: that is no damage."""
    store.write(filled(300))
    chance = random.Random(1)
    for _ in range(20):
        put_and_delete(store, chance)
        size = os.path.getsize(f"{tmp_path}/store")
        if size < store.used_bytes():
            break
    assert size < store.used_bytes(), "the premise"
    store.close()
    reopened = env.disk.open_key_value(f"{tmp_path}/store", ["table"], 1 << 30)
    assert len(list(reopened.scan("table"))) == 300


def test_a_store_of_a_killed_process_has_every_finished_write(tmp_path: Path) -> None:
    program = f"""
import os, signal
from dfs.runtime import WriteBatch
from dfs.runtime.real import RealDisk
store = RealDisk().open_key_value({str(tmp_path / "store")!r}, ["table"], 1 << 30)
for i in range(20):
    batch = WriteBatch()
    batch.put("table", b"%d" % i, b"")
    store.write(batch)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    store = RealDisk().open_key_value(f"{tmp_path}/store", ["table"], 1 << 30)
    assert len(list(store.scan("table"))) == 20
