"""Where to look for the leader."""

from __future__ import annotations

from dfs.known_masters import KnownMasters


def test_what_was_told_comes_first_and_the_configured_stay() -> None:
    known = KnownMasters(("a", "b"))
    assert known.learn(("b", "c"))
    assert known.all == ("b", "c", "a")


def test_the_same_members_in_any_order_are_not_new() -> None:
    known = KnownMasters(("a", "b"))
    assert not known.learn(("b", "a"))
    assert known.all == ("a", "b")


def test_each_is_asked_in_turn_and_a_stranger_leads_to_the_first() -> None:
    known = KnownMasters(("a", "b"))
    assert [known.after(address) for address in ("a", "b", "gone")] == ["b", "a", "a"]
