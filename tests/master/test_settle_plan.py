"""Who is the source, who takes part, who is waited for: decisions without a cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfs.messages.chunks import ReplicaState
from master.settle_plan import FAILURES_MAX, Member, Order, Patience, Wait, decide

SETTLED, UNSETTLED, LOST, JOINING = ReplicaState
PATIENCE = Patience(settle_wait_s=1.0, lost_wait_s=60.0)
LATE = 1000.0


def member(server: int, state: int = SETTLED, version: int = 5, **more: bool | int) -> Member:
    return replace(Member(server, True, True, version, state), **more)  # type: ignore[arg-type]


def absent(server: int) -> Member:
    return Member(server, alive=False, reported=False, version=5)


def plan(
    *members: Member, fresh: bool = False, least: int = 2, waited_s: float = 0.0
) -> Order | Wait | None:
    return decide(members, fresh=fresh, least=least, waited_s=waited_s, patience=PATIENCE)


def order(*members: Member, fresh: bool = False, waited_s: float = 0.0) -> Order:
    decision = plan(*members, fresh=fresh, waited_s=waited_s)
    assert isinstance(decision, Order), decision
    return decision


def test_equal_replicas_keep_the_chain() -> None:
    found = order(member(3), member(1), member(2))
    assert found == Order((3, 1, 2), (1, 2), (), (), lost=False, suffices=True)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (member(2, SETTLED), member(1, UNSETTLED)),
        (member(2, UNSETTLED), member(1, LOST)),
        (member(2, version=5), member(1, version=4)),
        # It was fenced for a settling that did not end: both have all that was acknowledged.
        (member(2, UNSETTLED, version=5), member(1, SETTLED, version=4)),
        # Synced data is in both, but only the first has what was acknowledged and not synced.
        (member(2, SETTLED, version=4), member(1, LOST, version=5)),
        (member(2), member(1, damaged=True)),
        (member(2, version=4), member(1, version=5, damaged=True)),
        (member(2, UNSETTLED, damaged=True), member(1, LOST)),
        (member(2), member(1, failures=1)),
        (member(2, UNSETTLED, full=True), member(1)),
        (member(2, version=5), member(1, version=4, full=True)),
        (member(2, LOST), member(1, JOINING)),
        (member(2, LOST), member(1, version=9, ahead=True)),
    ],
)
def test_the_better_source_comes_first(better: Member, worse: Member) -> None:
    assert order(worse, better).source == better.server
    assert order(better, worse).source == better.server


def test_a_joining_replica_takes_part_and_is_never_the_source() -> None:
    found = order(member(1), member(2), member(9, JOINING))
    assert (found.chain, found.joining) == ((2, 9), (9,))
    assert isinstance(plan(member(9, JOINING), absent(1), waited_s=LATE), Wait)


def test_the_dead_are_left_out_and_stay_in_the_set() -> None:
    found = order(absent(1), member(2), member(3))
    assert found == Order((2, 1, 3), (3,), (), (1,), lost=False, suffices=True)


def test_where_too_few_are_here_the_absent_are_tried_once() -> None:
    found = order(absent(1), member(2))
    assert (found.servers, found.chain, found.left_out) == ((2, 1), (1,), ())
    found = order(replace(absent(1), failures=1), member(2))
    assert (found.chain, found.left_out) == ((), (1,))


def test_settled_replicas_wait_only_for_servers_that_are_about_to_report() -> None:
    returning = Member(3, alive=True, reported=False, version=5)
    waiting = plan(member(1), member(2), returning)
    assert isinstance(waiting, Wait)
    assert waiting.seconds == 1.0
    assert order(member(1), member(2), returning, waited_s=1.0).left_out == (3,)


def test_unsettled_replicas_wait_a_moment_for_others() -> None:
    waiting = plan(member(1, UNSETTLED), absent(2), waited_s=0.25)
    assert isinstance(waiting, Wait)
    assert waiting.seconds == 0.75
    assert order(member(1, UNSETTLED), absent(2), waited_s=1.0).source == 1
    assert order(member(1, UNSETTLED), member(2, UNSETTLED)).chain == (2,)


def test_lost_replicas_wait_long_for_others_and_count_the_loss() -> None:
    waiting = plan(member(1, LOST), absent(2), waited_s=59.0)
    assert isinstance(waiting, Wait)
    assert order(member(1, LOST), absent(2), waited_s=60.0).lost
    assert order(member(1, LOST), member(2, LOST)).lost
    assert not order(member(1, LOST), member(2, UNSETTLED)).lost


def test_a_member_that_lost_its_replica_leaves_while_enough_have_theirs() -> None:
    missing = member(1, version=0)
    assert order(missing, member(2), member(3)).servers == (2, 3)
    assert order(missing, member(2), absent(3)).servers == (2, 3)
    kept = order(missing, member(2))
    assert (kept.servers, kept.chain, kept.left_out) == ((2, 1), (), (1,))


def test_a_fresh_chunk_gets_the_replicas_that_are_missing() -> None:
    found = order(member(1, version=0), member(2), member(3, version=0), fresh=True)
    assert found == Order((2, 1, 3), (1, 3), (1, 3), (), lost=False, suffices=True)
    assert plan(member(1, version=0), member(2, version=0), fresh=True) is None


def test_a_member_that_failed_often_leaves_while_enough_are_here() -> None:
    failing = member(1, failures=FAILURES_MAX)
    assert order(failing, member(2), member(3)).servers == (2, 3)
    kept = order(failing, member(2), replace(absent(3), failures=1))
    assert (kept.servers, kept.chain) == ((2, 1, 3), ())
    assert order(member(1, failures=1), member(2)).chain == (1,)


def test_a_joining_member_that_fails_leaves_at_once() -> None:
    failing = member(9, JOINING, failures=FAILURES_MAX)
    assert order(member(1), failing).servers == (1,)


def test_enough_will_be_here_when_those_that_join_have_joined() -> None:
    failing = member(1, failures=FAILURES_MAX)
    alone = order(failing, member(2))
    assert (alone.left_out, alone.suffices) == ((1,), False)
    joined = order(failing, member(2), member(3, JOINING))
    assert (joined.left_out, joined.joining, joined.suffices) == ((1,), (3,), True)


def test_a_replica_that_is_ahead_is_left_alone() -> None:
    found = order(member(1), member(2), member(3, version=9, ahead=True))
    assert found == Order((1, 2, 3), (2,), (), (3,), lost=False, suffices=True)


MEMBERS = st.lists(
    st.builds(
        Member,
        server=st.integers(1, 9),
        alive=st.booleans(),
        reported=st.booleans(),
        version=st.sampled_from((0, 4, 5)),
        state=st.sampled_from(ReplicaState),
        damaged=st.booleans(),
        failures=st.integers(0, 3),
        ahead=st.just(False),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda m: m.server,
)


@given(MEMBERS, st.booleans(), st.integers(1, 3))
def test_whatever_the_members(members: list[Member], fresh: bool, least: int) -> None:
    found = decide(members, fresh=fresh, least=least, waited_s=LATE, patience=PATIENCE)
    if not isinstance(found, Order):
        return
    by_server = {m.server: m for m in members}
    source = by_server[found.source]
    assert source.present
    assert source.complete
    assert len(set(found.servers)) == len(found.servers)
    assert set(found.servers) == {found.source, *found.chain, *found.left_out}
    assert set(found.joining) <= set(found.chain)
    assert all(by_server[s].complete != (s in found.joining) for s in found.chain)
    assert found.lost == (source.state == LOST)
    # Nobody who has a whole replica is sent away if that leaves fewer than there must be (C1).
    gone = [m for m in members if m.server not in found.servers and m.complete]
    here = [m for m in members if m.present and m.complete and m.failures < FAILURES_MAX]
    assert not gone or len(here) >= least
