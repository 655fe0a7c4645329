"""Real masters that are gone for ever: the cluster goes on from one of them, or from a dump."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.local.driver import Local

pytestmark = [pytest.mark.mount, pytest.mark.timeout(300)]

MASTERS = (1, 2, 3)


def ok(local: Local, *arguments: object) -> str:
    done = local.dfs(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def client(local: Local) -> tuple[str, Path]:
    return "--config", local.root / "client.toml"


def kill_masters(local: Local) -> None:
    for n in MASTERS:
        pid = local.pids().get(("master", n))
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
    local.until(lambda: not any(role == "master" for role, _ in local.pids()))


def wipe(local: Local, *numbers: int) -> None:
    for n in numbers:
        shutil.rmtree(local.root / f"master-{n}")
        (local.root / f"master-{n}").mkdir(mode=0o700)


def go_on(local: Local, *new_masters: int) -> Any:
    """Start everything, end the recovery once all servers have reported, and grow the group."""
    local.ok("up")
    status: list[Any] = []

    def reported() -> bool:
        done = local.dfs("meta", "recovered", "--show", "--json", *client(local))
        status[:] = [json.loads(done.stdout)] if done.returncode == 0 else []
        return bool(status) and all(row[1] for row in status[0]["servers"])

    local.until(reported)
    ok(local, "meta", "recovered", "--yes", *client(local))
    addresses = {
        p["id"]: p["address"] for p in local.status()["processes"] if p["role"] == "master"
    }
    for n in new_masters:
        ok(local, "master", "add", n, addresses[n], *client(local))
    return status[0]


def test_files_outlive_two_of_three_masters_and_then_all_of_them(
    local: Local, tmp_path: Path
) -> None:
    local.ok("up", "--mount", local.mount)
    data = os.urandom(3 << 20)
    (local.mount / "file").write_bytes(data)
    (local.mount / "directory").mkdir()
    os.sync()

    kill_masters(local)
    wipe(local, 2, 3)
    ok(local, "master", "recover", "--config", local.root / "master-1.toml", "--yes")
    status = go_on(local, 2, 3)
    assert status["under_way"]
    assert status["missing_chunks"] == 0
    assert (local.mount / "file").read_bytes() == data
    (local.mount / "second").write_bytes(data[::-1])
    os.sync()
    members = json.loads(ok(local, "master", "list", "--json", *client(local)))
    assert sorted(member["id"] for member in members) == [1, 2, 3]

    dump = tmp_path / "dump"
    ok(local, "meta", "dump", dump, *client(local))
    (local.mount / "made later").write_bytes(data)
    kill_masters(local)
    wipe(local, *MASTERS)
    config = local.root / "master-2.toml"
    ok(local, "meta", "load", dump, "--config", config, "--yes")
    status = go_on(local, 1, 3)
    assert sum(row[3] for row in status["servers"]) == 3  # of the file that was made later
    assert sorted(os.listdir(local.mount)) == ["directory", "file", "second"]
    assert (local.mount / "second").read_bytes() == data[::-1]
    with (local.mount / "file").open("r+b") as file:
        file.seek(len(data))
        file.write(data)
    assert (local.mount / "file").read_bytes() == data + data
    local.until(lambda: len(digests(local)) == 1)


def digests(local: Local) -> set[str]:
    told = json.loads(ok(local, "status", "--digest", "--json", *client(local)))
    return {master["status"]["state_digest"] for master in told["masters"]}
