"""The plan of a settling: pure decisions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chunkserver.comparison import Cure, Table, cures, missing, runs
from chunkserver.format import ZERO_BLOCK_CHECKSUM, block_count
from dfs.layout import BLOCK_BYTES
from dfs.messages.chunks import ReplicaState


def table(
    *entries: int,
    address: str = "peer",
    length_bytes: int | None = None,
    state: ReplicaState = ReplicaState.UNSETTLED,
    damaged: tuple[int, ...] = (),
    doubtful: tuple[int, ...] = (),
) -> Table:
    length = len(entries) * BLOCK_BYTES if length_bytes is None else length_bytes
    return Table(address, 0, length, state, entries, frozenset(damaged), frozenset(doubtful))


def test_what_differs_is_missing_and_what_is_alike_is_not() -> None:
    assert missing(table(1, 2, 3), table(1, 9, 3)) == [1]
    assert missing(table(1, 2, 3), table(1)) == [1, 2]
    assert missing(table(1), table(1, 2, 3)) == []
    assert missing(table(1, 2), table(1, 2, damaged=(0,))) == [0]


def test_a_short_last_block_is_missing_where_the_extents_differ() -> None:
    assert missing(table(1, 2, length_bytes=BLOCK_BYTES + 5), table(1, 2)) == [1]


def test_damage_of_the_source_does_not_travel() -> None:
    assert missing(table(1, 2, 3, damaged=(1,)), table()) == [0, 2]


def test_zeros_beyond_the_peers_end_do_not_travel_but_make_the_length() -> None:
    zero = ZERO_BLOCK_CHECKSUM
    assert missing(table(1, zero, zero, 4), table(1)) == [3]
    assert missing(table(1, zero, zero), table(1)) == [2]
    assert missing(table(1, zero), table(1, 5)) == [1]


def test_a_damaged_block_is_cured_by_a_complete_replica() -> None:
    own = table(1, 2, damaged=(1,))
    good, joining = table(1, 7, address="a"), table(1, 2, address="b", state=ReplicaState.JOINING)
    assert list(cures(own, [joining, good])) == [Cure(1, BLOCK_BYTES, ("a",))]
    assert list(cures(own, [joining])) == [Cure(1, BLOCK_BYTES, ("b",))]
    assert list(cures(own, [table(1, 2, damaged=(1,))])) == []
    assert list(cures(own, [table(1)])) == []


def test_a_doubtful_block_is_cured_only_where_a_complete_replica_has_it_otherwise() -> None:
    own = table(1, 2, doubtful=(1,))
    assert list(cures(own, [table(1, 7, address="a")])) == [Cure(1, BLOCK_BYTES, ("a",))]
    assert list(cures(own, [table(1, 2)])) == []
    assert list(cures(own, [table(1, 7, doubtful=(1,))])) == []
    assert list(cures(own, [table(1, 7, state=ReplicaState.JOINING)])) == []


@given(
    st.sets(st.integers(0, 40)), st.integers(1, 5 * BLOCK_BYTES), st.integers(0, BLOCK_BYTES - 1)
)
def test_runs_cover_exactly_the_blocks(blocks: set[int], limit: int, short: int) -> None:
    length = 41 * BLOCK_BYTES - short
    found: list[int] = []
    for offset, size in runs(sorted(blocks), length, limit):
        assert size <= max(limit, BLOCK_BYTES)
        first = offset // BLOCK_BYTES
        found += range(first, block_count(offset + size))
    assert found == sorted(blocks)
