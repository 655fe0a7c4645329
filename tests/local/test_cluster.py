"""`dfs local` on real processes and a real mount: idempotent, and exact about what it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfs.local import mounts, processes
from dfs.local.layout import MASTER, Member, Root
from tests.local.driver import Local
from tests.metrics.scraping import Scrape

pytestmark = pytest.mark.mount


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    made = Local(tmp_path)
    yield made
    made("down", "--force", "--purge", "--yes")
    assert mounts.mounted_at(str(made.mount)) is None


def test_up_brings_back_exactly_what_was_killed(local: Local) -> None:
    local.ok("up", "--mount", local.mount, "--masters", 1, "--chunkservers", 2)
    before = local.pids()
    assert set(before) == {("master", 1), ("chunkserver", 1), ("chunkserver", 2), ("mount", 1)}
    (local.mount / "file").write_text("kept")
    local.ok("up")
    assert local.pids() == before
    for killed in (("chunkserver", 2), ("mount", 1)):
        os.kill(before[killed], signal.SIGKILL)
    local.ok("up")
    after = local.pids()
    assert {name for name in after if after[name] != before[name]} == {
        ("chunkserver", 2),
        ("mount", 1),
    }
    assert (local.mount / "file").read_text() == "kept"


def test_status_says_what_runs_where(local: Local) -> None:
    local.ok("up", "--mount", local.mount, "--masters", 1, "--chunkservers", 1)
    status = local.status()
    assert set(status) == {"processes", "mounts"}
    assert status["mounts"] == [str(local.mount)]
    keys = {"role", "id", "pid", "address", "data_dir", "alive", "leader", "metrics"}
    assert all(set(process) == keys for process in status["processes"])
    master = status["processes"][0]
    assert (master["role"], master["leader"], master["alive"]) == ("master", True, True)
    assert os.path.isdir(master["data_dir"])


def test_down_keeps_the_data_and_up_the_mount(local: Local) -> None:
    local.ok("up", "--mount", local.mount, "--masters", 1, "--chunkservers", 1)
    (local.mount / "file").write_text("kept")
    local.ok("down")
    assert local.pids() == {}
    assert local.status()["mounts"] == []
    assert os.listdir(local.mount) == []
    local.ok("up")
    assert (local.mount / "file").read_text() == "kept"


def test_a_mount_in_use_stays_unless_forced(local: Local) -> None:
    local.ok("up", "--mount", local.mount, "--masters", 1, "--chunkservers", 1)
    user = os.open(local.mount / "busy", os.O_RDWR | os.O_CREAT)
    try:
        refused = local("down")
        assert refused.returncode != 0
        assert "is in use and stays mounted" in refused.stderr
        assert len(local.pids()) == 3
        local.ok("down", "--force")
        assert local.pids() == {}
    finally:
        with contextlib.suppress(OSError):  # what it belonged to is gone
            os.close(user)


def test_a_process_that_cannot_start_is_told_with_its_last_words(local: Local) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = local("up", "--base-port", port, "--masters", 1, "--chunkservers", 1)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dfs: master-1 ended with exit code ")
    assert "Address already in use" in last
    assert f"{local.root}/logs/master-1.log" in last


def test_a_directory_that_holds_something_is_not_mounted_over(local: Local) -> None:
    local.mount.mkdir()
    (local.mount / "file").touch()
    done = local("up", "--mount", local.mount)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert local.pids() == {} if (local.root / "cluster.json").exists() else True


def test_purge_needs_a_yes_and_a_cluster(local: Local, tmp_path: Path) -> None:
    assert local("down", "--purge").returncode == 2
    assert "no cluster in" in local("down", "--purge", "--yes").stderr
    local.root.mkdir()
    (local.root / "precious").touch()
    assert "holds no cluster" in local("down", "--purge", "--yes").stderr
    assert (local.root / "precious").exists()


def test_another_process_with_a_recycled_pid_survives_down(local: Local) -> None:
    local.ok("up", "--masters", 1, "--chunkservers", 1)
    root = Root(str(local.root))
    killed = processes.running(root, Member(MASTER, 1))
    assert killed is not None
    os.kill(killed.pid, signal.SIGKILL)
    # As if the system had given the master's pid to this very process.
    path = Path(root.pid_file(Member(MASTER, 1)))
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": os.getpid()}))
    local.ok("down")


def asked(address: str, path: str) -> tuple[int, str]:
    """What a process's metrics endpoint answers, over real HTTP."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_every_process_tells_its_metrics_and_whether_it_is_ready(local: Local) -> None:
    local.ok("up", "--mount", local.mount, "--masters", 1, "--chunkservers", 1)
    (local.mount / "file").write_bytes(bytes(1 << 20))
    with open(local.mount / "file", "r+b") as file:
        os.fsync(file.fileno())
    processes = {p["role"]: p for p in local.status()["processes"]}
    told = {}
    for role, process in processes.items():
        assert asked(process["metrics"], "/health")[0] == 200
        local.until(lambda at=process["metrics"]: asked(at, "/ready")[0] == 200)  # type: ignore[misc]
        told[role] = Scrape(asked(process["metrics"], "/metrics")[1])
        assert told[role].value("process_resident_memory_bytes") > 1 << 20
    assert told["master"].value("dfs_raft_leased") == 1
    assert told["chunkserver"].value("dfs_chunkserver_written_bytes_total") == 1 << 20
    assert told["mount"].value("dfs_client_written_bytes_total") == 1 << 20
    writes = "dfs_fuse_operation_duration_seconds_count"
    assert told["mount"].value(writes, operation="write") > 0
    os.kill(processes["master"]["pid"], signal.SIGKILL)
    server = processes["chunkserver"]["metrics"]
    local.until(lambda: "not registered" in asked(server, "/ready")[1])
    assert asked(server, "/ready")[0] == 503
    assert asked(server, "/health")[0] == 200
    local.ok("up")
    local.until(lambda: asked(server, "/ready")[0] == 200)


def test_a_metrics_port_in_use_is_one_clear_line(local: Local) -> None:
    local.ok("up", "--masters", 1, "--chunkservers", 1)
    local.ok("down")
    config = local.root / "chunkserver-1.toml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        lines = [line for line in config.read_text().splitlines() if "metrics_listen" not in line]
        config.write_text("\n".join([*lines, f'metrics_listen = "127.0.0.1:{port}"']) + "\n")
        done = local.dfs("chunkserver", "run", "--config", config)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"dfs: metrics_listen: listening on 127.0.0.1:{port}: Address already in use"
    )
