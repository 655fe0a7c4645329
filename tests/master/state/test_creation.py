"""create, mknod, mkdir, symlink, link."""

from __future__ import annotations

import stat

import pytest

from dfs.layout import ROOT_INODE
from dfs.messages.common import ROOT, Attributes, Credentials, Done, Refused
from dfs.messages.operations import (
    Create,
    MakeDirectory,
    MakeLink,
    MakeNode,
    MakeSymlink,
    Operation,
    RemoveDirectory,
    SetAttributes,
    Unlink,
)
from master.state import queries
from tests.master.state.machine_driver import ALICE, BOB, Driver


def everything_that_adds(
    parent: int, name: bytes, linked: int, caller: Credentials
) -> list[Operation]:
    return [
        Create(parent, name, 0o644, True, caller),
        MakeNode(parent, name, stat.S_IFIFO | 0o644, 0, caller),
        MakeDirectory(parent, name, 0o755, caller),
        MakeSymlink(parent, name, b"target", caller),
        MakeLink(linked, parent, name, caller),
    ]


def test_create_answers_the_new_file(machine: Driver) -> None:
    answer = machine.perform(Create(ROOT_INODE, b"a", 0o640, True, Credentials(5, 6)))
    assert isinstance(answer, Refused)  # the root belongs to uid 0
    machine.set(ROOT_INODE, mode=0o777)
    made = machine.perform(Create(ROOT_INODE, b"a", 0o4640, True, Credentials(5, 6)))
    assert isinstance(made, Attributes)
    assert (made.mode, made.nlink, made.uid, made.gid) == (stat.S_IFREG | 0o4640, 1, 5, 6)
    assert made.size_bytes == made.allocated_bytes == 0
    assert made.atime_ns == made.mtime_ns == made.ctime_ns == made.btime_ns == machine.now_ns
    assert queries.lookup(machine.tables, ROOT_INODE, b"a") == made


def test_create_of_an_existing_file_answers_it_unless_exclusive(machine: Driver) -> None:
    inode = machine.file(b"a")
    again = machine.perform(Create(ROOT_INODE, b"a", 0o600, False, BOB))
    assert again == machine.attributes(inode)
    assert machine.fails(Create(ROOT_INODE, b"a", 0o600, True, BOB)) == "EEXIST"


def test_create_answers_a_fifo_as_it_is_and_refuses_a_directory(machine: Driver) -> None:
    fifo = machine.perform(MakeNode(ROOT_INODE, b"fifo", stat.S_IFIFO | 0o600, 0, ROOT))
    assert machine.perform(Create(ROOT_INODE, b"fifo", 0o600, False, ROOT)) == fifo
    machine.directory(b"d")
    assert machine.fails(Create(ROOT_INODE, b"d", 0o600, False, ROOT)) == "EISDIR"
    assert machine.fails(Create(ROOT_INODE, b"d", 0o600, True, ROOT)) == "EEXIST"
    assert machine.fails(Create(ROOT_INODE, b".", 0o600, False, ROOT)) == "EISDIR"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"", "ENOENT"),
        (b"x" * 256, "ENAMETOOLONG"),
        (b"a/b", "EINVAL"),
        (b"a\0b", "EINVAL"),
        (b".", "EEXIST"),
        (b"..", "EEXIST"),
        (b"taken", "EEXIST"),
    ],
)
def test_names_that_cannot_be_added(machine: Driver, name: bytes, expected: str) -> None:
    linked = machine.file(b"taken")
    for operation in everything_that_adds(ROOT_INODE, name, linked, ROOT):
        assert machine.fails(operation) == expected


def test_names_may_be_any_255_bytes(machine: Driver) -> None:
    name = bytes(b for b in range(1, 256) if b != ord("/")) + b"\xff"
    machine.file(name)
    assert machine.names() == [name]


