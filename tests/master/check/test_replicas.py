"""One chunk against what servers list: each way to be amiss, by itself and in two looks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfs.layout import BLOCK_BYTES, CHUNK_BYTES
from dfs.messages.checking import Severity
from dfs.messages.chunks import ListedReplica, ReplicaState
from master.check.findings import Discard, Found, Kind, Settle, severity_of
from master.check.replicas import Place, Row, Servers, compare, confirmed, same_moment
from master.state.records import Chunk

HANDLE = 7
ZONES = {1: "a", 2: "b", 3: "c", 4: "d"}
SERVERS = Servers(ZONES, next_handle=100)
CHUNK = Chunk(HANDLE, 5, 0, None, 0, fresh=False, wanted=3, servers=(1, 2, 3))
GOOD = ListedReplica(HANDLE, 5, 0, 10 * BLOCK_BYTES, ReplicaState.SETTLED, "/disk")


def row(*servers: int, chunk: Chunk | None = CHUNK, **changes: Any) -> Row:
    """The chunk is the second of inode 30; good replicas on these servers; all four were asked."""
    place = None if chunk is None else Place(30, 1, chunk)
    listed = dict.fromkeys(servers or (1, 2, 3), GOOD)
    return dataclasses.replace(Row(HANDLE, place, listed, frozenset(ZONES)), **changes)


def with_replica(server: int, on: Row | None = None, **changes: Any) -> Row:
    base = on or row()
    changed = dataclasses.replace(base.listed.get(server, GOOD), **changes)
    return dataclasses.replace(base, listed={**base.listed, server: changed})


def damaged(*blocks: int) -> dict[str, Any]:
    bitmap = sum(1 << block for block in blocks)
    return {"damaged_blocks": len(blocks), "damaged": bitmap.to_bytes(128, "big")}


def found(row: Row, servers: Servers = SERVERS) -> list[tuple[str, int]]:
    return [(str(f.kind), f.server) for f in compare(row, servers)]


def test_a_chunk_with_all_its_replicas_is_sound() -> None:
    assert found(row()) == []


@pytest.mark.parametrize(
    ("suspicious", "expected"),
    [
        (row(1, 2), [("missing-replica", 3)]),
        (with_replica(2, version=4), [("stale-replica", 2)]),
        (with_replica(2, version=6), [("newer-replica", 2)]),
        (with_replica(2, state=ReplicaState.UNSETTLED), [("unsettled-replica", 2)]),
        (with_replica(2, state=ReplicaState.LOST), [("unsettled-replica", 2)]),
        (with_replica(2, state=99), [("unsettled-replica", 2)]),
        (with_replica(2, **damaged(3)), [("damaged-replica", 2)]),
        (row(asked=frozenset((1, 2))), [("unreachable-replica", 3)]),
        (row(1, 2, 3, 4), [("surplus-replica", 4)]),
        (row(1, 2, chunk=dataclasses.replace(CHUNK, servers=(1, 2))), [("too-few-copies", 0)]),
        (row(1, chunk=None), [("unknown-replica", 1)]),
        (row(1, chunk=None, handle=100), [("foreign-replica", 1)]),
    ],
)
def test_what_is_amiss_with_a_replica(suspicious: Row, expected: list[tuple[str, int]]) -> None:
    assert found(suspicious) == expected


def test_what_is_under_way_is_nothing_amiss() -> None:
    fresh = dataclasses.replace(CHUNK, fresh=True)
    nothing = dataclasses.replace(row(chunk=fresh), listed={})
    assert found(nothing) == []
    assert found(dataclasses.replace(nothing, asked=frozenset())) == []
    assert found(with_replica(4, state=ReplicaState.JOINING)) == []
    assert found(row(1, 2, 3, 4, doomed=frozenset((4,)))) == []
    assert found(row(1, chunk=None, doomed=frozenset((1,)))) == []


@pytest.mark.parametrize(
    "suspicious",
    [
        dataclasses.replace(row(), listed={}),
        row(asked=frozenset((4,))),
        with_replica(1, with_replica(2, with_replica(3, version=4), version=4), version=4),
    ],
)
def test_a_chunk_without_a_replica_that_serves_is_lost(suspicious: Row) -> None:
    kinds = [f.kind for f in compare(suspicious, SERVERS)]
    assert kinds.count(Kind.LOST_CHUNK) == 1
    assert len(kinds) == 4
    assert severity_of(Kind.LOST_CHUNK) is Severity.DATA


def test_zones_count_only_where_more_of_them_are_possible() -> None:
    assert found(row(), Servers({1: "a", 2: "b", 3: "b", 4: "c"}, 100)) == [("same-zone", 0)]
    assert found(row(), Servers({1: "a", 2: "b", 3: "b", 4: "b"}, 100)) == []
    assert found(row(), Servers(dict.fromkeys((1, 2, 3, 4), "only"), 100)) == []


def test_blocks_damaged_on_one_replica_can_be_mended() -> None:
    (one,) = compare(with_replica(2, **damaged(0, 9)), SERVERS)
    assert one.mend == Settle(HANDLE, 5, 2)
    assert severity_of(one.kind) is Severity.REDUNDANCY


def test_blocks_damaged_everywhere_are_lost_range_by_range() -> None:
    everywhere = row()
    for server in (1, 2, 3):
        everywhere = with_replica(server, everywhere, **damaged(2, 3, 9, server + 4))
    lost = [f for f in compare(everywhere, SERVERS) if f.kind is Kind.DAMAGED_RANGE]
    assert [(f.inode, f.offset, f.length_bytes) for f in lost] == [
        (30, CHUNK_BYTES + 2 * BLOCK_BYTES, 2 * BLOCK_BYTES),
        (30, CHUNK_BYTES + 9 * BLOCK_BYTES, BLOCK_BYTES),
    ]
    assert [f.mend for f in lost] == [None, None]


@given(st.sets(st.integers(0, 9)))
def test_the_ranges_are_exactly_the_damaged_blocks(blocks: set[int]) -> None:
    alone = dataclasses.replace(CHUNK, servers=(1,), wanted=1)
    suspicious = with_replica(1, row(1, chunk=alone), **damaged(*sorted(blocks)))
    covered: list[int] = []
    for f in compare(suspicious, SERVERS):
        if f.kind is Kind.DAMAGED_RANGE:
            first = (f.offset - CHUNK_BYTES) // BLOCK_BYTES
            covered += range(first, first + f.length_bytes // BLOCK_BYTES)
    assert covered == sorted(blocks)


def test_verified_replicas_must_agree_and_be_readable() -> None:
    verified = dataclasses.replace(row(), verified=True)
    for server, digest in ((1, "aa"), (2, "aa"), (3, "bb")):
        verified = with_replica(server, verified, digest=digest)
    assert found(verified) == [("differing-replica", 3)]
    assert found(with_replica(3, verified, digest="aa")) == []
    assert found(with_replica(3, verified, digest="")) == [("missing-replica", 3)]


def test_surplus_is_left_to_the_server_s_grace() -> None:
    (surplus,) = compare(row(1, 2, 3, 4), SERVERS)
    assert surplus.mend == Discard(HANDLE, 4)
    (foreign,) = compare(row(1, chunk=None, handle=100), SERVERS)
    assert foreign.mend is None


# -- two looks


def both(before: Row, after: Row) -> list[Found]:
    return confirmed(before, after, SERVERS)


def test_what_both_looks_show_is_confirmed() -> None:
    assert [f.kind for f in both(row(1, 2), row(1, 2))] == [Kind.MISSING_REPLICA]
    assert both(row(1, 2), row()) == []
    assert both(row(1, 2), row(1, 3)) == []


def test_a_moving_chunk_is_not_judged() -> None:
    assert same_moment(row(1, 2), row(1, 2))
    assert not same_moment(row(1, 2), row())
    raised = dataclasses.replace(CHUNK, version=6)
    assert not same_moment(row(1, 2), row(1, 2, chunk=raised))
    assert not same_moment(row(1, 2), row(1, 2, chunk=None))
    assert same_moment(row(), with_replica(1, digest="aa"))


def test_contents_that_are_being_written_differ_for_a_moment_only() -> None:
    one = with_replica(1, with_replica(2, row(), digest="aa"), digest="bb")
    other = with_replica(1, one, digest="cc")
    assert [f.kind for f in both(one, one)] == [Kind.DIFFERING_REPLICA]
    assert both(one, other) == []
