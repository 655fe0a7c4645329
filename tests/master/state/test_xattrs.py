"""Extended attributes."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest

from dfs.errors import Failure
from dfs.layout import ROOT_INODE
from dfs.messages.common import ROOT, Credentials
from dfs.messages.operations import MakeNode, RemoveXattr, SetXattr, XattrFlags
from master.state import queries
from tests.master.state import invariants
from tests.master.state.machine_driver import ALICE, BOB, Driver, error_name

CREATE, REPLACE = int(XattrFlags.CREATE), int(XattrFlags.REPLACE)


def error_of(query: Callable[[], object]) -> str:
    with pytest.raises(Failure) as caught:
        query()
    return error_name(caught.value.errno)


def get(machine: Driver, inode: int, name: bytes, caller: Credentials = ROOT) -> bytes:
    return queries.get_xattr(machine.tables, inode, name, caller)


def listed(machine: Driver, inode: int, caller: Credentials = ROOT) -> tuple[bytes, ...]:
    return queries.list_xattrs(machine.tables, inode, caller)


def test_values_are_kept_replaced_and_removed(machine: Driver) -> None:
    inode = machine.file(b"f")
    for value in (b"", b"\0\xff", b"x" * 65536):
        machine.done(SetXattr(inode, b"user.a", value, 0, ROOT))
        assert get(machine, inode, b"user.a") == value
        assert machine.attributes(inode).ctime_ns == machine.now_ns
        invariants.check(machine.tables)
    machine.done(RemoveXattr(inode, b"user.a", ROOT))
    assert listed(machine, inode) == ()
    assert error_of(lambda: get(machine, inode, b"user.a")) == "ENODATA"
    assert machine.fails(RemoveXattr(inode, b"user.a", ROOT)) == "ENODATA"
    invariants.check(machine.tables)


def test_create_and_replace_flags(machine: Driver) -> None:
    inode = machine.file(b"f")
    assert machine.fails(SetXattr(inode, b"user.a", b"1", REPLACE, ROOT)) == "ENODATA"
    machine.done(SetXattr(inode, b"user.a", b"1", CREATE, ROOT))
    assert machine.fails(SetXattr(inode, b"user.a", b"2", CREATE, ROOT)) == "EEXIST"
    machine.done(SetXattr(inode, b"user.a", b"3", REPLACE, ROOT))
    assert machine.fails(SetXattr(inode, b"user.a", b"4", 4, ROOT)) == "EINVAL"
    assert machine.fails(SetXattr(inode, b"user.a", b"4", -1, ROOT)) == "EINVAL"
    assert get(machine, inode, b"user.a") == b"3"


def test_sizes_and_names_out_of_range(machine: Driver) -> None:
    inode = machine.file(b"f")
    for name, value, expected in [
        (b"user." + b"x" * 251, b"", "ERANGE"),
        (b"", b"", "ERANGE"),
        (b"user.a", b"x" * 65537, "E2BIG"),
        (b"user.", b"", "EINVAL"),
        (b"system.posix_acl_access", b"", "EOPNOTSUPP"),
        (b"system.x", b"", "EOPNOTSUPP"),
        (b"unknown.x", b"", "EOPNOTSUPP"),
        (b"plain", b"", "EOPNOTSUPP"),
    ]:
        assert machine.fails(SetXattr(inode, name, value, 0, ROOT)) == expected
        if expected != "E2BIG":
            assert machine.fails(RemoveXattr(inode, name, ROOT)) == expected
            assert error_of(lambda name=name: get(machine, inode, name)) == expected  # type: ignore[misc]
    machine.done(SetXattr(inode, b"user." + b"x" * 250, b"", 0, ROOT))


def test_an_inode_holds_a_mebibyte_of_values(machine: Driver) -> None:
    inode = machine.file(b"f")
    for number in range(16):
        machine.done(SetXattr(inode, b"user.%d" % number, b"x" * 65536, 0, ROOT))
    assert machine.fails(SetXattr(inode, b"user.more", b"x", 0, ROOT)) == "ENOSPC"
    machine.done(SetXattr(inode, b"user.0", b"x" * 65535, 0, ROOT))
    machine.done(SetXattr(inode, b"user.more", b"x", 0, ROOT))


def test_an_inode_holds_as_many_names_as_can_be_listed(machine: Driver) -> None:
    inode = machine.file(b"f")
    for number in range(256):
        machine.done(SetXattr(inode, b"user.%0250d" % number, b"", 0, ROOT))
    assert machine.fails(SetXattr(inode, b"user.y", b"", 0, ROOT)) == "ENOSPC"
    assert sum(len(name) + 1 for name in listed(machine, inode)) == 65536


def test_user_attributes_follow_the_files_mode(machine: Driver) -> None:
    inode = machine.file(b"f", mode=0o600)
    machine.done(SetXattr(inode, b"user.a", b"1", 0, ROOT))
    assert machine.fails(SetXattr(inode, b"user.a", b"1", 0, ALICE)) == "EACCES"
    assert machine.fails(RemoveXattr(inode, b"user.a", ALICE)) == "EACCES"
    assert error_of(lambda: get(machine, inode, b"user.a", ALICE)) == "EACCES"
    machine.set(inode, mode=0o606)
    machine.done(SetXattr(inode, b"user.a", b"2", 0, ALICE))
    assert get(machine, inode, b"user.a", ALICE) == b"2"
    machine.set(inode, mode=0o600)
    assert listed(machine, inode, ALICE) == (b"user.a",)


def test_trusted_attributes_are_roots_and_invisible_to_others(machine: Driver) -> None:
    inode = machine.file(b"f", mode=0o666)
    machine.done(SetXattr(inode, b"trusted.a", b"1", 0, ROOT))
    assert listed(machine, inode) == (b"trusted.a",)
    assert listed(machine, inode, ALICE) == ()
    assert error_of(lambda: get(machine, inode, b"trusted.a", ALICE)) == "ENODATA"
    assert machine.fails(SetXattr(inode, b"trusted.b", b"1", 0, ALICE)) == "EPERM"
    assert machine.fails(RemoveXattr(inode, b"trusted.a", ALICE)) == "EPERM"


def test_security_attributes_are_seen_by_all_and_changed_by_root(machine: Driver) -> None:
    inode = machine.file(b"f", mode=0o666)
    machine.done(SetXattr(inode, b"security.a", b"1", 0, ROOT))
    assert get(machine, inode, b"security.a", ALICE) == b"1"
    assert machine.fails(SetXattr(inode, b"security.a", b"2", 0, ALICE)) == "EPERM"


def test_user_attributes_are_for_files_and_directories(machine: Driver) -> None:
    fifo = machine.perform(MakeNode(ROOT_INODE, b"p", stat.S_IFIFO | 0o666, 0, ROOT)).inode
    assert machine.fails(SetXattr(fifo, b"user.a", b"1", 0, ROOT)) == "EPERM"
    assert error_of(lambda: get(machine, fifo, b"user.a")) == "ENODATA"
    machine.done(SetXattr(fifo, b"trusted.a", b"1", 0, ROOT))


def test_of_a_sticky_directory_only_the_owner_sets_user_attributes(machine: Driver) -> None:
    sticky = machine.directory(b"d", mode=0o1777, caller=ROOT)
    machine.set(sticky, uid=ALICE.uid)
    assert machine.fails(SetXattr(sticky, b"user.a", b"1", 0, BOB)) == "EPERM"
    machine.done(SetXattr(sticky, b"user.a", b"1", 0, ALICE))


def test_attributes_of_missing_inodes(machine: Driver) -> None:
    assert machine.fails(SetXattr(4711, b"user.a", b"", 0, ROOT)) == "ENOENT"
    assert error_of(lambda: get(machine, 4711, b"user.a")) == "ENOENT"
    assert error_of(lambda: listed(machine, 4711)) == "ENOENT"