def test_adding_needs_search_and_write_permission_on_the_parent(machine: Driver) -> None:
    linked = machine.file(b"f")
    for mode in (0o755, 0o701, 0o702):
        parent = machine.directory(b"d%o" % mode, mode=mode)
        for operation in everything_that_adds(parent, b"x", linked, ALICE):
            assert machine.fails(operation) == "EACCES"
    shared = machine.directory(b"shared")
    machine.set(shared, mode=0o703)
    for operation in everything_that_adds(shared, b"x", linked, ALICE):
        assert not isinstance(machine.perform(operation), Refused)
        if isinstance(operation, MakeDirectory):
            machine.done(RemoveDirectory(shared, b"x", ALICE))
        else:
            machine.done(Unlink(shared, b"x", ALICE))


def test_group_members_use_the_groups_bits(machine: Driver) -> None:
    parent = machine.directory(b"d", mode=0o770)
    machine.set(parent, gid=2000)
    machine.file(b"by-alice", parent, caller=ALICE)
    assert machine.fails(Create(parent, b"by-bob", 0o644, True, BOB)) == "EACCES"


def test_the_owner_is_held_to_the_owners_bits(machine: Driver) -> None:
    parent = machine.directory(b"d")
    machine.set(parent, uid=ALICE.uid)
    machine.set(parent, mode=0o077)
    assert machine.fails(Create(parent, b"x", 0o644, True, ALICE)) == "EACCES"
    machine.file(b"x", parent, caller=BOB)


def test_an_existing_name_in_a_read_only_directory_is_eexist(machine: Driver) -> None:
    machine.file(b"taken")
    assert machine.fails(MakeDirectory(ROOT_INODE, b"taken", 0o755, ALICE)) == "EEXIST"


def test_a_parent_must_be_a_directory_and_exist(machine: Driver) -> None:
    inode = machine.file(b"f")
    assert machine.fails(Create(inode, b"x", 0o644, True, ROOT)) == "ENOTDIR"
    for missing in (0, -1, 99, 2**63, 2**64 - 1):
        assert machine.fails(Create(missing, b"x", 0o644, True, ROOT)) == "ENOENT"


def test_nothing_is_added_to_a_removed_directory(machine: Driver) -> None:
    linked, parent = machine.file(b"f"), machine.directory(b"d")
    machine.remove_directory(b"d")
    for operation in everything_that_adds(parent, b"x", linked, ROOT):
        assert machine.fails(operation) == "ENOENT"


def test_adding_stamps_the_parent(machine: Driver) -> None:
    parent = machine.directory(b"d")
    machine.file(b"x", parent)
    changed = machine.attributes(parent)
    assert changed.mtime_ns == changed.ctime_ns == machine.now_ns > changed.atime_ns


def test_mkdir_counts_links(machine: Driver) -> None:
    parent = machine.directory(b"d")
    assert machine.attributes(parent).nlink == 2
    machine.directory(b"sub", parent)
    assert machine.attributes(parent).nlink == 3
    assert machine.attributes(ROOT_INODE).nlink == 3


def test_mkdir_ignores_setuid_and_setgid_but_takes_sticky(machine: Driver) -> None:
    inode = machine.directory(b"d", mode=0o7755)
    assert stat.S_IMODE(machine.attributes(inode).mode) == 0o1755


def test_setgid_directory_hands_down_its_group(machine: Driver) -> None:
    parent = machine.directory(b"d", mode=0o777)
    machine.set(parent, gid=3000)
    machine.set(parent, mode=0o2777)
    below = machine.attributes(machine.directory(b"sub", parent, caller=ALICE))
    assert (below.gid, stat.S_IMODE(below.mode)) == (3000, 0o2755)
    made = machine.attributes(machine.file(b"file", parent, mode=0o644, caller=ALICE))
    assert (made.gid, stat.S_IMODE(made.mode)) == (3000, 0o644)


def test_a_stranger_to_the_group_gets_no_setgid_executable_from_the_directory(
    machine: Driver,
) -> None:
    parent = machine.directory(b"d", mode=0o777)
    machine.set(parent, gid=2000)
    machine.set(parent, mode=0o2777)
    strange = machine.attributes(machine.file(b"bob", parent, mode=0o2755, caller=BOB))
    assert stat.S_IMODE(strange.mode) == 0o755
    member = machine.attributes(machine.file(b"alice", parent, mode=0o2755, caller=ALICE))
    assert stat.S_IMODE(member.mode) == 0o2755


