"""Processes are known again by more than their pid, and exactly they are ended."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import trio

from dfs.local import processes
from dfs.local.layout import MASTER, Member, Root
from dfs.local.processes import Process
from dfs.runtime.real import RealEnv

MEMBER = Member(MASTER, 1)
IGNORES_TERM = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); signal.pause()"
)
HEEDS_TERM = "import signal; print('ready', flush=True); signal.pause()"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    os.mkdir(tmp_path / "run")
    os.mkdir(tmp_path / "logs")
    return Root(str(tmp_path))


class Child:
    """A Python process that has come as far as printing a line."""

    def __init__(self, code: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        )
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline() == "ready\n"
        found = processes.find(self.popen.pid)
        assert found is not None
        self.process = found


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[Child]:
    started = Child(request.param)
    yield started
    started.popen.kill()
    started.popen.communicate()


def end(process: Process, patience_s: float) -> bool:
    return trio.run(processes.end, RealEnv("test"), process, patience_s)


def test_this_process_is_found_alive() -> None:
    found = processes.find(os.getpid())
    assert found is not None
    assert found.alive


def test_a_pid_given_to_another_process_is_not_taken_for_the_first(root: Root) -> None:
    found = processes.find(os.getpid())
    assert found is not None
    recycled = dataclasses.replace(found, started_ticks=found.started_ticks - 1)
    rebooted = dataclasses.replace(found, boot="another boot")
    for other in (recycled, rebooted):
        assert not other.alive
        Path(root.pid_file(MEMBER)).write_text(json.dumps(asdict(other)))
        assert processes.running(root, MEMBER) is None
        # It would end the test run if it signalled the pid alone.
        assert end(other, 1.0)


@pytest.mark.parametrize("child", [HEEDS_TERM], indirect=True)
def test_a_process_is_asked_to_end(child: Child) -> None:
    assert end(child.process, 30.0)
    assert child.popen.wait() < 0
    assert not child.process.alive
    assert end(child.process, 1.0)


@pytest.mark.parametrize("child", [IGNORES_TERM], indirect=True)
def test_a_process_that_does_not_listen_is_killed(child: Child) -> None:
    assert not end(child.process, 0.2)
    assert child.popen.wait() == -9


@pytest.mark.parametrize("child", [HEEDS_TERM], indirect=True)
def test_a_zombie_does_not_run(child: Child) -> None:
    child.popen.kill()
    os.waitid(os.P_PID, child.popen.pid, os.WEXITED | os.WNOWAIT)
    assert not child.process.alive


def test_a_started_process_is_remembered_and_logs(root: Root) -> None:
    popen = processes.start(root, MEMBER, ["--version"])
    assert processes.remembered(root, MEMBER) is not None
    assert popen.wait() == 0
    assert processes.running(root, MEMBER) is None
    assert processes.last_lines(root.log(MEMBER), 3)[-1].startswith("dfs ")


def test_a_damaged_pid_file_is_no_process(root: Root) -> None:
    for text in ("", "{}", "[1]", '{"pid": 1}'):
        Path(root.pid_file(MEMBER)).write_text(text)
        assert processes.running(root, MEMBER) is None


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {i}\n" for i in range(10_000)))
    assert processes.last_lines(str(log), 2) == ["line 9998", "line 9999"]
    assert processes.last_lines(str(tmp_path / "none"), 2) == []
