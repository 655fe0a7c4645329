"""`dfs put`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.cli.conftest import Dfs

pytestmark = pytest.mark.mount


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a bit of everything."""
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "data").write_bytes(os.urandom(3_000_000))
    (top / "empty").touch(0o640)
    os.symlink("sub/data", top / "link")
    os.mkfifo(top / "fifo")
    os.utime(top / "empty", ns=(1_000_000_007, 2_000_000_011))
    os.utime(top / "sub", ns=(3, 4))
    return top


def test_a_file_arrives_whole_and_leaves_nothing_else(dfs: Dfs, tree: Path) -> None:
    dfs.ok("put", tree / "sub" / "data", ":/data")
    assert dfs("cat", ":/data") == 0
    assert dfs.out == (tree / "sub" / "data").read_bytes()
    assert dfs.ok("ls", "-a", ":") == ["data"]


def test_into_a_directory_it_keeps_its_name(dfs: Dfs, tree: Path) -> None:
    dfs.ok("put", tree / "empty", tree / "sub" / "data", ":")
    assert dfs.ok("ls", ":") == ["data", "empty"]


def test_standard_input_becomes_a_file(dfs: Dfs) -> None:
    command = [sys.executable, "-m", "dfs.cli.main", "put", "-", dfs.path(":/piped")]
    subprocess.run(command, input=b"from a pipe\n", check=True)
    assert dfs.ok("cat", ":/piped") == ["from a pipe"]


def test_what_is_typed_into_a_slow_pipe_arrives(dfs: Dfs) -> None:
    command = [sys.executable, "-m", "dfs.cli.main", "put", "-", dfs.path(":/piped")]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for number in range(3):
            process.stdin.write(b"%d\n" % number)
            process.stdin.flush()
            # Something else in between: the session is kept while nothing comes.
            dfs.ok("ls", ":")
        process.stdin.close()
        assert process.wait() == 0
    assert dfs.ok("cat", ":/piped") == ["0", "1", "2"]


def test_ctrl_c_while_waiting_for_input_ends_in_one_line(dfs: Dfs) -> None:
    command = [sys.executable, "-m", "dfs.cli.main", "put", "-", dfs.path(":/piped")]
    pipe = subprocess.PIPE
    # In the background of a shell without job control, as in CI, SIGINT is inherited as ignored.
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, preexec_fn=heed) as process:
        while not dfs.ok("ls", "-a", ":"):
            continue  # until its temporary file is there
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == b"dfs: interrupted\n"
        assert process.wait() == 130
    assert dfs.ok("ls", "-a", ":") == []


def test_a_tree_keeps_its_shape(dfs: Dfs, tree: Path) -> None:
    dfs.ok("put", "-r", tree, ":/copy")
    kinds = {entry["path"]: entry["type"] for entry in dfs.json("find", ":/copy")}
    here = dfs.path(":/copy")
    assert kinds == {
        here: "directory",
        f"{here}/empty": "file",
        f"{here}/fifo": "fifo",
        f"{here}/link": "symlink",
        f"{here}/sub": "directory",
        f"{here}/sub/data": "file",
    }
    assert dfs.json("stat", ":/copy/link")[0]["target"] == "sub/data"


def test_permissions_and_times_are_kept_when_asked(dfs: Dfs, tree: Path) -> None:
    dfs.ok("put", "-r", "-p", tree, ":/copy")
    empty, sub = dfs.json("stat", ":/copy/empty", ":/copy/sub")
    assert (empty["mode"], empty["atime_ns"], empty["mtime_ns"]) == (
        "0640",
        1_000_000_007,
        2_000_000_011,
    )
    assert sub["mtime_ns"] == 4


def test_replacing_a_file_keeps_its_permissions(dfs: Dfs, tree: Path) -> None:
    dfs.ok("put", "-p", tree / "empty", ":/file")
    dfs.write(":/file", b"new")
    assert dfs.json("stat", ":/file")[0]["mode"] == "0640"
    assert dfs.ok("cat", ":/file") == ["new"]


def test_the_umask_is_respected(dfs: Dfs) -> None:
    before = os.umask(0o077)
    try:
        dfs.write(":/private")
    finally:
        os.umask(before)
    assert dfs.json("stat", ":/private")[0]["mode"] == "0600"


def test_what_cannot_be_read_is_told_and_the_rest_copied(dfs: Dfs, tree: Path) -> None:
    assert dfs("put", tree / "none", tree / "empty", ":") == 4
    assert dfs.err == f"dfs: {tree}/none: No such file or directory\n"
    assert dfs.ok("ls", ":") == ["empty"]


def test_a_directory_needs_recursion(dfs: Dfs, tree: Path) -> None:
    assert dfs("put", tree, ":") == 1
    assert "-r copies it" in dfs.err


def test_a_missing_target_directory_is_told(dfs: Dfs, tree: Path) -> None:
    assert dfs("put", tree / "empty", ":/none/file") == 1
    assert dfs.err == f"dfs: {dfs.path(':/none/file')}: No such file or directory\n"


def test_standard_input_stands_alone(dfs: Dfs) -> None:
    assert dfs("put", "-", "file", ":") == 2
