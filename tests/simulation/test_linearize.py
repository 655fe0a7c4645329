"""What `linearize` accepts, what it must refuse, and that it agrees with trying all orders."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations, permutations

import pytest

from tests.simulation.histories import Script
from tests.simulation.history import Op
from tests.simulation.linearize import Verdict, check, parts

Register = int


def register(state: Register, op: Op) -> Iterator[Register]:
    """write(value), read() -> value, add(value) -> the sum."""
    if op.action == "write":
        yield op.arguments[0]
    elif op.action == "add":
        if op.is_open or op.answer == state + op.arguments[0]:
            yield state + op.arguments[0]
    elif op.is_open or op.answer == state:
        yield state


def judged(script: Script) -> Verdict[Register]:
    return check(script.ops, 0, register)


def test_a_sequence_with_right_answers_holds() -> None:
    script = Script()
    script.did(0, 1, "write", 5)
    script.did(2, 3, "read", answer=5)
    assert judged(script).holds


def test_a_stale_read_is_refused() -> None:
    script = Script()
    script.did(0, 1, "write", 5)
    stale = script.did(2, 3, "read", answer=0)
    verdict = judged(script)
    assert not verdict.holds
    assert verdict.stuck is stale
    assert verdict.states == (5,)


def test_a_read_beside_a_write_may_see_either() -> None:
    for seen in (0, 5):
        script = Script()
        script.did(0, 2, "write", 5)
        script.did(1, 3, "read", answer=seen)
        assert judged(script).holds


def test_what_was_seen_once_stays_seen() -> None:
    """Two reads during one write: the later one may not see what was before."""
    script = Script()
    script.did(0, 10, "write", 5)
    script.did(1, 2, "read", answer=5)
    later = script.did(3, 4, "read", answer=0)
    verdict = judged(script)
    assert verdict.stuck is later
    assert [op.action for op in verdict.concerned(lambda a, b: True)] == ["write", "read", "read"]


def test_what_happens_at_one_instant_may_have_any_order() -> None:
    script = Script()
    script.did(1, 1, "read", answer=5)
    script.did(1, 1, "write", 5)
    assert judged(script).holds


def test_a_lost_write_may_show_late_or_never() -> None:
    for seen in ((0, 0), (0, 7), (7, 7)):
        script = Script()
        script.lost(0, "write", 7)
        script.did(1, 2, "read", answer=seen[0])
        script.did(3, 4, "read", answer=seen[1])
        assert judged(script).holds, seen


def test_a_lost_write_that_has_shown_does_not_go_away() -> None:
    script = Script()
    script.lost(0, "write", 7)
    script.did(1, 2, "read", answer=7)
    script.did(3, 4, "read", answer=0)
    assert not judged(script).holds


def test_a_lost_change_happens_once_at_most() -> None:
    script = Script()
    script.lost(0, "add", 3)
    script.did(1, 2, "read", answer=3)
    twice = script.did(3, 4, "read", answer=6)
    assert judged(script).stuck is twice


def test_a_lost_write_does_not_show_before_its_begin() -> None:
    script = Script()
    script.did(0, 1, "read", answer=7)
    script.lost(2, "write", 7)
    assert not judged(script).holds


def test_a_doubled_effect_is_refused() -> None:
    script = Script()
    script.did(0, 1, "add", 1, answer=1)
    script.did(2, 3, "read", answer=2)
    assert not judged(script).holds


def test_many_lost_changes_stay_a_small_search() -> None:
    script = Script()
    for number in range(20):
        script.lost(number, "write", number)
        script.did(number + 0.2, number + 0.4, "write", 100)
        script.did(number + 0.5, number + 0.6, "read", answer=100)
    verdict = judged(script)
    assert verdict.holds
    assert verdict.effort < 5000


def test_too_much_effort_is_undecided_and_does_not_hold() -> None:
    script = Script()
    for number in range(8):
        script.did(0, 10 + number, "write", number)
    verdict = check(script.ops, 0, register, effort_max=10)
    assert verdict.undecided
    assert not verdict.holds
    assert verdict.stuck is None


def test_parts_are_judged_alone() -> None:
    script = Script()
    first = script.did(0, 1, "write", 1)
    other = script.did(0, 1, "read", answer=1)
    assert parts(script.ops, lambda op: op.action) == [[first], [other]]


@pytest.mark.parametrize("seed", range(300))
def test_it_agrees_with_trying_all_orders(seed: int) -> None:
    script = _random_history(random.Random(seed))
    assert judged(script).holds == _some_order_explains(script.ops)


def test_random_histories_are_of_both_kinds() -> None:
    scripts = [_random_history(random.Random(seed)) for seed in range(300)]
    held = sum(judged(script).holds for script in scripts)
    assert 50 < held < 250


def _random_history(chance: random.Random) -> Script:
    script = Script()
    for _ in range(chance.randint(2, 6)):
        began_s = chance.randint(0, 8)
        action = chance.choice(("write", "read", "read", "add"))
        arguments = () if action == "read" else (chance.randint(0, 1),)
        if chance.random() < 0.2:
            script.lost(began_s, action, *arguments)
            continue
        ended_s = began_s + chance.randint(0, 8)
        answer = None if action == "write" else chance.randint(0, 2)
        script.did(began_s, ended_s, action, *arguments, answer=answer)
    return script


def _some_order_explains(ops: list[Op]) -> bool:
    """By force: every order of all that ended and of any of those that did not."""
    ended = [op for op in ops if not op.is_open]
    lost = [op for op in ops if op.is_open]
    chosen = (c for count in range(len(lost) + 1) for c in combinations(lost, count))
    return any(_explains(order) for some in chosen for order in permutations([*ended, *some]))


def _explains(order: tuple[Op, ...]) -> bool:
    for place, op in enumerate(order):
        if any(later.ended_s < op.began_s for later in order[place + 1 :]):
            return False
    states = [0]
    for op in order:
        states = [after for state in states for after in register(state, op)]
    return bool(states)
