"""`dfs node` and `dfs disk` against a leader that does what it is told, over the real RPC."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from dfs.cli.exits import Exit, exit_for
from dfs.cli.node import must_be_removable
from dfs.cli.overview import Overview
from dfs.config import ENVIRONMENT_VARIABLE
from dfs.errors import Failure
from tests.cli.conftest import Dfs
from tests.cli.plain import but, servers, status

Lead = Callable[..., Dfs]


@contextmanager
def fake_leader(directory: Path, knows: str, per_look: int) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.cli.fake_leader", str(directory), knows, str(per_look)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


@pytest.fixture
def lead(
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Lead]:
    """Starts a leader, and gives what runs command lines against it."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "client.toml"))
    with ExitStack() as stack:

        def start(knows: str = "all", per_look: int = 3) -> Dfs:
            stack.enter_context(fake_leader(tmp_path, knows, per_look))
            return Dfs(capfdbinary, "")

        yield start


# -- listings


def test_servers_are_listed_with_state_and_space(lead: Lead) -> None:
    dfs = lead()
    head, *rows = dfs.ok("node", "list")
    assert head.split() == [
        "id",
        "address",
        "zone",
        "state",
        "chunks",
        "used",
        "free",
        "use",
        "disks",
    ]
    assert rows[0].split() == [
        "1",
        "s1:7002",
        "rack",
        "in",
        "service",
        "8",
        "2.0G",
        "6.0G",
        "25%",
        "2/2",
    ]
    assert "DEAD (1 min 30 s)" in rows[2]
    assert rows[2].split()[-5:] == ["4", "-", "-", "-", "-"]
    assert len(rows) == 4


def test_servers_as_json_keep_what_is_not_known_apart(lead: Lead) -> None:
    first, _, dead, _ = lead().json("node", "list")
    assert (first["id"], first["alive"], first["mode"], first["chunks"]) == (
        1,
        True,
        "in-service",
        8,
    )
    assert first["dead_for_s"] is None
    assert [disk["path"] for disk in first["disks"]] == ["/disk1", "/disk2"]
    assert (dead["alive"], dead["chunks"], dead["dead_for_s"]) == (False, 4, 90.0)


def test_disks_are_listed_of_all_servers_or_of_one(lead: Lead) -> None:
    dfs = lead()
    assert [(d["server"], d["path"]) for d in dfs.json("disk", "list")] == [
        (1, "/disk1"),
        (1, "/disk2"),
        (2, "/disk1"),
        (2, "/disk2"),
    ]
    _head, *rows = dfs.ok("disk", "list", 2)
    assert [row.split()[:4] for row in rows] == [
        ["2", "/disk1", "in", "service"],
        ["2", "/disk2", "in", "service"],
    ]


# -- drain


def test_a_drain_begins_is_seen_and_is_taken_back(lead: Lead) -> None:
    dfs = lead(per_look=1)
    assert dfs("node", "drain", 1) == Exit.OK
    assert dfs.out == b"chunkserver 1 is being drained: 8 chunks to go\n"
    assert "this cannot end before there are more" in dfs.err  # one other server, two copies
    assert dfs.json("node", "list")[0]["mode"] == "draining"
    assert any("chunkserver 1 at s1:7002: draining" in line for line in dfs.ok("status"))
    assert dfs.ok("node", "back", 1) == ["chunkserver 1 is in service"]
    assert dfs.json("node", "list")[0]["mode"] == "in-service"


def test_waiting_for_a_drain_ends_when_the_server_is_empty(lead: Lead) -> None:
    dfs = lead(per_look=3)
    assert dfs("node", "drain", 1, "--wait") == Exit.OK
    assert dfs.out == b"chunkserver 1 is empty\n"
    steps = [line for line in dfs.err.splitlines() if line.startswith("chunkserver 1: ")]
    assert [step.split()[2] for step in steps] == ["5", "2", "0"]
    assert steps[0].endswith("time left unknown")
    assert "chunks/s, about" in steps[1]
    server = dfs.json("node", "list")[0]
    assert (server["mode"], server["chunks"]) == ("draining", 0)
    assert any("drained and empty: stop it, `dfs node remove 1`" in li for li in dfs.ok("status"))


