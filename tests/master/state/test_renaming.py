"""renameat2."""

from __future__ import annotations

import pytest

from dfs.layout import ROOT_INODE
from dfs.messages.common import ROOT
from dfs.messages.operations import MakeLink, Rename, RenameFlags
from master.state import queries
from tests.master.state import invariants
from tests.master.state.machine_driver import ALICE, BOB, Driver

NOREPLACE, EXCHANGE = int(RenameFlags.NOREPLACE), int(RenameFlags.EXCHANGE)


def move(old: bytes, new: bytes, flags: int = 0) -> Rename:
    return Rename(ROOT_INODE, old, ROOT_INODE, new, flags, ROOT)


def found(machine: Driver, parent: int, name: bytes) -> int:
    return queries.lookup(machine.tables, parent, name).inode


def test_rename_moves_a_file_between_directories(machine: Driver) -> None:
    inode, target = machine.file(b"a"), machine.directory(b"d")
    machine.rename((ROOT_INODE, b"a"), (target, b"b"))
    assert machine.names() == [b"d"]
    assert found(machine, target, b"b") == inode
    for changed in (ROOT_INODE, target):
        attributes = machine.attributes(changed)
        assert attributes.mtime_ns == attributes.ctime_ns == machine.now_ns
    assert machine.attributes(inode).ctime_ns == machine.now_ns > machine.attributes(inode).mtime_ns
    invariants.check(machine.tables)


def test_rename_replaces_a_file_which_stays_readable_as_an_orphan(machine: Driver) -> None:
    old, new = machine.file(b"a"), machine.file(b"b")
    machine.rename((ROOT_INODE, b"a"), (ROOT_INODE, b"b"))
    assert found(machine, ROOT_INODE, b"b") == old
    assert machine.attributes(new).nlink == 0
    assert queries.orphans(machine.tables, 10) == (new,)
    invariants.check(machine.tables)


def test_rename_onto_a_link_of_the_same_inode_does_nothing(machine: Driver) -> None:
    inode = machine.file(b"a")
    machine.perform(MakeLink(inode, ROOT_INODE, b"b", ROOT))
    before = machine.namespace()
    machine.rename((ROOT_INODE, b"a"), (ROOT_INODE, b"b"))
    machine.rename((ROOT_INODE, b"a"), (ROOT_INODE, b"a"))
    assert machine.namespace() == before


def test_rename_of_a_directory_moves_the_parents_links(machine: Driver) -> None:
    one, two = machine.directory(b"one"), machine.directory(b"two")
    moved = machine.directory(b"sub", one)
    machine.rename((one, b"sub"), (two, b"sub"))
    assert machine.attributes(one).nlink == 2
    assert machine.attributes(two).nlink == 3
    assert found(machine, moved, b"..") == two
    invariants.check(machine.tables)


def test_rename_over_an_empty_directory_replaces_it(machine: Driver) -> None:
    one = machine.directory(b"one")
    gone = machine.directory(b"two")
    machine.rename((ROOT_INODE, b"one"), (ROOT_INODE, b"two"))
    assert found(machine, ROOT_INODE, b"two") == one
    assert machine.attributes(ROOT_INODE).nlink == 3
    assert machine.attributes(gone).nlink == 0
    invariants.check(machine.tables)


def test_rename_refuses(machine: Driver) -> None:
    tree = machine.directory(b"tree")
    below = machine.directory(b"below", tree)
    machine.directory(b"empty")
    machine.file(b"file")
    long = b"x" * 256
    for operation, expected in [
        (move(b"missing", b"x"), "ENOENT"),
        (move(b"file", b"empty"), "EISDIR"),
        (move(b"empty", b"file"), "ENOTDIR"),
        (move(b"empty", b"tree"), "ENOTEMPTY"),
        (move(b".", b"x"), "EBUSY"),
        (move(b"file", b".."), "EBUSY"),
        (move(b"file", b"..", NOREPLACE), "EEXIST"),
        (move(b"file", long), "ENAMETOOLONG"),
        (move(long, b"file"), "ENAMETOOLONG"),
        (move(b"file", b"empty", NOREPLACE), "EEXIST"),
        (move(b"file", b"file", NOREPLACE), "EEXIST"),
        (move(b"file", b"missing", EXCHANGE), "ENOENT"),
        (move(b"file", b"x", NOREPLACE | EXCHANGE), "EINVAL"),
        (move(b"file", b"x", 4), "EINVAL"),
        (move(b"file", b"x", -1), "EINVAL"),
        (Rename(ROOT_INODE, b"tree", below, b"x", 0, ROOT), "EINVAL"),
        (Rename(ROOT_INODE, b"tree", tree, b"x", 0, ROOT), "EINVAL"),
        (Rename(ROOT_INODE, b"tree", tree, b"below", EXCHANGE, ROOT), "EINVAL"),
        (Rename(tree, b"below", ROOT_INODE, b"tree", 0, ROOT), "ENOTEMPTY"),
        (Rename(tree, b"below", ROOT_INODE, b"tree", EXCHANGE, ROOT), "EINVAL"),
    ]:
        assert machine.fails(operation) == expected, operation


