"""Chunks: allocation, replicas, cuts, truncation small and large."""

from __future__ import annotations

import random

from dfs.errors import Code
from dfs.layout import CHUNK_BYTES, ROOT_INODE
from dfs.messages.common import ROOT, Refused
from dfs.messages.metadata import ChunkMap, Replica
from dfs.messages.operations import AllocateChunks, CommitWrite, DropReplicas
from master.commands import ForgetDeletions, SetServer
from master.state import chunkmap, queries
from master.state.chunks import DROPS_AT_ONCE
from tests.master.state import invariants
from tests.master.state.machine_driver import Driver

FULL = ((1, 2, 3),)


def indexes(chunks: ChunkMap) -> list[int]:
    return [chunk.index for chunk in chunks.chunks]


def test_new_chunks_take_the_next_replicas_and_fresh_handles(machine: Driver) -> None:
    machine.command(SetServer(1, "one:1", "z"))
    inode = machine.file(b"f")
    answer = machine.perform(AllocateChunks(inode, 5, 2, (), ((1, 2), (2, 3))))
    first, second = answer.chunks
    assert (first.index, first.handle, first.version, first.generation) == (5, 1, 1, 0)
    assert first.replicas == (Replica(1, "one:1"), Replica(2, ""))
    assert first.cut_bytes is None
    assert (second.index, second.handle) == (6, 2)
    assert [r.server for r in second.replicas] == [2, 3]
    assert machine.chunks(inode) == answer
    assert queries.chunk_by_handle(machine.tables, 2) is not None
    invariants.check(machine.tables)


def test_chunks_that_are_there_are_answered_as_they_are(machine: Driver) -> None:
    inode = machine.file(b"f")
    before = machine.perform(AllocateChunks(inode, 1, 1, (), FULL))
    answer = machine.perform(AllocateChunks(inode, 0, 3, (), ((4,), (5,), (6,))))
    assert [r.server for c in answer.chunks for r in c.replicas] == [4, 1, 2, 3, 5]
    assert answer.chunks[1] == before.chunks[0]
    assert queries.counts(machine.tables).chunks == 3


def test_too_few_replicas_are_refused_and_the_number_may_be_tried_again(machine: Driver) -> None:
    inode = machine.file(b"f")
    refused = machine.submit(50, AllocateChunks(inode, 0, 2, (), FULL))
    assert isinstance(refused, Refused)
    assert refused.code == Code.UNAVAILABLE
    assert machine.chunks(inode).chunks == ()
    answer = machine.submit(50, AllocateChunks(inode, 0, 2, (), FULL * 2))
    assert indexes(answer) == [0, 1]


def test_allocations_that_cannot_be(machine: Driver) -> None:
    inode = machine.file(b"f")
    last = chunkmap.INDEX_END - 1
    for first, count, expected in [
        (-1, 1, "EINVAL"),
        (0, -1, "EINVAL"),
        (0, 5000, "EINVAL"),
        (last, 2, "EFBIG"),
        (2**64 - 1, 1, "EFBIG"),
    ]:
        replicas = FULL * max(count, 0)
        assert machine.fails(AllocateChunks(inode, first, count, (), replicas)) == expected
    for servers in ((), (1, 1), (-1,), (2**32,), tuple(range(17))):
        assert machine.fails(AllocateChunks(inode, 0, 1, (), (servers,))) == "EPROTO"
    assert machine.fails(AllocateChunks(ROOT_INODE, 0, 1, (), FULL)) == "EISDIR"
    assert machine.fails(AllocateChunks(4711, 0, 1, (), FULL)) == "ENOENT"
    assert indexes(machine.allocate(inode, last, 1)) == [last]


def test_allocated_bytes_follow_chunks_and_size(machine: Driver) -> None:
    inode = machine.file(b"f")
    assert machine.set(inode, size_bytes=10 * CHUNK_BYTES).allocated_bytes == 0
    machine.allocate(inode, 3, 1)
    assert machine.attributes(inode).allocated_bytes == CHUNK_BYTES
    assert machine.set(inode, size_bytes=0).allocated_bytes == 0
    machine.allocate(inode, 0, 1)
    machine.done(CommitWrite(inode, 1000, ROOT))
    assert machine.attributes(inode).allocated_bytes == 1024


