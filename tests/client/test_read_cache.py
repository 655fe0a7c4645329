"""The read cache: never more than its bound, never what has been overwritten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dfs.client.budget import ByteBudget
from dfs.client.read_cache import ReadCache


def test_the_longest_unused_goes_first() -> None:
    cache = ReadCache(300)
    for slot in range(3):
        cache.put(1, slot, slot * 100, bytes([slot]) * 100)
    assert cache.get(1, 0, 0, 10) is not None
    cache.put(1, 3, 300, b"3" * 100)
    assert cache.get(1, 1, 100, 110) is None
    assert cache.get(1, 0, 0, 10) is not None
    assert cache.used_bytes == 300


def test_what_is_being_fetched_counts() -> None:
    cache = ReadCache(300)
    cache.put(1, 0, 0, bytes(200))
    assert cache.reserve(250)
    assert cache.used_bytes == 0
    assert not cache.reserve(100)
    cache.unreserve(250)
    assert cache.reserve(100)


def test_dropping_a_file_leaves_the_others() -> None:
    cache = ReadCache(1000)
    cache.put(1, 0, 0, b"one")
    cache.put(2, 0, 0, b"two")
    cache.drop(1)
    assert cache.get(1, 0, 0, 3) is None
    found = cache.get(2, 0, 0, 3)
    assert found is not None
    assert bytes(found) == b"two"


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 90), st.integers(1, 100)),
        max_size=60,
    )
)
def test_the_cache_never_shows_overwritten_bytes(
    events: list[tuple[bool, int, int, int]],
) -> None:
    cache, truth = ReadCache(250), bytearray(400)
    for number, (write, slot, at, length) in enumerate(events):
        start, stop = slot * 100 + at, min(slot * 100 + at + length, (slot + 1) * 100)
        if write:
            truth[start:stop] = bytes([number + 1]) * (stop - start)
            cache.cut_out(1, slot, start, stop)
        else:
            cache.put(1, slot, start, bytes(truth[start:stop]))
        assert cache.used_bytes <= 250
        for number_of_slot in range(4):
            for low in range(number_of_slot * 100, number_of_slot * 100 + 100, 7):
                for high in (low + 1, number_of_slot * 100 + 100):
                    found = cache.get(1, number_of_slot, low, high)
                    assert found is None or bytes(found) == truth[low:high]


def test_a_budget_is_granted_in_the_order_asked() -> None:
    budget = ByteBudget(100, lambda: None)
    assert budget.try_take(60)
    assert not budget.try_take(50)
    budget.give_back(60)
    assert budget.try_take(500)  # more than the limit, when nothing else is out
    assert not budget.try_take(1)
