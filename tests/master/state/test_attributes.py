"""SetAttributes and CommitWrite: modes, owners, times, sizes."""

from __future__ import annotations

import stat
from typing import Any

import pytest

from dfs.layout import FILE_MAX_BYTES, ROOT_INODE
from dfs.messages.common import ROOT, Credentials
from dfs.messages.operations import CommitWrite, MakeNode, MakeSymlink, SetAttributes
from master.state import queries
from tests.master.state.machine_driver import ALICE, BOB, FIRST_NS, Driver


@pytest.fixture
def alices(machine: Driver) -> int:
    """A file of alice in a directory where all may write."""
    machine.set(ROOT_INODE, mode=0o777)
    return machine.file(b"alices", mode=0o644, caller=ALICE)


def bits(machine: Driver, inode: int) -> int:
    return stat.S_IMODE(machine.attributes(inode).mode)


def refused(
    machine: Driver,
    inode: int,
    caller: Credentials,
    **fields: Any,
) -> str:
    return machine.fails(SetAttributes(inode, caller, **fields))


# -- chmod


def test_chmod_is_for_the_owner_and_root(machine: Driver, alices: int) -> None:
    assert refused(machine, alices, BOB, mode=0o666) == "EPERM"
    machine.set(alices, ALICE, mode=0o600)
    changed = machine.set(alices, ROOT, mode=0o7751)
    assert stat.S_IMODE(changed.mode) == 0o7751
    assert stat.S_ISREG(changed.mode)
    assert changed.ctime_ns == machine.now_ns > changed.mtime_ns


def test_chmod_by_a_stranger_to_the_group_clears_setgid(machine: Driver, alices: int) -> None:
    machine.set(alices, ALICE, mode=0o2755)
    assert bits(machine, alices) == 0o2755
    machine.set(alices, gid=3000)
    machine.set(alices, ALICE, mode=0o2755)
    assert bits(machine, alices) == 0o755
    machine.set(alices, gid=2000)
    machine.set(alices, ALICE, mode=0o2755)
    assert bits(machine, alices) == 0o2755


def test_a_symlink_has_no_mode_of_its_own(machine: Driver) -> None:
    link = machine.perform(MakeSymlink(ROOT_INODE, b"s", b"t", ROOT)).inode
    assert refused(machine, link, ROOT, mode=0o600) == "EOPNOTSUPP"
    machine.set(link, uid=5, mtime_ns=7)


# -- chown


def test_chown_to_another_user_is_for_root(machine: Driver, alices: int) -> None:
    assert refused(machine, alices, ALICE, uid=BOB.uid) == "EPERM"
    assert refused(machine, alices, BOB, uid=BOB.uid) == "EPERM"
    machine.set(alices, ALICE, uid=ALICE.uid)
    assert machine.set(alices, uid=BOB.uid, gid=9).uid == BOB.uid


def test_an_owner_gives_the_file_to_groups_of_its_own(machine: Driver, alices: int) -> None:
    assert refused(machine, alices, ALICE, gid=3000) == "EPERM"
    assert machine.set(alices, ALICE, gid=2000).gid == 2000
    assert refused(machine, alices, BOB, gid=BOB.gid) == "EPERM"
    machine.set(alices, gid=3000)
    machine.set(alices, ALICE, gid=3000)


def test_chown_clears_setuid_and_setgid_even_for_root(machine: Driver, alices: int) -> None:
    for caller in (ROOT, ALICE):
        machine.set(alices, mode=0o6755)
        machine.set(alices, caller, gid=ALICE.gid)
        assert bits(machine, alices) == 0o755


def test_chown_leaves_setgid_without_group_execution_to_members(
    machine: Driver, alices: int
) -> None:
    machine.set(alices, mode=0o2745)
    machine.set(alices, ALICE, uid=ALICE.uid)
    assert bits(machine, alices) == 0o2745


def test_chown_of_a_directory_keeps_its_bits(machine: Driver) -> None:
    inode = machine.directory(b"d")
    machine.set(inode, mode=0o7755)
    machine.set(inode, uid=5, gid=6)
    assert bits(machine, inode) == 0o7755


def test_a_mode_given_with_an_owner_stands(machine: Driver, alices: int) -> None:
    machine.set(alices, uid=5, mode=0o4755)
    assert bits(machine, alices) == 0o4755


# -- utimens


def test_times_are_for_the_owner_to_choose(machine: Driver, alices: int) -> None:
    machine.set(alices, mode=0o666)
    assert refused(machine, alices, BOB, mtime_ns=1) == "EPERM"
    assert refused(machine, alices, BOB, atime_ns=1, mtime_now=True) == "EPERM"
    assert refused(machine, alices, BOB, mtime_now=True) == "EPERM"
    changed = machine.set(alices, ALICE, atime_ns=-5, mtime_ns=2**62)
    assert (changed.atime_ns, changed.mtime_ns) == (-5, 2**62)
    assert changed.ctime_ns == machine.now_ns


def test_the_present_time_is_for_writers_too(machine: Driver, alices: int) -> None:
    now = {"atime_now": True, "mtime_now": True}
    assert refused(machine, alices, BOB, **now) == "EACCES"
    machine.set(alices, mode=0o646)
    changed = machine.set(alices, BOB, **now)
    assert changed.atime_ns == changed.mtime_ns == machine.now_ns