# -- replicas


def test_failed_replicas_leave_the_set_and_raise_the_version(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 1)
    answer = machine.perform(DropReplicas(inode, 0, 1, 1, (2, 9)))
    (chunk,) = answer.chunks
    assert (chunk.version, [r.server for r in chunk.replicas]) == (2, [1, 3])
    assert queries.replica_version(machine.tables, 1, 1) == 2
    assert queries.replica_version(machine.tables, 1, 2) is None
    assert machine.doomed(2, 10) == (1,)
    invariants.check(machine.tables)


def test_a_second_report_of_the_same_failure_changes_nothing(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 1)
    first = machine.perform(DropReplicas(inode, 0, 1, 1, (2,)))
    before = machine.namespace()
    for operation in (
        DropReplicas(inode, 0, 1, 1, (2,)),
        DropReplicas(inode, 0, 1, 1, (3,)),
        DropReplicas(inode, 0, 99, 2, (3,)),
        DropReplicas(inode, 0, 1, 2, (9,)),
        DropReplicas(inode, 0, 1, 2, ()),
        DropReplicas(inode, 0, 1, 2, (1, 3)),
    ):
        assert machine.perform(operation) == first
    assert machine.perform(DropReplicas(inode, 7, 1, 2, (1,))).chunks == ()
    assert machine.namespace() == before


def test_deletions_are_remembered_until_they_are_done(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 3, servers=2)
    machine.set(inode, size_bytes=0)
    assert machine.doomed(1, 2) == ()  # the file was empty: nothing to cut
    machine.done(CommitWrite(inode, 3 * CHUNK_BYTES, ROOT))
    machine.set(inode, size_bytes=0)
    assert machine.doomed(1, 2) == (1, 2)
    assert machine.doomed(1, 10) == (1, 2, 3)
    machine.command(ForgetDeletions(1, (1, 3, 77)))
    assert machine.doomed(1, 10) == (2,)
    assert machine.doomed(2, 10) == (1, 2, 3)
    assert machine.doomed(-1, 10) == ()


def test_under_replicated_chunks_are_counted(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 5)
    machine.perform(AllocateChunks(inode, 5, 1, (), ((4, 5),)))
    tables = machine.tables
    assert queries.under_replicated(tables, (1, 2, 3, 4, 5)) == 0
    assert queries.under_replicated(tables, (1, 2, 4, 5)) == 5
    assert queries.under_replicated(tables, ()) == 6
    assert queries.under_replicated(tables, (1, 2, 3, 4, 5), copies=3) == 1


def test_last_copies_and_chunks_without_a_living_copy_are_told_apart(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 5)
    machine.perform(AllocateChunks(inode, 5, 1, (), ((4, 5),)))
    machine.perform(AllocateChunks(inode, 6, 2, (), ((4,), (4,)), wanted=1))
    for alive, lacks in (
        ((1, 2, 3, 4, 5), queries.Redundancy(0, 0, 0)),
        ((1, 2, 4), queries.Redundancy(6, 1, 0)),
        ((1, 4, 5), queries.Redundancy(5, 5, 0)),
        ((1, 2, 3), queries.Redundancy(3, 0, 3)),
        ((), queries.Redundancy(8, 0, 8)),
    ):
        assert queries.redundancy(machine.tables, alive) == lacks


