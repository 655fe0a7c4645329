"""What both clocks promise, and both ways of running blocking work."""

from __future__ import annotations

import math

import pytest
import trio

from dfs.runtime import Env
from tests.runtime.worlds import Place


def test_time_never_goes_back(place: Place) -> None:
    clock = place.env.clock
    readings = [clock.monotonic() for _ in range(100)]
    assert readings == sorted(readings)
    assert clock.boottime() <= clock.boottime()
    assert clock.wall_ns() > 1_600_000_000 * 10**9


def test_sleeping_takes_at_least_that_long(place: Place) -> None:
    async def main(env: Env) -> None:
        before = env.clock.monotonic()
        await env.clock.sleep(0.02)
        assert env.clock.monotonic() - before >= 0.0199

    place.run(main)


def test_sleeping_less_than_nothing_returns(place: Place) -> None:
    async def main(env: Env) -> None:
        await env.clock.sleep(0)
        await env.clock.sleep(-1)

    place.run(main)


def test_move_on_after_cancels_what_is_inside(place: Place) -> None:
    async def main(env: Env) -> None:
        with env.clock.move_on_after(0.01) as scope:
            await env.clock.sleep(60)
        assert scope.cancelled_caught
        with env.clock.move_on_after(60) as scope:
            await env.clock.sleep(0.001)
        assert not scope.cancelled_caught

    place.run(main)


def test_fail_after_raises_too_slow(place: Place) -> None:
    async def main(env: Env) -> None:
        with pytest.raises(trio.TooSlowError), env.clock.fail_after(0.01):
            await env.clock.sleep(60)
        with env.clock.fail_after(60):
            await env.clock.sleep(0.001)

    place.run(main)


def test_wait_tells_whether_the_event_came(place: Place) -> None:
    async def main(env: Env) -> None:
        event = trio.Event()
        assert not await env.clock.wait(event, 0.01)
        event.set()
        assert await env.clock.wait(event, 0)

    place.run(main)


def test_sleepers_wake_in_the_order_of_their_times(place: Place) -> None:
    async def main(env: Env) -> None:
        woken: list[int] = []

        async def sleeper(number: int) -> None:
            await env.clock.sleep(0.02 * number)
            woken.append(number)

        async with trio.open_nursery() as nursery:
            for number in (3, 1, 4, 2):
                nursery.start_soon(sleeper, number)
        assert woken == [1, 2, 3, 4]

    place.run(main)


def test_the_nearest_deadline_ends_what_is_inside_it_only(place: Place) -> None:
    async def main(env: Env) -> None:
        with env.clock.move_on_after(60) as outer, env.clock.move_on_after(0.01) as inner:
            await env.clock.sleep(60)
        assert (inner.cancelled_caught, outer.cancelled_caught) == (True, False)
        with env.clock.move_on_after(0.01) as outer:
            with env.clock.move_on_after(60) as inner:
                await env.clock.sleep(60)
            raise AssertionError("the outer one ends this, too")
        assert (inner.cancelled_caught, outer.cancelled_caught) == (False, True)

    place.run(main)


def test_no_time_at_all_lets_through_what_does_not_wait(place: Place) -> None:
    async def main(env: Env) -> None:
        for seconds in (0, -1):
            reached = False
            with env.clock.move_on_after(seconds) as scope:
                reached = True
                await trio.lowlevel.checkpoint()
            assert reached
            assert scope.cancelled_caught
        with pytest.raises(trio.TooSlowError), env.clock.fail_after(0):
            await trio.lowlevel.checkpoint()

    place.run(main)


def test_time_without_end_is_a_duration(place: Place) -> None:
    async def main(env: Env) -> None:
        event = trio.Event()
        with env.clock.move_on_after(0.01) as scope:
            await env.clock.sleep(math.inf)
        assert scope.cancelled_caught
        with env.clock.move_on_after(math.inf):
            await env.clock.sleep(0.001)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(env.clock.wait, event, math.inf)
            await env.clock.sleep(0.001)
            event.set()

    place.run(main)


def test_an_event_ends_the_wait_for_it_early(place: Place) -> None:
    async def main(env: Env) -> None:
        event, came = trio.Event(), list[bool]()
        before = env.clock.monotonic()

        async def waiter() -> None:
            came.append(await env.clock.wait(event, 60))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            await env.clock.sleep(0.01)
            event.set()
        assert came == [True]
        assert env.clock.monotonic() - before < 30
        assert not await env.clock.wait(trio.Event(), 0)
        assert not await env.clock.wait(trio.Event(), -1)

    place.run(main)


def test_all_clocks_of_a_node_go_on_together(place: Place) -> None:
    async def main(env: Env) -> None:
        clock = env.clock
        before = (clock.monotonic(), clock.boottime(), clock.wall_ns() / 1e9)
        await clock.sleep(0.05)
        after = (clock.monotonic(), clock.boottime(), clock.wall_ns() / 1e9)
        assert all(0.04 < b - a < 10 for a, b in zip(before, after, strict=True))

    place.run(main)


def test_blocking_work_returns_its_result_or_error(place: Place) -> None:
    async def main(env: Env) -> None:
        assert await env.run_blocking(lambda: 6 * 7) == 42
        with pytest.raises(ZeroDivisionError):
            await env.run_blocking(lambda: 1 // 0, "lane")

    place.run(main)


def test_other_tasks_run_while_blocking_work_does(place: Place) -> None:
    async def main(env: Env) -> None:
        order: list[str] = []

        async def blocking() -> None:
            await env.run_blocking(lambda: order.append("work"))
            order.append("returned")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(blocking)
            await trio.lowlevel.checkpoint()
            order.append("other")
        assert order.index("other") < order.index("returned")

    place.run(main)


def test_begun_blocking_work_is_not_cancelled(place: Place) -> None:
    async def main(env: Env) -> None:
        done: list[bool] = []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(env.run_blocking, lambda: done.append(True))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert done == [True]

    place.run(main)


def test_work_beside_returns_when_it_is_done(place: Place) -> None:
    async def main(env: Env) -> None:
        done: list[bool] = []

        async def task() -> None:
            await env.clock.sleep(0.001)
            done.append(True)

        await env.run_beside(task)
        assert done == [True]

    place.run(main)


def test_work_beside_is_cancelled_with_its_caller(place: Place) -> None:
    async def main(env: Env) -> None:
        ended: list[bool] = []

        async def task() -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(True)

        with env.clock.move_on_after(0.02) as scope:
            await env.run_beside(task)
        assert scope.cancelled_caught
        assert ended == [True]

    place.run(main)


def test_an_error_beside_reaches_the_caller(place: Place) -> None:
    async def main(env: Env) -> None:
        async def task() -> None:
            raise LookupError("beside")

        with pytest.raises(LookupError, match="beside"):
            await env.run_beside(task)

    place.run(main)


def test_random_numbers_keep_their_ranges(place: Place) -> None:
    random = place.env.random
    assert all(0 <= random.random() < 1 for _ in range(100))
    assert all(2 <= random.uniform(2, 3) <= 3 for _ in range(100))
    assert sorted({random.randrange(3) for _ in range(200)}) == [0, 1, 2]
    items = list(range(50))
    assert sorted(random.shuffled(items)) == items == list(range(50))
    assert len(random.token(16)) == 16
    assert random.token(16) != random.token(16)