def test_mknod_makes_every_kind(machine: Driver) -> None:
    kinds = [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]
    for kind in kinds:
        name = b"n%o" % kind
        made = machine.perform(MakeNode(ROOT_INODE, name, kind | 0o640, 0x103, ROOT))
        device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        assert (made.mode, made.rdev) == (kind | 0o640, 0x103 if device else 0)
    plain = machine.perform(MakeNode(ROOT_INODE, b"zero", 0o600, 0, ROOT))
    assert stat.S_ISREG(plain.mode)


def test_mknod_of_devices_is_for_root(machine: Driver) -> None:
    machine.set(ROOT_INODE, mode=0o777)
    device = MakeNode(ROOT_INODE, b"x", stat.S_IFCHR | 0o600, 0x103, ALICE)
    assert machine.fails(device) == "EPERM"
    machine.perform(MakeNode(ROOT_INODE, b"y", stat.S_IFIFO | 0o600, 0, ALICE))
    assert machine.names() == [b"y"]


def test_mknod_of_other_kinds_is_refused(machine: Driver) -> None:
    for kind, expected in [
        (stat.S_IFDIR, "EPERM"),
        (stat.S_IFLNK, "EINVAL"),
        (0o170000, "EINVAL"),
    ]:
        assert machine.fails(MakeNode(ROOT_INODE, b"x", kind | 0o600, 0, ROOT)) == expected
    for rdev in (-1, 2**32):
        device = MakeNode(ROOT_INODE, b"x", stat.S_IFBLK | 0o600, rdev, ROOT)
        assert machine.fails(device) == "EINVAL"


def test_symlink_keeps_its_target(machine: Driver) -> None:
    target = b"/any\xffwhere" * 10
    made = machine.perform(MakeSymlink(ROOT_INODE, b"s", target, ROOT))
    assert (made.mode, made.size_bytes) == (stat.S_IFLNK | 0o777, len(target))
    assert queries.read_link(machine.tables, made.inode) == target


@pytest.mark.parametrize(
    ("target", "expected"),
    [(b"", "ENOENT"), (b"x" * 4096, "ENAMETOOLONG"), (b"a\0b", "EINVAL")],
)
def test_symlink_targets_that_cannot_be(machine: Driver, target: bytes, expected: str) -> None:
    assert machine.fails(MakeSymlink(ROOT_INODE, b"s", target, ROOT)) == expected


def test_link_gives_one_inode_two_names(machine: Driver) -> None:
    inode = machine.file(b"a")
    linked = machine.perform(MakeLink(inode, ROOT_INODE, b"b", ROOT))
    assert (linked.inode, linked.nlink, linked.ctime_ns) == (inode, 2, machine.now_ns)
    assert machine.names() == [b"a", b"b"]


def test_link_refuses_directories_and_unlinked_inodes(machine: Driver) -> None:
    directory = machine.directory(b"d")
    assert machine.fails(MakeLink(directory, ROOT_INODE, b"x", ROOT)) == "EPERM"
    inode = machine.file(b"a")
    machine.remove(b"a")
    assert machine.fails(MakeLink(inode, ROOT_INODE, b"x", ROOT)) == "ENOENT"
    assert machine.fails(MakeLink(4711, ROOT_INODE, b"x", ROOT)) == "ENOENT"


def test_owners_that_no_record_can_hold_are_refused(machine: Driver) -> None:
    machine.set(ROOT_INODE, mode=0o777)
    for uid in (-1, 2**32 - 1, 2**64 - 1):
        assert machine.fails(Create(ROOT_INODE, b"x", 0o644, True, Credentials(uid, 0))) == "EINVAL"
        assert machine.fails(Create(ROOT_INODE, b"x", 0o644, True, Credentials(0, uid))) == "EINVAL"


def test_done_operations_answer_done(machine: Driver) -> None:
    machine.file(b"a")
    assert machine.perform(Unlink(ROOT_INODE, b"a", ROOT)) == Done()
    answer = machine.perform(SetAttributes(ROOT_INODE, ROOT))
    assert answer == machine.attributes(ROOT_INODE)
