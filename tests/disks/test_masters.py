"""Masters whose disk fails or whose state is cut short: they refuse, and the others go on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfs.local import processes
from dfs.local.layout import MASTER, Member
from tests.crash.cluster import until
from tests.disks.rig import Rig
from tests.marks import always

pytestmark = [pytest.mark.mount, pytest.mark.timeout(300)]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    made.up()
    yield made
    made.cluster.end()


def has_ended(rig: Rig, member: Member) -> bool:
    return processes.running(rig.cluster.root, member) is None


@pytest.mark.parametrize("call", always(("sync", "write"), "sync"))
def test_a_leader_whose_disk_fails_ends_and_the_others_go_on(rig: Rig, call: str) -> None:
    rig.write(b"before")
    leader = rig.cluster.leader()
    assert leader is not None
    rig.fail_disks([leader], call, errno.EIO)
    for number in range(20):
        rig.write(b"during", f"file-{number}")
    until(lambda: has_ended(rig, leader), "the master with the bad disk ends")
    assert "the disk refused the Raft log" in rig.log(leader)
    rig.mend()
    rig.up()
    assert rig.read("file-19") == b"during"
    assert rig.cluster.masters_differ() == ""


@pytest.mark.parametrize("part", always(("0.5", "0.02"), "0.5"))
def test_a_master_with_a_state_cut_short_refuses_in_one_line(rig: Rig, part: str) -> None:
    for number in range(100):
        rig.write(b"data", f"file-{number}")
    member = Member(MASTER, 2)
    rig.cluster.signal(member, signal.SIGKILL)
    file = rig.master_file(member.id)
    os.truncate(file, int(file.stat().st_size * float(part)) // 4096 * 4096)
    command = [sys.executable, "-m", "dfs.cli.main", "master", "run"]
    command += ["--config", rig.cluster.root.config(member)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(said) == 1, done.stderr
    assert str(file) in said[0]
    rig.write(b"the others serve", "after")
    assert rig.read("after") == b"the others serve"
