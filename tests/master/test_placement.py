"""Placement of new chunks: zones first, then space and load, never a server to be avoided."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from master.placement import Candidate, choose

GIB = 1 << 30

candidates = st.lists(
    st.builds(
        Candidate,
        server=st.integers(1, 50),
        zone=st.sampled_from(["a", "b", "c"]),
        free_bytes=st.integers(0, 1 << 45),
        recent=st.integers(0, 1000),
    ),
    unique_by=lambda c: c.server,
    max_size=10,
)


def flat(count: int) -> list[float]:
    return [0.5] * count


@given(candidates, st.integers(1, 5), st.sets(st.integers(1, 50)), st.data())
def test_chooses_distinct_allowed_servers_and_as_many_as_there_are(
    servers: list[Candidate], count: int, avoid: set[int], data: st.DataObject
) -> None:
    jitters = [data.draw(st.floats(0, 1, exclude_max=True)) for _ in servers]
    chosen = choose(servers, count, avoid, jitters)
    allowed = [c.server for c in servers if c.server not in avoid]
    assert len(chosen) == len(frozenset(chosen)) == min(count, len(allowed))
    assert all(server in allowed for server in chosen)


@given(candidates, st.integers(1, 5))
def test_two_replicas_share_a_zone_only_when_there_is_no_other_zone(
    servers: list[Candidate], count: int
) -> None:
    chosen = choose(servers, count, (), flat(len(servers)))
    zone_of = {c.server: c.zone for c in servers}
    used = [zone_of[s] for s in chosen]
    zones = len(frozenset(zone_of.values()))
    assert len(frozenset(used)) == min(len(chosen), zones)


def test_prefers_free_space() -> None:
    servers = [Candidate(1, "a", 1 * GIB, 0), Candidate(2, "a", 9 * GIB, 0)]
    assert choose(servers, 1, (), flat(2)) == (2,)


def test_spreads_what_was_given_out_lately() -> None:
    servers = [Candidate(1, "a", 10 * GIB, 5), Candidate(2, "a", 9 * GIB, 0)]
    assert choose(servers, 1, (), flat(2)) == (2,)


def test_equal_servers_take_turns_at_being_primary() -> None:
    servers = [Candidate(1, "a", GIB, 0), Candidate(2, "a", GIB, 0)]
    assert choose(servers, 2, (), [0.9, 0.1]) == (1, 2)
    assert choose(servers, 2, (), [0.1, 0.9]) == (2, 1)