def test_one_time_may_be_left_alone(machine: Driver, alices: int) -> None:
    before = machine.attributes(alices)
    changed = machine.set(alices, ALICE, mtime_ns=3)
    assert (changed.atime_ns, changed.mtime_ns) == (before.atime_ns, 3)


# -- truncate


def test_truncate_needs_write_permission_unless_through_a_handle(
    machine: Driver, alices: int
) -> None:
    assert refused(machine, alices, BOB, size_bytes=5) == "EACCES"
    before = machine.attributes(alices)
    changed = machine.set(alices, BOB, size_bytes=5, through_handle=True)
    assert (changed.size_bytes, changed.mtime_ns, changed.ctime_ns) == (
        5,
        machine.now_ns,
        machine.now_ns,
    )
    assert changed.data_version > before.data_version


def test_truncate_to_the_same_size_keeps_the_data_version(machine: Driver, alices: int) -> None:
    before = machine.set(alices, size_bytes=5)
    assert machine.set(alices, size_bytes=5).data_version == before.data_version


def test_truncate_by_others_than_root_clears_setuid(machine: Driver, alices: int) -> None:
    for caller, left in [(ROOT, 0o6757), (BOB, 0o757)]:
        machine.set(alices, mode=0o6757)
        machine.set(alices, caller, size_bytes=1)
        assert bits(machine, alices) == left


def test_sizes_that_cannot_be(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.perform(MakeNode(ROOT_INODE, b"fifo", stat.S_IFIFO | 0o666, 0, ROOT))
    fifo = queries.lookup(machine.tables, ROOT_INODE, b"fifo").inode
    assert refused(machine, inode, ROOT, size_bytes=-1) == "EINVAL"
    assert refused(machine, inode, ROOT, size_bytes=FILE_MAX_BYTES + 1) == "EFBIG"
    assert refused(machine, ROOT_INODE, ROOT, size_bytes=0) == "EISDIR"
    assert refused(machine, fifo, ROOT, size_bytes=0) == "EINVAL"
    assert machine.set(inode, size_bytes=FILE_MAX_BYTES).size_bytes == FILE_MAX_BYTES


def test_a_refused_field_leaves_the_others_alone_too(machine: Driver, alices: int) -> None:
    assert refused(machine, alices, BOB, mode=0o666, size_bytes=3, through_handle=True) == "EPERM"
    assert refused(machine, alices, ALICE, size_bytes=3, uid=BOB.uid) == "EPERM"


@pytest.mark.parametrize(
    "fields",
    [{"uid": -1}, {"gid": 2**32 - 1}, {"atime_ns": 2**63}, {"mtime_ns": 2**64 - 1}],
)
def test_values_that_no_record_can_hold(machine: Driver, fields: dict[str, int]) -> None:
    assert refused(machine, ROOT_INODE, ROOT, **fields) == "EINVAL"


def test_missing_inodes_are_enoent(machine: Driver) -> None:
    for inode in (0, -1, 4711, 2**64 - 1):
        assert refused(machine, inode, ROOT, mode=0o600) == "ENOENT"
        assert machine.fails(CommitWrite(inode, 0, ROOT)) == "ENOENT"


# -- commit of written data


def test_commit_grows_the_file_and_never_shrinks_it(machine: Driver, alices: int) -> None:
    before = machine.attributes(alices)
    machine.done(CommitWrite(alices, 100, ALICE))
    machine.done(CommitWrite(alices, 50, ALICE))
    after = machine.attributes(alices)
    assert after.size_bytes == 100
    assert after.data_version == before.data_version + 2
    assert after.mtime_ns == after.ctime_ns == machine.now_ns


def test_commit_takes_the_writers_time(machine: Driver, alices: int) -> None:
    machine.done(CommitWrite(alices, 1, ALICE, mtime_ns=FIRST_NS - 5))
    after = machine.attributes(alices)
    assert (after.mtime_ns, after.ctime_ns) == (FIRST_NS - 5, machine.now_ns)


def test_commit_by_others_than_root_clears_setuid(machine: Driver, alices: int) -> None:
    for caller, left in [(ROOT, 0o6755), (BOB, 0o755)]:
        machine.set(alices, mode=0o6755)
        machine.done(CommitWrite(alices, 1, caller))
        assert bits(machine, alices) == left


def test_commits_that_cannot_be(machine: Driver, alices: int) -> None:
    assert machine.fails(CommitWrite(alices, -1, ROOT)) == "EINVAL"
    assert machine.fails(CommitWrite(alices, FILE_MAX_BYTES + 1, ROOT)) == "EFBIG"
    assert machine.fails(CommitWrite(alices, 1, ROOT, cuts=(1,))) == "EINVAL"
    assert machine.fails(CommitWrite(alices, 1, ROOT, mtime_ns=2**63)) == "EINVAL"
    assert machine.fails(CommitWrite(ROOT_INODE, 1, ROOT)) == "EISDIR"


def test_time_never_runs_backwards(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.now_ns -= 10**12
    changed = machine.set(inode, mode=0o600)
    assert changed.ctime_ns >= machine.attributes(ROOT_INODE).mtime_ns > machine.now_ns