def test_a_disk_is_drained_and_taken_back(lead: Lead) -> None:
    dfs = lead(per_look=3)
    assert dfs("disk", "drain", 2, "/disk1/", "--wait") == Exit.OK
    assert dfs.out == b"disk /disk1 of chunkserver 2 is empty\n"
    states = {d["path"]: (d["mode"], d["chunks"]) for d in dfs.json("disk", "list", 2)}
    assert states == {"/disk1": ("draining", 0), "/disk2": ("in-service", 0)}
    assert dfs.ok("disk", "back", 2, "/disk1") == ["disk /disk1 of chunkserver 2 is in service"]


def test_waiting_ends_when_somebody_takes_the_drain_back(lead: Lead) -> None:
    dfs = lead(per_look=0)
    with waiting_drain() as process:
        dfs.ok("node", "back", 1)
        _, told = process.communicate()
    assert process.returncode == Exit.FAILURE
    assert told.splitlines()[-1].endswith("not being drained any more: somebody took that back")


def test_ctrl_c_ends_the_waiting_and_not_the_drain(lead: Lead) -> None:
    dfs = lead(per_look=0)
    with waiting_drain() as process:
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert process.returncode == Exit.INTERRUPTED
    assert told.splitlines() == [
        "chunkserver 1: the drain goes on; `dfs node drain 1 --wait` waits again, "
        "`dfs node back 1` takes it back",
        "dfs: interrupted",
    ]
    assert dfs.json("node", "list")[0]["mode"] == "draining"


@contextmanager
def waiting_drain() -> Iterator[subprocess.Popen[str]]:
    """A `dfs node drain 1 --wait` that has seen that it cannot go on."""
    command = [sys.executable, "-m", "dfs.cli.main", "node", "drain", "1", "--wait"]
    # In the background of a shell without job control, as in CI, SIGINT is inherited as ignored.
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    ) as process:
        assert process.stderr is not None
        try:
            while "repair cannot go on: no server has room" not in process.stderr.readline():
                assert process.poll() is None
            yield process
        finally:
            process.kill()


# -- maintenance and removal


@pytest.mark.parametrize(
    ("arguments", "left_s", "told"),
    [
        ((), 3600.0, "for 1 h"),
        (("--for", "90"), 90.0, "for 1 min 30 s"),
        (("--for", "1.5h"), 5400.0, "for 1 h 30 min"),
        (("--for", "0"), 0.0, "until it is taken back"),
    ],
)
def test_maintenance_has_an_end(
    lead: Lead, arguments: tuple[str, ...], left_s: float, told: str
) -> None:
    dfs = lead()
    assert dfs("node", "maintenance", 2, *arguments) == Exit.OK
    line = f"chunkserver 2 is in maintenance {told}; `dfs node back 2` ends it\n"
    assert dfs.out.decode() == line
    assert "wait until `dfs status` says SAFE" in dfs.err  # 4 chunks lack a copy already
    server = dfs.json("node", "list")[1]
    assert (server["mode"], server["maintenance_left_s"]) == ("maintenance", left_s)


def test_a_time_that_is_none_is_a_usage_error(lead: Lead) -> None:
    dfs = lead()
    assert dfs("node", "maintenance", 2, "--for", "soon") == Exit.USAGE
    assert "'soon' is not a time such as 90s, 30m, 2h or 1d" in dfs.err


