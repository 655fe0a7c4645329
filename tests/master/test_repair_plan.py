"""What a replica set lacks and the next step that mends it: decisions without a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.fleet import ServerView
from master.repair_plan import (
    Copy,
    Needs,
    Remove,
    RepairClass,
    Shift,
    classify,
    find_shift,
    is_taken,
    is_unreadable,
    may_shift,
    plan,
)

GIB = 1 << 30
SIZE = 1 << 26
Change = Callable[[ServerView], ServerView]


def server(number: int, zone: str = "a", free: int = 50, **more: object) -> ServerView:
    view = ServerView(number, zone, True, True, False, False, False, True, 100 * GIB, free * GIB)
    return replace(view, **more)  # type: ignore[arg-type]


def dead(number: int, zone: str = "a", *, lost: bool = True) -> ServerView:
    return ServerView(number, zone, False, False, lost, False, False, False)


def draining(number: int, zone: str = "a", free: int = 50) -> ServerView:
    return server(number, zone, free, draining=True, takes=False)


def fleet_of(*views: ServerView) -> dict[int, ServerView]:
    return {v.id: v for v in views}


def needs(*servers: int, wanted: int = 3, **more: object) -> Needs:
    return replace(Needs(wanted, servers, SIZE), **more)  # type: ignore[arg-type]


def step(chunk: Needs, *views: ServerView) -> Copy | Remove | None:
    return plan(chunk, fleet_of(*views), copies_per_server=2)


def test_a_whole_set_needs_nothing() -> None:
    views = [server(n) for n in (1, 2, 3, 4)]
    assert classify(needs(1, 2, 3), fleet_of(*views)) is None
    assert step(needs(1, 2, 3), *views) is None


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ((server(1), server(2), dead(3, lost=False)), None),
        ((server(1), server(2), dead(3)), RepairClass.UNDER_REPLICATED),
        ((server(1), dead(2, lost=False), dead(3, lost=False)), RepairClass.ENDANGERED),
        ((server(1), dead(2), dead(3)), RepairClass.ENDANGERED),
        ((dead(1), dead(2), dead(3)), None),
        ((server(1), server(2), draining(3)), RepairClass.DRAINING),
        ((server(1), draining(2), dead(3)), RepairClass.UNDER_REPLICATED),
    ],
)
def test_the_class_of_a_set(views: tuple[ServerView, ...], expected: RepairClass | None) -> None:
    fleet = fleet_of(*views, server(4))
    assert classify(needs(1, 2, 3), fleet) == expected
    assert is_unreadable(needs(1, 2, 3), fleet) == (not any(v.alive for v in views))


def test_a_dead_server_is_replaced_and_then_removed() -> None:
    views = (server(1), server(2), dead(3), server(4))
    assert step(needs(1, 2, 3), *views) == Copy(4, (1, 2))
    assert step(needs(1, 2, 3, 4), *views) == Remove((3,))


def test_a_drained_server_is_removed_only_when_its_replacement_serves() -> None:
    views = (server(1), server(2), draining(3), server(4))
    assert step(needs(1, 2, 3), *views) == Copy(4, (1, 2, 3))
    assert step(needs(1, 2, 3, 4), *views) == Remove((3,))
    assert step(needs(1, 2, 3, 4, missing=(4,)), *views) == Copy(4, (1, 2, 3))
    assert step(needs(1, 2, 3, 4, behind=(4,)), *views) is None
    assert step(needs(1, 2, 3), server(1), server(2), draining(3)) is None, "there is nowhere to go"


def test_an_endangered_chunk_is_copied_although_the_others_may_come_back() -> None:
    away = dead(2, lost=False)
    assert step(needs(1, 2, wanted=2), server(1), away, server(4)) == Copy(4, (1,))
    # They did: now there is one too many.
    back = (server(1), server(2, free=10), server(4))
    assert step(needs(1, 2, 4, wanted=2), *back) == Remove((2,))
    # They did not, and there is enough without them.
    assert step(needs(1, 2, 4, wanted=2), server(1), away, server(4)) == Remove((2,))


def test_surplus_waits_until_enough_are_alive() -> None:
    away = (dead(2, lost=False), dead(3, lost=False))
    assert step(needs(1, 2, 3, 4), server(1), *away, server(4)) is None


def test_of_too_many_a_twin_in_a_zone_goes_first_then_the_fullest() -> None:
    views = (server(1, "a", 90), server(2, "b", 10), server(3, "c"), server(4, "a", 80))
    assert step(needs(1, 2, 3, 4), *views) == Remove((4,))
    alike = (server(1, free=90), server(2, free=10), server(3), server(4))
    assert step(needs(1, 2, 3, 4), *alike) == Remove((2,))


def test_two_in_one_zone_are_parted_when_another_has_room() -> None:
    views = (server(1, "a"), server(2, "a", 40), server(3, "b"))
    assert step(needs(1, 2, 3), *views, server(4, "b")) is None
    apart = (*views, server(4, "c"))
    assert classify(needs(1, 2, 3), fleet_of(*apart)) == RepairClass.MISPLACED
    assert step(needs(1, 2, 3), *apart) == Copy(4, (1, 2, 3))
    assert step(needs(1, 2, 3, 4), *apart) == Remove((2,))
    assert step(needs(1, 3, 4), *apart) is None


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (server(5, "z", 10), server(4, "a", 90)),
        (server(5, free=90), server(4, free=10)),
        (server(5, free=80), server(4, free=90, copies=1)),
        (server(5), server(4, takes=False)),
        (server(5), server(4, copies=2)),
        (server(5), draining(4)),
        (server(5), replace(server(4), free_bytes=SIZE)),
    ],
)
def test_the_better_target(better: ServerView, worse: ServerView) -> None:
    found = step(needs(1, 2, 3), server(1), server(2), dead(3), worse, better)
    assert found == Copy(better.id, (1, 2))


def test_an_older_replica_is_caught_up_rather_than_another_made() -> None:
    views = (server(1), server(2), dead(3), server(4, free=90), server(5, free=10))
    assert step(needs(1, 2, 3, stale=(5,)), *views) == Copy(5, (1, 2))
    assert step(needs(1, 2, 3, stale=(5,), avoid=(5,)), *views) == Copy(4, (1, 2))


def test_a_member_without_its_replica_gets_it_again_or_is_replaced() -> None:
    views = (server(1), server(2), server(3), server(4, free=90))
    assert step(needs(1, 2, 3, missing=(3,)), *views) == Copy(3, (1, 2))
    full = (server(1), server(2), server(3, takes=False), server(4))
    assert step(needs(1, 2, 3, missing=(3,)), *full) == Copy(4, (1, 2))
    assert step(needs(1, 2, 3, 4, missing=(3,)), *full) == Remove((3,))


def test_a_chunk_leaves_a_single_server() -> None:
    views = (server(1), server(2), server(3), server(4))
    assert step(needs(1, 2, 3, leaving=(2,)), *views) == Copy(4, (1, 2, 3))
    assert step(needs(1, 2, 3, 4, leaving=(2,)), *views) == Remove((2,))
    assert step(needs(1, 2, wanted=2, leaving=(2,), behind=(2,)), *views) == Copy(3, (1,))


def test_a_set_shows_whether_a_step_was_taken() -> None:
    assert is_taken(Copy(3, (1,)), (1, 2, 3))
    assert not is_taken(Copy(3, (1,)), (1, 2))
    assert is_taken(Remove((3, 4)), (1, 2))
    assert not is_taken(Remove((3, 4)), (1, 4))


def test_busy_sources_make_a_copy_wait() -> None:
    busy = [server(n, copies=2) for n in (1, 2)]
    assert step(needs(1, 2, 3), *busy, dead(3), server(4)) is None
    assert step(needs(1, 2, 3), server(1, copies=1), server(2), dead(3), server(4)) == Copy(
        4, (2, 1)
    )


VIEWS = st.builds(
    ServerView,
    id=st.just(0),
    zone=st.sampled_from("abc"),
    alive=st.booleans(),
    ready=st.booleans(),
    lost=st.booleans(),
    draining=st.booleans(),
    excused=st.just(False),
    takes=st.booleans(),
    total_bytes=st.just(100 * GIB),
    free_bytes=st.integers(0, 100).map(lambda n: n * GIB),
    copies=st.integers(0, 2),
)


def consistent(number: int, view: ServerView) -> ServerView:
    alive = view.alive
    return replace(
        view,
        id=number,
        ready=view.ready and alive,
        lost=view.lost and not alive,
        takes=view.takes and view.ready and alive and not view.draining,
    )


@given(
    st.lists(VIEWS, min_size=1, max_size=7),
    st.integers(1, 4),
    st.sets(st.integers(1, 7), min_size=1, max_size=4),
    st.sets(st.integers(1, 7), max_size=1),
    st.sets(st.integers(1, 7), max_size=1),
)
def test_no_step_ever_lowers_the_copies_that_serve(
    views: list[ServerView], wanted: int, servers: set[int], missing: set[int], leaving: set[int]
) -> None:
    fleet = {n: consistent(n, v) for n, v in enumerate(views, 1)}
    chunk = needs(*sorted(servers), wanted=wanted, missing=missing, leaving=leaving)
    found = step(chunk, *fleet.values())
    serving = [s for s in servers if s in fleet and fleet[s].alive and s not in missing]
    if isinstance(found, Remove):
        left = [s for s in serving if s not in found.servers]
        assert len(left) >= wanted
        assert set(found.servers) < servers
    elif isinstance(found, Copy):
        assert found.target not in serving
        assert fleet[found.target].takes
        assert set(found.sources) <= set(serving)
        assert found.sources


@given(
    st.lists(VIEWS, min_size=3, max_size=6),
    st.integers(1, 3),
    st.sets(st.integers(1, 6), min_size=1, max_size=3),
)
def test_repair_comes_to_an_end(views: list[ServerView], wanted: int, servers: set[int]) -> None:
    """Steps carried out one after the other lead to a set that needs none, and stay there."""
    fleet = {n: replace(consistent(n, v), copies=0) for n, v in enumerate(views, 1)}
    members = tuple(sorted(servers))
    for _ in range(12):
        found = plan(needs(*members, wanted=wanted), fleet, 2)
        if found is None:
            return
        if isinstance(found, Copy):
            members = (*members, found.target)
        else:
            members = tuple(s for s in members if s not in found.servers)
    raise AssertionError(f"it goes on and on: {members}")


# -- rebalancing


def test_servers_are_evened_out_and_then_left_alone() -> None:
    """Chunk by chunk, without ever going back, until all are within the band."""
    used = {1: 900, 2: 100, 3: 500}  # of 1000 chunks
    moves: list[Shift] = []
    while True:
        fleet = fleet_of(
            *(replace(server(n), total_bytes=1000, free_bytes=1000 - u) for n, u in used.items())
        )
        shift = find_shift(fleet, 1, band=0.05)
        if shift is None:
            break
        moves.append(shift)
        used[shift.source] -= 1
        used[shift.target] += 1
    assert max(used.values()) - min(used.values()) <= 50
    assert len(moves) < 420
    assert {(m.source, m.target) for m in moves}.isdisjoint({(2, 1), (3, 1), (2, 3)})


def test_what_is_under_way_counts() -> None:
    fleet = fleet_of(server(1, free=20), server(2, free=80))
    assert find_shift(fleet, SIZE, 0.05) == Shift(1, 2)
    moved = {n: replace(v, moved_bytes=(2 * n - 3) * 29 * GIB) for n, v in fleet.items()}
    assert find_shift(moved, SIZE, 0.05) is None


def test_a_large_chunk_does_not_go_back_and_forth() -> None:
    fleet = fleet_of(server(1, free=40), server(2, free=50))
    assert find_shift(fleet, 6 * GIB, 0.05) is None


def test_a_shift_keeps_zones_apart_and_touches_only_whole_sets() -> None:
    fleet = fleet_of(server(1, "a", 10), server(2, "b"), server(3, "c"), server(4, "b", 90))
    assert not may_shift(Shift(1, 4), needs(1, 2, 3), fleet)
    assert may_shift(Shift(2, 4), needs(1, 2, 3), fleet)
    assert not may_shift(Shift(2, 4), needs(1, 3), fleet)
    assert not may_shift(Shift(2, 4), needs(1, 2, 3, 4), fleet)
    assert not may_shift(Shift(4, 2), needs(1, 2, 3), fleet)
