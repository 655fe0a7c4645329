"""Merging sorted pages: the same rows as from whole dictionaries, however the pages are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.check.merging import Pages, merged

LISTING = st.dictionaries(st.integers(1, 60), st.integers(0, 9), max_size=40)


@given(st.lists(LISTING, min_size=1, max_size=4), st.data())
def test_rows_are_those_of_whole_listings(
    listings: list[dict[int, int]], data: st.DataObject
) -> None:
    left = {n: sorted(listing.items()) for n, listing in enumerate(listings)}
    sources: dict[int, Pages[int]] = {n: Pages() for n in left}
    rows: list[tuple[int, dict[int, int]]] = []
    while True:
        for n, pages in sources.items():
            if pages.starved:
                size = data.draw(st.integers(1, 5))
                page, left[n] = left[n][:size], left[n][size:]
                pages.add(page, complete=not left[n])
        rows += merged(sources)
        if all(p.complete and p.next_handle() is None for p in sources.values()):
            break
    handles = sorted(dict.fromkeys(h for listing in listings for h in listing))
    assert rows == [
        (h, {n: listing[h] for n, listing in enumerate(listings) if h in listing}) for h in handles
    ]


def test_no_row_goes_beyond_what_every_source_has_told() -> None:
    sources: dict[str, Pages[str]] = {"a": Pages(), "b": Pages()}
    sources["a"].add([(1, "x"), (9, "y")], complete=True)
    sources["b"].add([(1, "x"), (2, "y")], complete=False)
    assert [h for h, _ in merged(sources)] == [1, 2]
    sources["b"].add([(5, "z")], complete=True)
    assert [h for h, _ in merged(sources)] == [5, 9]


def test_a_source_that_is_given_up_holds_up_nobody() -> None:
    sources: dict[str, Pages[str]] = {"a": Pages(), "b": Pages()}
    sources["a"].add([(1, "x"), (9, "y")], complete=True)
    assert list(merged(sources)) == []
    sources["b"].give_up()
    assert list(merged(sources)) == [(1, {"a": "x"}), (9, {"a": "y"})]


@pytest.mark.parametrize("page", [[(5, "a"), (5, "b")], [(5, "a"), (4, "b")], []])
def test_a_source_that_does_not_keep_to_the_order_is_refused(page: list[tuple[int, str]]) -> None:
    pages: Pages[str] = Pages()
    pages.add([(3, "first")], complete=False)
    with pytest.raises(ValueError, match=r"after|empty page"):
        pages.add(page, complete=False)