def test_an_empty_dead_server_is_removed(lead: Lead) -> None:
    dfs = lead()
    assert dfs.ok("node", "remove", 4, "--yes") == ["chunkserver 4 is struck from the registry"]
    assert [server["id"] for server in dfs.json("node", "list")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("node", "remove", 1, "-y"), "chunkserver 1 at s1:7002 is alive: drain and stop it first"),
        (("node", "remove", 3, "-y"), "chunkserver 3 at s3:7002 still holds 4 chunks"),
        (("node", "remove", 9, "-y"), "no chunkserver has the id 9; there are: 1, 2, 3, 4"),
        (("node", "drain", 9), "no chunkserver has the id 9"),
        (("node", "maintenance", 9), "no chunkserver has the id 9"),
        (("node", "back", 9), "no chunkserver has the id 9"),
        (("disk", "list", 9), "no chunkserver has the id 9"),
        (("disk", "drain", 1, "/x"), "chunkserver 1 at s1:7002 has no disk /x; it has: /disk1, "),
        (("disk", "drain", 3, "/disk1"), "chunkserver 3 at s3:7002 is dead: which disks it has"),
        (("node", "remove", 4), "this strikes a chunkserver from the registry: add --yes"),
        (("node", "drain", 0), "Invalid value for 'ID'"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_nothing_is_done(
    lead: Lead, arguments: tuple[object, ...], line: str
) -> None:
    dfs = lead()
    before = dfs.json("node", "list")
    assert dfs(*arguments) == Exit.USAGE
    (said,) = dfs.err.splitlines()
    assert said.startswith(f"dfs: {line}")
    assert dfs.json("node", "list") == before


def test_a_server_that_a_new_leader_awaits_is_not_removed() -> None:
    awaited = but(
        status(servers=servers(alive=False, disks=()), gathering=True), under_replicated=8
    )
    view = Overview(awaited, None)
    with pytest.raises(Failure, match="the leader is new and waits for chunkserver 1") as caught:
        must_be_removable(view, view.servers[0])
    assert exit_for(caught.value) is Exit.UNREACHABLE


@pytest.mark.parametrize(("answer", "code"), [("y", Exit.OK), ("n", Exit.INTERRUPTED)])
def test_removing_asks_on_a_terminal(lead: Lead, answer: str, code: Exit) -> None:
    dfs = lead()
    mine, theirs = pty.openpty()
    os.write(mine, f"{answer}\n".encode())
    command = [sys.executable, "-m", "dfs.cli.main", "node", "remove", "4"]
    done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, check=False)
    os.close(mine)
    os.close(theirs)
    assert done.returncode == code
    assert "Strike chunkserver 4 at s4:7002 from the registry? [y/N]" in done.stderr
    assert len(dfs.json("node", "list")) == (3 if answer == "y" else 4)


# -- an older leader


def test_an_old_leader_lists_and_tells_what_it_cannot_do(lead: Lead) -> None:
    dfs = lead("old")
    dead = dfs.json("node", "list")[2]
    assert (dead["alive"], dead["chunks"], dead["dead_for_s"]) == (False, None, None)
    assert "?" in dfs.ok("node", "list")[3].split()
    assert dfs("node", "drain", 1) == Exit.FAILURE
    assert dfs.err.splitlines()[-1] == (
        "dfs: the leader cannot do that, it may be of an older version: "
        "fake does not take SetServerMode"
    )


def test_an_old_leader_gives_a_status_without_repair(lead: Lead) -> None:
    dfs = lead("old")
    status = dfs.json("status")
    assert (status["state"], status["repair"]) == ("degraded", None)
    assert [note["code"] for note in status["notes"]] == ["REPAIR_UNKNOWN"]
    text = dfs.ok("status")
    assert "  - the leader does not tell about repair: it is of an older version" in text
    assert not any(line.startswith("repair:") for line in text)


# -- status


def test_status_tells_programs_the_same(lead: Lead) -> None:
    dfs = lead()
    assert dfs("status", "--check", "--json") == Exit.FAILURE
    status = json.loads(dfs.out)
    assert status["state"] == "degraded"
    codes = [problem["code"] for problem in status["problems"]]
    assert codes == ["LACKS_COPIES", "SERVER_DEAD"]
    assert [note["code"] for note in status["notes"]] == ["EMPTY_SERVER_DEAD"]
    assert status["repair"]["cap_bytes_per_s"] == 2 << 30
    assert len(status["chunkservers"]) == 4
    assert dfs("status") == Exit.OK
