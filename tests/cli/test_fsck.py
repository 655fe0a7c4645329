"""`dfs fsck` as a person and a program see it: what is shown, asked, and answered as exit code."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
import trio

from chunkserver.format import DATA_OFFSET
from dfs.cli import fsck
from dfs.cli.checks import Checked
from dfs.cli.exits import Exit
from dfs.config import Raft
from dfs.layout import BLOCK_BYTES, ROOT_INODE
from dfs.messages.checking import CheckProgress, Finding, Severity
from dfs.runtime.real import RealEnv
from master import tables as names
from master.state.records import Inode, encode_blob, key
from master.store import Store
from tests.cli.conftest import Dfs, local

FIELDS = {
    "number",
    "kind",
    "severity",
    "text",
    "path",
    "inode",
    "offset",
    "length_bytes",
    "handle",
    "server",
    "mend",
    "saved",
}
DOCUMENT = {
    "cluster",
    "state",
    "exit_code",
    "complete",
    "problem",
    "inodes",
    "chunks",
    "replicas",
    "findings",
    "mended",
    "not_mended",
}
DATA = bytes(range(256)) * 1024  # four blocks


def checked(*severities: Severity, problem: str = "") -> Checked:
    findings = [
        Finding(n, "a-kind", int(s), "it is so", b"/dir/na\x1bme", offset=4, length_bytes=6)
        for n, s in enumerate(severities, 1)
    ]
    progress = CheckProgress("finished", 0, 0, (), True, problem, 1, 2, 3)
    return Checked(1, progress, findings)


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (checked(), Exit.OK),
        (checked(Severity.NOTE), Exit.OK),
        (checked(Severity.UNCHECKED, Severity.NOTE), Exit.PARTIAL),
        (checked(Severity.REDUNDANCY, Severity.UNCHECKED), Exit.DEGRADED),
        (checked(Severity.METADATA, Severity.REDUNDANCY), Exit.INCONSISTENT),
        (checked(Severity.DATA, Severity.METADATA), Exit.UNREADABLE),
        (checked(problem="the leader went"), Exit.FAILURE),
        (checked(Severity.NOTE, problem="the leader went"), Exit.FAILURE),
        (checked(Severity.DATA, problem="the leader went"), Exit.UNREADABLE),
    ],
)
def test_the_gravest_finding_makes_the_exit_code(result: Checked, code: Exit) -> None:
    assert fsck.exit_code(result) == code


def test_a_finding_names_file_and_range() -> None:
    (finding,) = checked(Severity.DATA).findings
    assert fsck.told(finding).endswith(" [4, 10): it is so")
    assert fsck.told(finding).startswith("/dir/na")


def test_the_report_counts_and_judges() -> None:
    shown = fsck.report(checked(*[Severity.METADATA] * 150, problem="it broke off"))
    assert shown[0] == "metadata: a-kind (150)"
    assert shown[101] == "  ... and 50 more (--json lists them)"
    assert shown[-3] == "the check did not get to its end: it broke off"
    assert shown[-2] == "checked 1 inodes, 2 chunks, 3 replicas"
    assert shown[-1].startswith("inconsistent: ")


def test_repair_asks_for_yes_where_nobody_can_be_asked(dfs: Dfs) -> None:
    assert dfs("fsck", "--repair") == Exit.USAGE
    assert "--yes" in dfs.err


@pytest.mark.mount
def test_a_real_cluster_is_sound(dfs: Dfs) -> None:
    dfs.write(":/file", DATA)
    assert dfs.json("fsck")["findings"] == []
    assert dfs.ok("fsck", "--deep")[-1].startswith("sound: ")
    assert dfs("fsck", ":/nothing") == Exit.FAILURE
    assert dfs.ok("fsck", ":")[-1].startswith("sound: ")


# -- a cluster of its own, damaged by hand


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "root"
    local("up", "--root", made, "--masters", 1)
    yield made
    local("down", "--root", made, "--force", "--purge", "--yes")


@pytest.fixture
def own(
    root: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Dfs:
    monkeypatch.setenv("DFS_CONFIG", str(root / "client.toml"))
    made = Dfs(capfdbinary, "")
    made.write("/file", DATA)
    assert made("fsck") == Exit.OK
    return made


def replica_files(root: Path) -> list[Path]:
    """The replicas of the only chunk, one on each server."""
    found = sorted(root.rglob("replicas/0/*"))
    assert len(found) == 3
    return found


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.mount
def test_a_replica_file_that_was_deleted_by_hand_is_found(own: Dfs, root: Path) -> None:
    """By the deep check; the cluster may have made up for it before the check was sure of it."""
    replica_files(root)[0].unlink()
    code = own("fsck", "--deep", "--json")
    kinds = {f["kind"] for f in json.loads(own.out)["findings"]}
    if code == Exit.OK:
        assert kinds <= {"quarantined"}
        replica_files(root)
    else:
        assert code == Exit.DEGRADED
        assert kinds <= {"missing-replica", "too-few-copies"}


@pytest.mark.mount
def test_bits_that_were_flipped_by_hand_are_found_and_mended(own: Dfs, root: Path) -> None:
    flip(replica_files(root)[0], DATA_OFFSET + BLOCK_BYTES + 7)
    assert own("fsck") == Exit.OK  # nobody has come across it
    assert own("fsck", "--deep") in (Exit.OK, Exit.DEGRADED)
    give_up_at = time.monotonic() + 60.0
    while own("fsck", "--deep") != Exit.OK:
        assert time.monotonic() < give_up_at, own.out
    assert b"note: quarantined (1)" in own.out
    assert own.out.splitlines()[-1].startswith(b"sound: ")


@pytest.mark.mount
def test_damage_on_every_replica_is_told_with_file_and_range(own: Dfs, root: Path) -> None:
    for path in replica_files(root):
        flip(path, DATA_OFFSET + BLOCK_BYTES + 7)
    assert own("fsck", "--deep") == Exit.UNREADABLE
    told = f"  /file [{BLOCK_BYTES}, {2 * BLOCK_BYTES}): ".encode()
    assert told in own.out
    assert b"are damaged on every replica" in own.out
    assert own("fsck", "--json") == Exit.UNREADABLE
    document = json.loads(own.out)
    assert set(document) == DOCUMENT
    assert (document["state"], document["exit_code"]) == ("unreadable", 7)
    assert (document["complete"], document["problem"]) == (True, "")
    assert all(set(finding) == FIELDS for finding in document["findings"])
    (lost,) = [f for f in document["findings"] if f["kind"] == "damaged-range"]
    assert (lost["path"], lost["severity"], lost["mend"]) == ("/file", "data", None)
    assert (lost["offset"], lost["length_bytes"]) == (BLOCK_BYTES, BLOCK_BYTES)
    assert own("fsck", "--json", "/nowhere") == Exit.FAILURE
    own("mkdir", "/beside")
    assert own("fsck", "/beside") == Exit.OK  # nothing of it is damaged


# -- mending


def plant(root: Path) -> None:
    """Damage the metadata of a cluster that is down: a wrong count, and a record of nobody."""
    env = RealEnv("planting")
    (path,) = root.rglob("state.mdb")
    store = Store.open(env, str(path), Raft())
    stored = store.get(names.INODES, key(ROOT_INODE))
    assert stored is not None
    changed = dataclasses.replace(Inode.decode(ROOT_INODE, stored), entries=7)
    store.put(names.INODES, key(ROOT_INODE), changed.encode())
    store.put(names.XATTRS, key(999) + b"user.a", encode_blob(b"kept"))
    trio.run(store.flush, env)
    store.close()


def answering(text: bytes, *arguments: str) -> tuple[int, bytes]:
    """Run `dfs` with a terminal for its input, on which somebody types that."""
    ours, its = os.openpty()
    try:
        os.write(ours, text)
        command = [sys.executable, "-m", "dfs.cli.main", *arguments]
        done = subprocess.run(command, stdin=its, capture_output=True, check=False)
    finally:
        os.close(ours)
        os.close(its)
    return done.returncode, done.stdout


@pytest.mark.mount
def test_metadata_are_mended_when_that_is_asked_and_agreed_to(own: Dfs, root: Path) -> None:
    local("down", "--root", root)
    plant(root)
    local("up", "--root", root, "--masters", 1)
    code, out = answering(b"n\n", "fsck", "--repair")
    assert code == Exit.INCONSISTENT
    assert b"metadata: entry-count (1)" in out
    assert b"2 of these can be mended without loss:" in out
    assert own("fsck") == Exit.INCONSISTENT  # nothing was changed
    assert own("fsck", "--repair", "--yes", "--json") == Exit.OK
    document = json.loads(own.out)
    assert (document["state"], document["findings"]) == ("sound", [])
    assert [f["kind"] for f in document["mended"]] == ["entry-count", "stray-xattr"]
    saved = base64.b64decode(document["mended"][1]["saved"])
    assert msgpack.unpackb(saved) == [["xattrs", key(999) + b"user.a", encode_blob(b"kept")]]
    assert own.ok("fsck", "--repair", "--yes")[-1].startswith("sound: ")
    assert own.ok("ls", "/") == ["file"]