def test_a_chunk_for_which_servers_lacked_counts_as_under_replicated(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.perform(AllocateChunks(inode, 0, 1, (), ((1, 2),), wanted=3))
    assert queries.under_replicated(machine.tables, (1, 2)) == 1


# -- cuts


def test_truncate_inside_a_chunk_leaves_a_cut_pending(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 2)
    machine.done(CommitWrite(inode, 2 * CHUNK_BYTES, ROOT))
    machine.set(inode, size_bytes=CHUNK_BYTES + 100)
    machine.set(inode, size_bytes=CHUNK_BYTES + 200)  # growing leaves it pending
    second = machine.chunks(inode).chunks[1]
    assert (second.generation, second.cut_bytes) == (1, 100)
    machine.set(inode, size_bytes=CHUNK_BYTES + 150)  # beyond the cut: zeros are there already
    second = machine.chunks(inode).chunks[1]
    assert (second.generation, second.cut_bytes) == (2, 100)
    machine.set(inode, size_bytes=CHUNK_BYTES)
    assert indexes(machine.chunks(inode)) == [0]
    assert machine.chunks(inode).chunks[0].cut_bytes is None
    invariants.check(machine.tables)


def test_a_commit_ends_the_cuts_that_it_names_unless_cut_again(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 1)
    machine.done(CommitWrite(inode, 1000, ROOT))
    machine.set(inode, size_bytes=500)
    machine.done(CommitWrite(inode, 600, ROOT))
    assert machine.chunks(inode).chunks[0].cut_bytes == 500
    machine.set(inode, size_bytes=400)
    machine.done(CommitWrite(inode, 600, ROOT, cuts=(0, 1)))
    assert machine.chunks(inode).chunks[0].cut_bytes == 400
    machine.done(CommitWrite(inode, 600, ROOT, cuts=(0, 2, 7, 1)))
    chunk = machine.chunks(inode).chunks[0]
    assert (chunk.cut_bytes, chunk.generation) == (None, 2)


def test_a_chunk_is_fresh_until_a_commit_names_it(machine: Driver) -> None:
    inode = machine.file(b"f")
    first, second = machine.allocate(inode, 0, 2).chunks
    assert (first.fresh, second.fresh) == (True, True)
    machine.done(CommitWrite(inode, 10, ROOT))
    machine.done(CommitWrite(inode, 10, ROOT, written=(0, second.handle, 5, 1)))
    assert [c.fresh for c in machine.chunks(inode).chunks] == [True, True]
    machine.done(CommitWrite(inode, 10, ROOT, written=(0, first.handle)))
    assert [c.fresh for c in machine.chunks(inode).chunks] == [False, True]
    assert machine.fails(CommitWrite(inode, 10, ROOT, written=(0,))) == "EINVAL"


# -- growing


def test_a_file_that_grows_is_cut_at_its_old_end_first(machine: Driver) -> None:
    """A client may have written beyond it and died."""
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 3)
    machine.done(CommitWrite(inode, 1000, ROOT))
    machine.set(inode, size_bytes=5 * CHUNK_BYTES)
    assert indexes(machine.chunks(inode)) == [0]
    first = machine.chunks(inode).chunks[0]
    assert (first.generation, first.cut_bytes) == (1, 1000)
    assert [h for h, _ in queries.deletions(machine.tables, 1, 10)] == [2, 3]
    machine.set(inode, size_bytes=6 * CHUNK_BYTES)
    assert machine.chunks(inode).chunks == (first,)
    invariants.check(machine.tables)


def test_an_empty_file_that_grows_has_no_chunks(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 2)
    machine.set(inode, size_bytes=1000)
    assert machine.chunks(inode).chunks == ()


def test_a_tail_that_may_be_of_use_is_kept(machine: Driver) -> None:
    inode = machine.file(b"f")
    before = machine.allocate(inode, 0, 2).chunks
    machine.done(CommitWrite(inode, 1000, ROOT))
    machine.set(inode, size_bytes=2000, keep_tail=True)
    assert machine.chunks(inode).chunks == before
    machine.set(inode, size_bytes=500, keep_tail=True)  # that is a cut, all the same
    assert machine.chunks(inode).chunks[0].cut_bytes == 500
    assert indexes(machine.chunks(inode)) == [0]