def test_rename_into_a_removed_directory_is_enoent(machine: Driver) -> None:
    gone = machine.directory(b"gone")
    machine.remove_directory(b"gone")
    machine.file(b"a")
    assert machine.fails(Rename(ROOT_INODE, b"a", gone, b"b", 0, ROOT)) == "ENOENT"


def test_noreplace_moves_when_the_name_is_free(machine: Driver) -> None:
    machine.file(b"a")
    machine.rename((ROOT_INODE, b"a"), (ROOT_INODE, b"b"), NOREPLACE)
    assert machine.names() == [b"b"]


def test_exchange_swaps_a_directory_and_a_file(machine: Driver) -> None:
    one, two = machine.directory(b"one"), machine.directory(b"two")
    tree, inode = machine.directory(b"tree", one), machine.file(b"file", two)
    machine.file(b"kept", tree)
    machine.rename((one, b"tree"), (two, b"file"), EXCHANGE)
    assert found(machine, one, b"tree") == inode
    assert found(machine, two, b"file") == tree
    assert found(machine, tree, b"..") == two
    assert machine.attributes(one).nlink == 2
    assert machine.attributes(two).nlink == 3
    for changed in (one, two, tree, inode):
        assert machine.attributes(changed).ctime_ns == machine.now_ns
    invariants.check(machine.tables)


def test_exchange_swaps_two_directories_that_are_not_empty(machine: Driver) -> None:
    one, two = machine.directory(b"one"), machine.directory(b"two")
    a, b = machine.directory(b"a", one), machine.directory(b"b", two)
    machine.file(b"in-a", a)
    machine.file(b"in-b", b)
    machine.rename((one, b"a"), (two, b"b"), EXCHANGE)
    assert machine.names(found(machine, one, b"a")) == [b"in-b"]
    assert found(machine, a, b"..") == two
    invariants.check(machine.tables)


def test_rename_needs_write_permission_on_both_parents(machine: Driver) -> None:
    mine = machine.directory(b"mine", mode=0o777)
    closed = machine.directory(b"closed")
    machine.file(b"a", mine)
    machine.file(b"b", closed)
    for operation in (
        Rename(mine, b"a", closed, b"x", 0, ALICE),
        Rename(mine, b"a", closed, b"b", 0, ALICE),
        Rename(closed, b"b", mine, b"x", 0, ALICE),
    ):
        assert machine.fails(operation) == "EACCES"


def test_a_directory_needs_write_permission_itself_to_change_parents(machine: Driver) -> None:
    one = machine.directory(b"one", mode=0o777)
    two = machine.directory(b"two", mode=0o777)
    machine.directory(b"sub", one, mode=0o755)
    assert machine.fails(Rename(one, b"sub", two, b"sub", 0, ALICE)) == "EACCES"
    machine.rename((one, b"sub"), (one, b"other"), caller=ALICE)
    machine.file(b"file", two)
    exchange = Rename(two, b"file", one, b"other", EXCHANGE, ALICE)
    assert machine.fails(exchange) == "EACCES"


@pytest.mark.parametrize("flags", [0, EXCHANGE])
def test_sticky_directories_protect_both_names(machine: Driver, flags: int) -> None:
    sticky = machine.directory(b"tmp", mode=0o1777)
    machine.file(b"alices", sticky, caller=ALICE)
    machine.file(b"bobs", sticky, caller=BOB)
    for old, new in [(b"alices", b"bobs"), (b"bobs", b"alices")]:
        assert machine.fails(Rename(sticky, old, sticky, new, flags, BOB)) == "EPERM"
    machine.rename((sticky, b"bobs"), (sticky, b"mine"), caller=BOB)


def test_a_deep_loop_is_found(machine: Driver) -> None:
    top = at = machine.directory(b"top")
    for _ in range(50):
        at = machine.directory(b"d", at)
    assert machine.fails(Rename(ROOT_INODE, b"top", at, b"x", 0, ROOT)) == "EINVAL"
    assert machine.attributes(top).nlink == 3
