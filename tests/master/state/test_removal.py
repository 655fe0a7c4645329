"""unlink, rmdir, and what becomes of what lost its last link."""

from __future__ import annotations

from dfs.layout import ROOT_INODE
from dfs.messages.common import ROOT, Done
from dfs.messages.operations import (
    CommitWrite,
    MakeLink,
    MakeSymlink,
    RemoveDirectory,
    SetXattr,
    Unlink,
)
from master.commands import ReapOrphans
from master.state import queries
from tests.master.state import invariants
from tests.master.state.machine_driver import ALICE, BOB, Driver


def test_unlink_of_one_of_two_names_leaves_the_other(machine: Driver) -> None:
    inode = machine.file(b"a")
    machine.perform(MakeLink(inode, ROOT_INODE, b"b", ROOT))
    machine.remove(b"a")
    left = machine.attributes(inode)
    assert (left.nlink, left.ctime_ns) == (1, machine.now_ns)
    assert machine.names() == [b"b"]
    assert queries.orphans(machine.tables, 10) == ()


def test_an_unlinked_file_lives_until_it_is_reaped(machine: Driver) -> None:
    inode = machine.file(b"a")
    machine.allocate(inode, 0, 2)
    machine.remove(b"a")
    assert queries.orphans(machine.tables, 10) == (inode,)
    machine.done(CommitWrite(inode, 100, ROOT))
    machine.set(inode, mode=0o600)
    assert machine.attributes(inode).nlink == 0
    machine.reap()
    assert queries.find_inode(machine.tables, inode) is None
    assert queries.orphans(machine.tables, 10) == ()
    assert machine.doomed(1, 10) == (1, 2)
    invariants.check(machine.tables)


def test_reaping_leaves_living_inodes_alone(machine: Driver) -> None:
    inode = machine.file(b"a")
    assert machine.command(ReapOrphans((inode, ROOT_INODE, 0, -5, 2**64 - 1), 100)) == Done()
    assert machine.attributes(inode).nlink == 1


def test_reaping_is_bounded_and_goes_on(machine: Driver) -> None:
    inode = machine.file(b"a")
    machine.allocate(inode, 0, 10)
    for number in range(10):
        machine.done(SetXattr(inode, b"user.%d" % number, b"v", 0, ROOT))
    machine.remove(b"a")
    for left in (6, 2, 0):
        machine.reap(4)
        assert queries.counts(machine.tables).chunks == left
        invariants.check(machine.tables)
    assert queries.find_inode(machine.tables, inode) is not None
    for _ in range(2):
        machine.reap(4)
        invariants.check(machine.tables)
    assert queries.find_inode(machine.tables, inode) is None


def test_a_reaped_symlink_leaves_nothing_behind(machine: Driver) -> None:
    before = queries.counts(machine.tables)
    machine.perform(MakeSymlink(ROOT_INODE, b"s", b"t", ROOT))
    machine.remove(b"s")
    machine.reap()
    assert queries.counts(machine.tables) == before
    invariants.check(machine.tables)


def test_unlink_refuses(machine: Driver) -> None:
    machine.directory(b"d")
    inode = machine.file(b"f")
    for name, expected in [
        (b"missing", "ENOENT"),
        (b"d", "EISDIR"),
        (b".", "EISDIR"),
        (b"..", "EISDIR"),
        (b"", "ENOENT"),
        (b"x" * 256, "ENAMETOOLONG"),
    ]:
        assert machine.fails(Unlink(ROOT_INODE, name, ROOT)) == expected
    assert machine.fails(Unlink(inode, b"x", ROOT)) == "ENOTDIR"
    assert machine.fails(Unlink(ROOT_INODE, b"f", ALICE)) == "EACCES"


def test_rmdir_refuses(machine: Driver) -> None:
    machine.file(b"x", machine.directory(b"full"))
    machine.file(b"f")
    for name, expected in [
        (b"missing", "ENOENT"),
        (b"f", "ENOTDIR"),
        (b"full", "ENOTEMPTY"),
        (b".", "EINVAL"),
        (b"..", "ENOTEMPTY"),
    ]:
        assert machine.fails(RemoveDirectory(ROOT_INODE, name, ROOT)) == expected
    assert machine.fails(RemoveDirectory(ROOT_INODE, b"full", ALICE)) == "EACCES"


def test_rmdir_takes_the_parents_link(machine: Driver) -> None:
    inode = machine.directory(b"d")
    machine.remove_directory(b"d")
    parent = machine.attributes(ROOT_INODE)
    assert (parent.nlink, parent.mtime_ns) == (2, machine.now_ns)
    assert machine.attributes(inode).nlink == 0
    machine.reap()
    invariants.check(machine.tables)


def test_a_directory_emptied_by_unlink_can_be_removed(machine: Driver) -> None:
    inode = machine.directory(b"d")
    machine.file(b"x", inode)
    machine.remove(b"x", inode)
    machine.remove_directory(b"d")


def test_in_a_sticky_directory_only_owners_remove(machine: Driver) -> None:
    sticky = machine.directory(b"tmp", mode=0o1777)
    machine.file(b"of-alice", sticky, mode=0o666, caller=ALICE)
    machine.directory(b"dir-of-alice", sticky, mode=0o777, caller=ALICE)
    assert machine.fails(Unlink(sticky, b"of-alice", BOB)) == "EPERM"
    assert machine.fails(RemoveDirectory(sticky, b"dir-of-alice", BOB)) == "EPERM"
    machine.remove(b"of-alice", sticky, caller=ALICE)
    machine.file(b"of-alice", sticky, caller=ALICE)
    machine.set(sticky, uid=BOB.uid)
    machine.remove(b"of-alice", sticky, caller=BOB)


def test_unlink_of_a_huge_file_costs_no_more_than_of_an_empty_one(machine: Driver) -> None:
    writes = []
    for name, count in [(b"empty", 0), (b"huge", 4096)]:
        inode = machine.file(name)
        machine.allocate(inode, 0, count)
        before = machine.tables.writes
        machine.remove(name)
        writes.append(machine.tables.writes - before)
    assert writes[0] == writes[1]