def test_growing_only_leaves_a_longer_file_alone(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 1)
    machine.done(CommitWrite(inode, 1000, ROOT))
    before = machine.attributes(inode)
    for size in (0, 999, 1000):
        after = machine.set(inode, size_bytes=size, grow_only=True)
        assert (after.size_bytes, after.data_version) == (1000, before.data_version)
        assert after.mtime_ns == before.mtime_ns
    assert machine.chunks(inode).chunks[0].cut_bytes is None
    assert machine.set(inode, size_bytes=1001, grow_only=True).size_bytes == 1001
    assert machine.chunks(inode).chunks[0].cut_bytes == 1000


# -- large truncates


def huge_file(machine: Driver, chunks: int) -> int:
    inode = machine.file(b"huge")
    for first in range(0, chunks, 1000):
        machine.allocate(inode, first, min(1000, chunks - first))
    machine.done(CommitWrite(inode, chunks * CHUNK_BYTES, ROOT))
    return inode


def test_a_huge_truncate_is_atomic_and_bounded(machine: Driver) -> None:
    inode = huge_file(machine, 4000)
    before = machine.tables.writes
    machine.set(inode, size_bytes=100 * CHUNK_BYTES + 1)
    assert machine.tables.writes - before < 20
    assert indexes(machine.chunks(inode)) == list(range(101))
    invariants.check(machine.tables)
    passes = 0
    while queries.orphans(machine.tables, 10):
        machine.reap(500)
        passes += 1
        assert indexes(machine.chunks(inode)) == list(range(101))
        invariants.check(machine.tables)
    assert passes == 8  # the last one finds the end
    assert queries.counts(machine.tables).chunks == 101
    assert machine.doomed(1, 1) == (102,)


def test_chunks_allocated_after_a_huge_truncate_survive_its_reaping(machine: Driver) -> None:
    inode = huge_file(machine, 1000)
    machine.set(inode, size_bytes=0)
    assert indexes(machine.allocate(inode, 200, 300)) == list(range(200, 500))
    machine.done(CommitWrite(inode, 500 * CHUNK_BYTES, ROOT))
    machine.set(inode, size_bytes=700 * CHUNK_BYTES)
    machine.set(inode, size_bytes=250 * CHUNK_BYTES)  # again more than is dropped at once
    machine.allocate(inode, 260, 1)
    expected = [*range(200, 250), 260]
    assert indexes(machine.chunks(inode)) == expected
    while queries.orphans(machine.tables, 10):
        machine.reap(100)
        invariants.check(machine.tables)
        assert indexes(machine.chunks(inode)) == expected


def test_a_file_unlinked_with_a_trim_pending_is_reaped_wholly(machine: Driver) -> None:
    inode = huge_file(machine, 500)
    machine.set(inode, size_bytes=0)
    machine.remove(b"huge")
    while queries.orphans(machine.tables, 10):
        machine.reap(100)
        invariants.check(machine.tables)
    assert queries.counts(machine.tables).chunks == 0


def test_any_sequence_of_truncates_and_allocations_shows_what_a_plain_map_would(
    machine: Driver,
) -> None:
    """Against a set of indexes, small and large, with reaping at any time."""
    choose = random.Random(1)
    inode, model = machine.file(b"f"), set[int]()
    for _ in range(300):
        step = choose.randrange(4)
        at = choose.randrange(1500)
        if step == 0:
            machine.set(inode, size_bytes=at * CHUNK_BYTES)
            model = {index for index in model if index < at}
        elif step < 3:
            count = choose.randrange(1, 3 * DROPS_AT_ONCE)
            machine.allocate(inode, at, count)
            machine.done(CommitWrite(inode, (at + count) * CHUNK_BYTES, ROOT))
            model |= set(range(at, at + count))
        else:
            machine.reap(choose.randrange(1, 200))
        assert indexes(machine.chunks(inode)) == sorted(model)
    invariants.check(machine.tables)


def test_dead_chunks_are_known_by_handle_until_they_are_reaped(machine: Driver) -> None:
    inode = huge_file(machine, 300)
    machine.set(inode, size_bytes=0)
    assert queries.replica_version(machine.tables, 5, 1) == 1
    machine.reap()
    assert queries.replica_version(machine.tables, 5, 1) is None
    assert queries.replica_version(machine.tables, 2**64, 1) is None
