"""Dumps: what is read is what was written, or nothing is believed."""

from __future__ import annotations

import stat
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfs.config import Raft
from dfs.errors import Code, Failure
from dfs.runtime import WriteBatch
from dfs.runtime.real import RealEnv
from master import dump
from master import tables as names
from master.dump import Header, Reader
from master.state import queries, records
from master.state.records import Counters, Inode, key
from master.store import Store
from master.tables import STATE_TABLES
from tests.master.state.machine_driver import Driver
from tests.master.state.memory_tables import MemoryTables

HEADER = Header("cluster", 1, 77, 3, 1_000_000_000, members=((1, "a:1"), (2, "b:2")))
PAIRS = st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=60), max_size=12)


def dumped(tables: MemoryTables | Store, frame_bytes: int = 200) -> bytes:
    return b"".join(dump.frames(HEADER, tables, frame_bytes))


def reader_of(data: bytes) -> Reader:
    at = 0

    def read(length_bytes: int) -> bytes:
        nonlocal at
        at += length_bytes
        return data[at - length_bytes : at]

    return Reader(read, "the dump")


def loaded(data: bytes) -> MemoryTables:
    tables = MemoryTables()
    for table, pairs in reader_of(data).batches():
        for k, value in pairs:
            tables.put(table, k, value)
    return tables


def some_tables() -> MemoryTables:
    machine = Driver()
    directory = machine.directory(b"directory")
    for n in range(10):
        machine.allocate(machine.file(b"file %d" % n, directory), 0, 2)
    return machine.tables


@given(st.dictionaries(st.sampled_from(STATE_TABLES), PAIRS), st.integers(1, 300))
def test_a_dump_holds_the_state_and_its_digest(
    content: dict[str, dict[bytes, bytes]], frame_bytes: int
) -> None:
    tables = MemoryTables()
    for table, pairs in content.items():
        for k, value in pairs.items():
            tables.put(table, k, value)
    data = dumped(tables, frame_bytes)
    reader = reader_of(data)
    end = dump.verify(reader)
    assert reader.header == HEADER
    assert end.digest == queries.state_digest(tables)
    assert dict(dump.counts(HEADER, end)) == {t: len(content.get(t, {})) for t in STATE_TABLES}
    assert queries.state_digest(loaded(data)) == end.digest


def test_any_damaged_byte_is_found() -> None:
    data = dumped(some_tables())
    assert len(data) < 10_000
    for at in range(len(data)):
        for damaged in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at]):
            with pytest.raises(Failure) as caught:
                dump.verify(reader_of(damaged))
            assert caught.value.code in (Code.CORRUPT, Code.CONFIG)
            assert "the dump" in caught.value.message


def test_frames_that_are_missing_or_moved_are_found() -> None:
    pieces = list(dump.frames(HEADER, some_tables(), 200))
    assert len(pieces) > 5
    assert dump.verify(reader_of(b"".join(pieces)))
    for damaged in (
        [*pieces[:2], *pieces[3:]],
        [pieces[0], pieces[2], pieces[1], *pieces[3:]],
        [*pieces[:2], *pieces[1:]],
        [pieces[0], *pieces],
        [*pieces, b"x"],
        [*pieces[:-1]],
    ):
        with pytest.raises(Failure) as caught:
            dump.verify(reader_of(b"".join(damaged)))
        assert caught.value.code is Code.CORRUPT


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"a letter to a friend", "is no dump of dfs metadata"),
        (b"DFSMDUMP\0\7" + bytes(100), "of format 7, this program knows 1"),
    ],
)
def test_what_is_no_dump_of_ours_is_told_apart_from_damage(data: bytes, told: str) -> None:
    with pytest.raises(Failure, match=told) as caught:
        reader_of(data)
    assert caught.value.code is Code.CONFIG


def test_a_dump_of_a_newer_program_is_refused_by_name() -> None:
    newer = Header("cluster", 1, 77, 3, 1, tables=(*STATE_TABLES, "colours"), program="9.9")
    tables = MemoryTables()
    tables.tables["colours"] = tables.tables["settings"].copy()
    data = b"".join(dump.frames(newer, tables, 200))
    with pytest.raises(Failure, match=r"newer dfs \(9.9\): it has table 'colours'"):
        reader_of(data)


def test_a_dump_of_an_older_program_has_fewer_tables() -> None:
    older = Header("cluster", 1, 77, 3, 1, tables=STATE_TABLES[:-3])
    tables = some_tables()
    reader = reader_of(b"".join(dump.frames(older, tables, 200)))
    found = {table for table, _ in reader.batches()}
    assert names.INODES in found
    assert names.SETTINGS not in found
    assert reader.end is not None


def test_a_damaged_length_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    data = bytearray(dumped(some_tables()))
    data[11:15] = (dump.FRAME_MAX_BYTES - 1).to_bytes(4, "big")
    path.write_bytes(data)
    file = RealEnv("test").disk.open(str(path))

    def read() -> None:
        with pytest.raises(Failure, match="cut short"):
            Reader(dump.sequential(file), path.name)

    assert peak_bytes(read) < 1 << 20


# -- the size of the state does not matter


INODES = 100_000
FRAME_BYTES = 256 << 10


def many_inodes(first: int, count: int) -> WriteBatch:
    """Inodes with a name each, as the state machine would keep them."""
    batch = WriteBatch()
    for number in range(first, first + count):
        inode = Inode(number, stat.S_IFREG, 1, 0, 0, 0, 0, 1, 2, 3, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0)
        batch.put(names.INODES, key(number), inode.encode())
        entry = records.encode_entry(number, number + 2)
        batch.put(names.DENTRIES, key(1) + b"file number %d" % number, entry)
    counters = Counters(first + count, 1, 1, first + count - 1, 0, 0)
    batch.put(names.COUNTERS, records.COUNTERS_KEY, counters.encode())
    return batch


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Store]:
    """A store with very many inodes, on a real disk."""
    store = Store.open(RealEnv("test"), str(tmp_path / "state.mdb"), Raft())
    for first in range(1, INODES + 1, 5000):
        store.write_now(many_inodes(first, 5000))
    yield store
    store.close()


def peak_bytes(work: Callable[[], object]) -> int:
    """How much memory Python needed for it at the most, beyond what it had."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_large_state_is_dumped_and_read_in_little_memory(large: Store, tmp_path: Path) -> None:
    disk, path = RealEnv("test").disk, str(tmp_path / "dump")

    def write() -> None:
        file, at = disk.open(path, write=True, create=True), 0
        for frame in dump.frames(HEADER, large, FRAME_BYTES):
            file.pwrite([frame], at)
            at += len(frame)
        file.close()

    def read() -> None:
        file = disk.open(path)
        end = dump.verify(Reader(dump.sequential(file), path))
        assert end.records[0] == INODES
        assert end.bytes > 40 * FRAME_BYTES
        file.close()

    assert peak_bytes(write) < 8 * FRAME_BYTES
    assert peak_bytes(read) < 12 * FRAME_BYTES
