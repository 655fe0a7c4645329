"""Commands that mend: whatever their values are they are answered, and what they refuse is left."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs.errors import Code
from dfs.layout import ROOT_INODE
from dfs.messages.common import Done, Refused
from dfs.rpc.codec import encode
from master import tables as names
from master.commands import (
    AdjustCounts,
    AdjustInode,
    AttachInode,
    MendRecords,
    RecordChange,
)
from master.state import queries, records
from master.state.records import Orphan, OrphanKind, key
from tests.master.state import invariants
from tests.master.state.machine_driver import Driver
from tests.master.state.test_machine import BYTES, NUMBERS

SMALL = st.one_of(st.integers(-3, 3), NUMBERS)
CHANGES = st.builds(
    RecordChange,
    st.sampled_from((*names.STATE_TABLES, "nonsense")),
    st.one_of(BYTES, st.sampled_from((key(1), key(2), b"k" * 600))),
    BYTES,
    BYTES,
)
ADJUST = st.builds(
    AdjustInode, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL
)


def many(items: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(items, max_size=3).map(lambda v: tuple(v))


COMMANDS: st.SearchStrategy[object] = st.one_of(
    st.builds(MendRecords, many(CHANGES), many(ADJUST), many(BYTES)),
    ADJUST,
    st.builds(AttachInode, SMALL, SMALL),
    st.builds(AdjustCounts, SMALL, SMALL, SMALL, SMALL, SMALL, many(BYTES), many(SMALL)),
)


@settings(max_examples=200)
@given(st.lists(COMMANDS, min_size=1, max_size=6))
def test_any_values_are_answered(commands: list[object]) -> None:
    driver = Driver()
    driver.file(b"file")
    driver.directory(b"directory")
    for command in commands:
        before = driver.namespace()
        answer = driver.command(command)
        assert isinstance(answer, Done | Refused)
        encode(answer)
        if isinstance(answer, Refused):
            assert driver.namespace() == before


@pytest.mark.parametrize(
    "command",
    [
        MendRecords((RecordChange(names.INODES, key(1), b"", b"\x01"),)),
        MendRecords((RecordChange(names.COUNTERS, b"counters", b"", b"\x01"),)),
        MendRecords((), adjust=(AdjustInode(2, nlink=1), AdjustInode(2, nlink=1))),
        MendRecords((), orphans=(Orphan(OrphanKind.INODE).encode(),)),
        AdjustInode(2, nlink=-2),
        AdjustInode(2, nlink=2**32),
        AttachInode(ROOT_INODE, 0),
        AttachInode(2, 2),
        AdjustCounts(inodes=-100),
        AdjustCounts(replica_sets=(b"k",)),
        AdjustCounts(replica_sets=(b"k",), set_changes=(-1,)),
        AdjustCounts(replica_sets=(b"k" * 600,), set_changes=(1,)),
    ],
)
def test_what_may_not_be_is_refused(command: object) -> None:
    driver = Driver()
    driver.file(b"file")
    before = driver.tables.copy()
    answer = driver.command(command)
    assert isinstance(answer, Refused)
    assert answer.code == Code.BAD_MESSAGE
    assert driver.tables.copy() == before


def test_records_change_all_together_or_not_at_all() -> None:
    driver = Driver()
    one, two = key(50) + b"user.a", key(51) + b"user.a"
    driver.tables.put(names.XATTRS, one, records.encode_blob(b"v"))
    changes = (
        RecordChange(names.XATTRS, one, records.encode_blob(b"v"), b""),
        RecordChange(names.XATTRS, two, records.encode_blob(b"v"), b""),
    )
    answer = driver.command(MendRecords(changes))
    assert answer.code == Code.STALE_VERSION
    assert driver.tables.get(names.XATTRS, one) is not None
    assert driver.command(MendRecords(changes[:1])) == Done()
    assert driver.tables.get(names.XATTRS, one) is None


def test_two_inodes_are_attached_to_one_lost_and_found() -> None:
    driver = Driver()
    for name in (b"a", b"b"):
        inode = driver.file(name)
        stored = driver.tables.get(names.DENTRIES, key(ROOT_INODE) + name)
        assert stored is not None
        cookie = records.decode_entry(stored)[1]
        driver.tables.delete(names.DENTRIES, key(ROOT_INODE) + name)
        driver.tables.delete(names.DIRINDEX, records.key2(ROOT_INODE, cookie))
        driver.command(AdjustInode(ROOT_INODE, entries=-1))
        assert driver.command(AttachInode(inode, 1)) == Done()
        assert isinstance(driver.command(AttachInode(inode, 0)), Refused)
    invariants.check(driver.tables)
    lost = queries.lookup(driver.tables, ROOT_INODE, b"lost+found")
    assert len(driver.names(lost.inode)) == 2
