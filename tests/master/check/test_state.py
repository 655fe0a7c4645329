"""Every kind of contradiction, planted in the tables: found, mended, and then gone."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest

from dfs.layout import CHUNK_BYTES, ROOT_INODE
from dfs.messages.common import ROOT
from dfs.messages.operations import MakeLink
from master import tables as names
from master.check.findings import Kind, describe, severity_of
from master.state import queries, records
from master.state.records import Orphan, OrphanKind, key, key2
from tests.master.check.planting import Planted

Plant = Callable[[Planted], None]


@pytest.fixture
def planted() -> Planted:
    return Planted()


def entry_key(parent: int, name: bytes) -> bytes:
    return key(parent) + name


def cookie_of(planted: Planted, parent: int, name: bytes) -> int:
    stored = planted.tables.get(names.DENTRIES, entry_key(parent, name))
    assert stored is not None
    return records.decode_entry(stored)[1]


def remove_name(planted: Planted, parent: int, name: bytes) -> None:
    cookie = cookie_of(planted, parent, name)
    planted.tables.delete(names.DENTRIES, entry_key(parent, name))
    planted.tables.delete(names.DIRINDEX, key2(parent, cookie))
    planted.edit_fields(parent, entries=-1)


def add_name(planted: Planted, parent: int, name: bytes, inode: int) -> None:
    cookie = planted.read(parent).next_cookie
    planted.edit_fields(parent, entries=1, next_cookie=1)
    planted.tables.put(names.DENTRIES, entry_key(parent, name), records.encode_entry(inode, cookie))
    planted.tables.put(names.DIRINDEX, key2(parent, cookie), records.encode_index(inode, name))


# -- the plants; what each is found as


def dangling_name(p: Planted) -> None:
    add_name(p, p.sub, b"nowhere", 999)


def unindexed_name(p: Planted) -> None:
    p.tables.delete(names.DIRINDEX, key2(p.sub, cookie_of(p, p.sub, b"other")))


def shared_cookie(p: Planted) -> None:
    """Two names under one cookie: the index can only have one of them."""
    add_name(p, p.sub, b"twin", p.inode)
    p.edit_fields(p.inode, nlink=1)
    p.tables.delete(names.DIRINDEX, key2(p.sub, cookie_of(p, p.sub, b"twin")))
    stolen = cookie_of(p, p.sub, b"other")
    p.tables.put(names.DENTRIES, entry_key(p.sub, b"twin"), records.encode_entry(p.inode, stolen))


def stray_index(p: Planted) -> None:
    """The name went without its index: it is restored."""
    p.tables.delete(names.DENTRIES, entry_key(p.sub, b"other"))
    p.edit_fields(p.sub, entries=-1)
    p.edit_fields(p.inode, nlink=-1)


def index_to_nowhere(p: Planted) -> None:
    p.tables.put(names.DIRINDEX, key2(p.sub, 777), records.encode_index(999, b"nowhere"))


def bad_cookie(p: Planted) -> None:
    p.edit_fields(p.sub, next_cookie=-1)


def names_in_a_file(p: Planted) -> None:
    p.tables.put(names.DENTRIES, entry_key(p.inode, b"x"), records.encode_entry(p.sub, 3))


def entry_count(p: Planted) -> None:
    p.edit_fields(p.sub, entries=3)


def link_count_of_a_file(p: Planted) -> None:
    p.edit_fields(p.inode, nlink=-1)


def link_count_of_a_directory(p: Planted) -> None:
    p.edit_fields(p.sub, nlink=2)


def unreachable_file(p: Planted) -> None:
    remove_name(p, ROOT_INODE, b"file")
    remove_name(p, p.sub, b"other")


def unreachable_directory(p: Planted) -> None:
    remove_name(p, ROOT_INODE, b"sub")
    p.edit_fields(ROOT_INODE, nlink=-1)


def named_orphan(p: Planted) -> None:
    p.edit_fields(p.inode, nlink=-2)
    p.tables.put(names.ORPHANS, key(p.inode), Orphan(OrphanKind.INODE).encode())


def directory_loop(p: Planted) -> None:
    """sub is moved into sub/deep."""
    remove_name(p, ROOT_INODE, b"sub")
    p.edit_fields(ROOT_INODE, nlink=-1)
    add_name(p, p.deep, b"sub", p.sub)
    p.edit_fields(p.deep, nlink=1)
    p.edit_fields(p.sub, parent=p.deep - ROOT_INODE)


def wrong_parent(p: Planted) -> None:
    p.edit_fields(p.deep, parent=ROOT_INODE - p.sub)


def second_name(p: Planted) -> None:
    add_name(p, ROOT_INODE, b"deep again", p.deep)
    p.edit_fields(ROOT_INODE, nlink=1)


def orphan_with_names(p: Planted) -> None:
    p.tables.put(names.ORPHANS, key(p.inode), Orphan(OrphanKind.INODE).encode())


def orphan_of_nothing(p: Planted) -> None:
    p.tables.put(names.ORPHANS, key(998), Orphan(OrphanKind.INODE).encode())
    p.count(next_inode=1000)


def unnoted_orphan(p: Planted) -> None:
    p.tables.delete(names.ORPHANS, key(p.orphan))


def xattr_sizes(p: Planted) -> None:
    p.edit_fields(p.inode, xattr_names_bytes=4, xattr_values_bytes=-1)


def stray_xattr(p: Planted) -> None:
    p.tables.put(names.XATTRS, key(999) + b"user.b", records.encode_blob(b"kept"))


def target_size(p: Planted) -> None:
    p.edit_fields(p.link, size_bytes=1)


def stray_target(p: Planted) -> None:
    p.tables.put(names.SYMLINKS, key(p.inode), records.encode_blob(b"elsewhere"))


def chunk_count(p: Planted) -> None:
    p.edit_fields(p.inode, chunks=-1)


def lost_handle(p: Planted) -> None:
    p.tables.delete(names.HANDLES, key(p.chunk().handle))


def wrong_handle(p: Planted) -> None:
    p.tables.put(names.HANDLES, key(p.chunk().handle), records.encode_handle(p.inode, 40))


def stray_handle(p: Planted) -> None:
    p.tables.put(names.HANDLES, key(2), records.encode_handle(p.inode, 2))
    p.tables.put(names.HANDLES, key(5000), records.encode_handle(p.inode, 9))
    p.count(next_handle=6000)


def doomed_replica(p: Planted) -> None:
    chunk = p.chunk()
    p.tables.put(names.DELETIONS, key2(chunk.servers[1], chunk.handle), records.encode_blob(b""))


def trim_count(p: Planted) -> None:
    p.edit_fields(p.trimmed, trims=1)


def trim_orphan_key(p: Planted) -> bytes:
    return next(
        k
        for k, value in p.tables.scan(names.ORPHANS)
        if Orphan.decode(value).kind == OrphanKind.TRIM
    )


def unnoted_trim(p: Planted) -> None:
    p.tables.delete(names.ORPHANS, trim_orphan_key(p))


def lost_trim(p: Planted) -> None:
    p.tables.delete(names.TRIMS, p.first_key(names.TRIMS))
    p.edit_fields(p.trimmed, trims=-1)


def replica_set_counts(p: Planted) -> None:
    chunk = p.chunk()
    right = records.replica_set_key(chunk.wanted, chunk.servers)
    p.tables.put(names.REPLICA_SETS, right, records.encode_number(1))
    wrong = records.replica_set_key(3, (8, 9))
    p.tables.put(names.REPLICA_SETS, wrong, records.encode_number(7))


def counters(p: Planted) -> None:
    p.count(inodes=3, chunks=-2, sessions=1)


def next_numbers(p: Planted) -> None:
    p.count(next_inode=2 - p.counters().next_inode, next_handle=1 - p.counters().next_handle)


def stray_answer(p: Planted) -> None:
    p.tables.put(names.ANSWERS, key2(4711, 1), records.encode_blob(b"whatever"))


def early_note(p: Planted) -> None:
    later = records.encode_deletion(p.counters().now_ns + 1)
    p.tables.put(names.DELETIONS, key2(9, 1), later)


def stray_mode(p: Planted) -> None:
    p.tables.put(names.MODES, key(9) + b"/disk", records.Mode(1, 2, 0).encode())


MENDABLE: list[tuple[Plant, Kind]] = [
    (dangling_name, Kind.DANGLING_NAME),
    (unindexed_name, Kind.UNINDEXED_NAME),
    (shared_cookie, Kind.UNINDEXED_NAME),
    (stray_index, Kind.STRAY_INDEX),
    (index_to_nowhere, Kind.STRAY_INDEX),
    (bad_cookie, Kind.BAD_COOKIE),
    (names_in_a_file, Kind.NO_DIRECTORY),
    (entry_count, Kind.ENTRY_COUNT),
    (link_count_of_a_file, Kind.LINK_COUNT),
    (link_count_of_a_directory, Kind.LINK_COUNT),
    (unreachable_file, Kind.UNREACHABLE),
    (unreachable_directory, Kind.UNREACHABLE),
    (named_orphan, Kind.NAMED_ORPHAN),
    (directory_loop, Kind.DIRECTORY_LOOP),
    (wrong_parent, Kind.WRONG_PARENT),
    (second_name, Kind.SECOND_NAME),
    (orphan_with_names, Kind.FALSE_ORPHAN),
    (orphan_of_nothing, Kind.FALSE_ORPHAN),
    (unnoted_orphan, Kind.UNNOTED_ORPHAN),
    (xattr_sizes, Kind.XATTR_SIZES),
    (stray_xattr, Kind.STRAY_XATTR),
    (target_size, Kind.TARGET_SIZE),
    (stray_target, Kind.STRAY_TARGET),
    (chunk_count, Kind.CHUNK_COUNT),
    (lost_handle, Kind.CHUNK_HANDLE),
    (wrong_handle, Kind.CHUNK_HANDLE),
    (stray_handle, Kind.STRAY_HANDLE),
    (doomed_replica, Kind.DOOMED_REPLICA),
    (trim_count, Kind.TRIM_COUNT),
    (unnoted_trim, Kind.UNNOTED_TRIM),
    (lost_trim, Kind.STRAY_TRIM),
    (replica_set_counts, Kind.REPLICA_SET_COUNT),
    (counters, Kind.COUNTER),
    (next_numbers, Kind.COUNTER),
    (stray_answer, Kind.STRAY_ANSWER),
    (early_note, Kind.EARLY_NOTE),
    (stray_mode, Kind.STRAY_MODE),
]


def test_a_healthy_state_has_no_findings(planted: Planted) -> None:
    assert planted.findings() == []


def test_the_empty_state_has_no_findings() -> None:
    planted = Planted()
    for table in names.STATE_TABLES:
        planted.tables.tables[table].clear()
    assert planted.findings() == []


@pytest.mark.parametrize(("plant", "kind"), MENDABLE, ids=lambda v: getattr(v, "__name__", v))
def test_a_contradiction_is_found_and_mended(planted: Planted, plant: Plant, kind: Kind) -> None:
    plant(planted)
    found = planted.findings()
    assert kind in [f.kind for f in found]
    assert all(describe(f.mend) for f in found if f.kind is kind)
    assert planted.mend() == []


@pytest.mark.parametrize("window", [1, 3, 64])
def test_the_size_of_the_window_makes_no_difference(planted: Planted, window: int) -> None:
    for plant in (link_count_of_a_file, unreachable_directory, second_name, unnoted_orphan):
        plant(planted)
    assert planted.findings(window) == planted.findings()


def test_many_at_once_are_mended_too(planted: Planted) -> None:
    for plant in (
        dangling_name,
        entry_count,
        link_count_of_a_directory,
        directory_loop,
        names_in_a_file,
        unnoted_orphan,
        xattr_sizes,
        stray_xattr,
        target_size,
        lost_handle,
        doomed_replica,
        unnoted_trim,
        replica_set_counts,
        counters,
        stray_answer,
    ):
        plant(planted)
    assert len(planted.kinds()) >= 12
    assert planted.mend() == []


# -- what cannot be mended is told, and nothing is done


def unreadable_inode(p: Planted) -> None:
    p.tables.put(names.INODES, key(p.inode), b"\x01torn")


def unknown_format(p: Planted) -> None:
    stored = p.tables.get(names.INODES, key(p.inode))
    assert stored is not None
    p.tables.put(names.INODES, key(p.inode), b"\x07" + stored[1:])


def no_target(p: Planted) -> None:
    p.tables.delete(names.SYMLINKS, key(p.link))


def chunk_of_nobody(p: Planted) -> None:
    chunk = p.chunk(2)
    p.tables.put(names.CHUNKS, key2(999, 0), chunk.encode())
    p.tables.delete(names.CHUNKS, key2(p.inode, 2))
    p.tables.put(names.HANDLES, key(chunk.handle), records.encode_handle(999, 0))
    p.edit_fields(p.inode, chunks=-1)


def one_server_twice(p: Planted) -> None:
    p.put_chunk(0, servers=(1, 2, 2))


def one_handle_twice(p: Planted) -> None:
    p.put_chunk(1, handle=p.chunk(0).handle)


def impossible_name(p: Planted) -> None:
    add_name(p, p.sub, b"a/b", p.inode)
    p.edit_fields(p.inode, nlink=1)


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (unreadable_inode, Kind.UNREADABLE_RECORD),
        (unknown_format, Kind.UNREADABLE_RECORD),
        (no_target, Kind.NO_TARGET),
        (chunk_of_nobody, Kind.STRAY_CHUNK),
        (one_server_twice, Kind.BAD_CHUNK),
        (one_handle_twice, Kind.CHUNK_HANDLE),
        (impossible_name, Kind.BAD_NAME),
    ],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_what_cannot_be_mended_is_told(planted: Planted, plant: Plant, kind: Kind) -> None:
    plant(planted)
    found = [f for f in planted.findings() if f.kind is kind]
    assert found
    assert [f.mend for f in found] == [None] * len(found)


def test_nothing_of_an_unreadable_inode_is_taken_for_a_stray(planted: Planted) -> None:
    unreadable_inode(planted)
    kinds = dict.fromkeys(planted.kinds())
    assert Kind.STRAY_XATTR not in kinds
    assert Kind.STRAY_CHUNK not in kinds
    assert all(f.mend is None for f in planted.findings() if f.kind is Kind.DANGLING_NAME)


@pytest.mark.parametrize("table", [t for t in names.STATE_TABLES if t != names.SETTINGS])
def test_no_torn_record_ends_the_check(planted: Planted, table: str) -> None:
    record = next(planted.tables.scan(table), (b"\0" * 16, b""))
    for torn in (b"", b"\x01", b"\x09", record[1][:-1]):
        planted.tables.put(table, record[0], torn)
        planted.findings()


# -- what mending does


def test_what_has_no_name_is_found_in_lost_and_found(planted: Planted) -> None:
    unreachable_directory(planted)
    assert planted.mend() == []
    lost = queries.lookup(planted.tables, ROOT_INODE, b"lost+found")
    attached = queries.lookup(planted.tables, lost.inode, b"#%d" % planted.sub)
    assert queries.lookup(planted.tables, attached.inode, b"..").inode == lost.inode
    assert queries.lookup(planted.tables, attached.inode, b"deep").inode == planted.deep


def test_a_dropped_record_is_saved_in_the_finding(planted: Planted) -> None:
    stray_xattr(planted)
    (found,) = planted.findings()
    kept = msgpack.unpackb(found.saved, raw=True)
    assert kept == [[b"xattrs", key(999) + b"user.b", records.encode_blob(b"kept")]]


def test_mending_counts_is_right_after_the_state_has_moved_on(planted: Planted) -> None:
    link_count_of_a_file(planted)
    entry_count(planted)
    mends = [f.mend for f in planted.findings()]
    planted.perform(MakeLink(planted.inode, planted.sub, b"third", ROOT))
    planted.file(b"new", planted.sub)
    for mend in mends:
        planted.command(mend)
    assert planted.findings() == []


def test_a_record_that_has_changed_since_is_left_alone(planted: Planted) -> None:
    dangling_name(planted)
    (mend,) = [f.mend for f in planted.findings()]
    remove_name(planted, planted.sub, b"nowhere")
    before = planted.namespace()
    planted.command(mend)
    assert planted.namespace() == before


def test_a_chunk_s_finding_names_the_range_of_its_file(planted: Planted) -> None:
    planted.put_chunk(1, servers=())
    found = [f for f in planted.findings() if f.kind is Kind.BAD_CHUNK]
    assert [(f.inode, f.offset, f.length_bytes) for f in found] == [
        (planted.inode, CHUNK_BYTES, CHUNK_BYTES)
    ]


def test_every_kind_has_a_severity() -> None:
    assert all(severity_of(kind) is not None for kind in Kind)
