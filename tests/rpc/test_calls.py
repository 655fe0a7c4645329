"""Calls between two good peers: order, deadlines, cancellation, push, bounds, failures."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from dfs.errors import Code, Failure
from dfs.rpc import Connection, Handlers, Pool, Reply, Request, codec
from dfs.rpc.frame import Kind
from dfs.runtime.sim import World
from tests.conftest import ExpectedLogs
from tests.rpc.stage import (
    SOON_S,
    Ask,
    Stage,
    Told,
    limits,
    meeting,
    puppet,
    raw_frame,
    read_frame,
    send,
    simulated_stage,
)

FIRST = codec.encode(Ask(1))


def told(request: Request) -> Told:
    return Told(request.message.number)


async def ask(connection: Connection, number: int) -> int:
    answer = await connection.call(Ask(number), timeout_s=SOON_S)
    return int(answer.message.number)


class Gate:
    """Handlers that wait until the test lets them go, one by one."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self.change = trio.Event()
        self._open: dict[int, trio.Event] = {}

    def handler(self, request: Request) -> Awaitable[Told]:
        number = request.message.number
        self.begun.append(number)
        self._changed()
        return self._wait(number)

    def open(self, *numbers: int) -> None:
        for number in numbers:
            self._event(number).set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.change.wait()

    async def _wait(self, number: int) -> Told:
        try:
            await self._event(number).wait()
        except trio.Cancelled:
            self.cancelled.append(number)
            self._changed()
            raise
        return Told(number)

    def _event(self, number: int) -> trio.Event:
        return self._open.setdefault(number, trio.Event())

    def _changed(self) -> None:
        self.change.set()
        self.change = trio.Event()


def test_answers_come_in_any_order(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        gate, answers = Gate(), list[int]()

        async def call(number: int) -> None:
            answers.append(await ask(connection, number))
            gate.open(number - 1)

        async with meeting(stage, {Ask: gate.handler}) as met:
            connection = await met.connect()
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(call, number)
                await gate.until(lambda: len(gate.begun) == 10)
                gate.open(9)
        assert answers == list(range(9, -1, -1))

    stage.run(main)


def test_handlers_begin_in_the_order_of_the_calls(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        gate = Gate()
        async with meeting(stage, {Ask: gate.handler}) as met:
            stream, inbox = await met.intruder()
            frames = [raw_frame(Kind.REQUEST, i, codec.encode(Ask(i))) for i in range(1, 101)]
            await send(stream, b"".join(frames))
            await gate.until(lambda: len(gate.begun) == 100)
            assert gate.begun == list(range(1, 101))
            gate.open(*gate.begun)
            got = sorted([(await read_frame(inbox))[0].request_id for _ in range(100)])
            assert got == list(range(1, 101))
            stream.close()

    stage.run(main)


def test_thousands_of_concurrent_calls_get_their_own_answers(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async def in_task(request: Request) -> Told:
            await trio.lowlevel.checkpoint()
            return Told(-request.message.number)

        def either(request: Request) -> Told | Awaitable[Told]:
            return in_task(request) if request.message.number % 3 else told(request)

        async def caller(start: int) -> None:
            for number in range(start, start + 20):
                assert await ask(connection, number) == (-number if number % 3 else number)

        async with meeting(stage, {Ask: either}) as met:
            connection = await met.connect()
            async with trio.open_nursery() as nursery:
                for start in range(0, 2000, 20):
                    nursery.start_soon(caller, start)

    stage.run(main)


def test_a_call_fails_at_its_deadline_and_the_late_answer_is_dropped(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        gate = Gate()
        async with meeting(stage, {Ask: gate.handler}) as met:
            connection = await met.connect()
            with pytest.raises(Failure, match="did not answer Ask in time") as caught:
                await connection.call(Ask(1), timeout_s=0.05)
            assert caught.value.code is Code.TIMEOUT
            gate.open(2)
            assert await ask(connection, 2) == 2
            await gate.until(lambda: gate.cancelled == [1])

    stage.run(main)


def test_each_call_has_its_own_deadline() -> None:
    async def main(stage: Stage) -> None:
        gate, ended = Gate(), list[tuple[float, float]]()
        clock = stage.client.clock

        async def call(timeout_s: float) -> None:
            begun = clock.monotonic()
            with pytest.raises(Failure):
                await connection.call(Ask(1), timeout_s=timeout_s)
            ended.append((timeout_s, clock.monotonic() - begun))

        async with meeting(stage, {Ask: gate.handler}) as met:
            connection = await met.connect()
            async with trio.open_nursery() as nursery:
                for timeout_s in (4.0, 0.5, 2.0, 1.0, 3.0, 0.1):
                    nursery.start_soon(call, timeout_s)
        for timeout_s, took in ended:
            assert took == pytest.approx(timeout_s, abs=0.01)
        assert [t for t, _ in ended] == [0.1, 0.5, 1.0, 2.0, 3.0, 4.0]

    simulated_stage().run(main)


def test_a_later_call_with_an_earlier_deadline_ends_first() -> None:
    async def main(stage: Stage) -> None:
        gate, clock = Gate(), stage.client.clock
        async with meeting(stage, {Ask: gate.handler}) as met:
            connection = await met.connect()
            await clock.sleep(1)  # now nothing but the idle time keeps the connection awake
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, connection, 1)
                await clock.sleep(1)
                begun = clock.monotonic()
                with pytest.raises(Failure):
                    await connection.call(Ask(2), timeout_s=0.5)
                assert clock.monotonic() - begun == pytest.approx(0.5, abs=0.01)
                gate.open(1)

    simulated_stage().run(main)


def test_cancelling_a_call_cancels_its_handler(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        gate = Gate()
        async with meeting(stage, {Ask: gate.handler}) as met:
            connection = await met.connect()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, connection, 1)
                await gate.until(lambda: gate.begun == [1])
                nursery.cancel_scope.cancel()
            await gate.until(lambda: gate.cancelled == [1])
            gate.open(2)
            assert await ask(connection, 2) == 2

    stage.run(main)


def test_the_server_calls_back_over_the_same_connection(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async def double(request: Request) -> Told:
            answer = await request.connection.call(Ask(request.message.number), timeout_s=SOON_S)
            return Told(2 * answer.message.number)

        async with meeting(stage, {Ask: double}) as met:
            connection = await met.connect({Ask: lambda r: Told(r.message.number + 1)})
            assert await ask(connection, 20) == 42
            answer = await met.accepted[0].call(Ask(1), timeout_s=SOON_S)
            assert answer.message == Told(2)
            assert (connection.peer.role, met.accepted[0].peer.role) == ("master", "client")

    stage.run(main)


def test_notices_arrive_in_order_and_have_no_answer(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        heard, complete = list[tuple[int, bytes]](), trio.Event()

        def hear(request: Request) -> None:
            heard.append((request.message.number, bytes(request.payload)))
            if len(heard) == 100:
                complete.set()

        async with meeting(stage, {Ask: hear}) as met:
            connection = await met.connect()
            payload = bytearray(b"reused")
            for number in range(100):
                payload[:] = b"n%05d" % number
                assert connection.notify(Ask(number), [payload])
            await complete.wait()
            assert heard == [(n, b"n%05d" % n) for n in range(100)]
            connection.close()
            assert not connection.notify(Ask(1))

    stage.run(main)


# -- failures


def failing(failure: Failure) -> Handlers:
    def refuse(_: Request) -> None:
        raise failure

    async def refuse_later(_: Request) -> None:
        await trio.lowlevel.checkpoint()
        raise failure

    return {Ask: refuse, Told: refuse_later}


def test_a_handlers_failure_travels_whole(stage: Stage) -> None:
    failure = Failure(
        Code.DISK, "replica 5: disk full \udcff", errno=errno.ENOSPC, detail="host:7102"
    )

    async def main(stage: Stage) -> None:
        async with meeting(stage, failing(failure)) as met:
            connection = await met.connect()
            for message in (Ask(1), Told(1)):
                with pytest.raises(Failure) as caught:
                    await connection.call(message, timeout_s=SOON_S)
                got = caught.value
                assert (got.code, got.errno) == (Code.DISK, errno.ENOSPC)
                assert (got.message, got.detail) == ("replica 5: disk full ?", "host:7102")

    stage.run(main)


def test_a_handlers_bug_is_logged_and_answered(stage: Stage, expected_logs: ExpectedLogs) -> None:
    expected_logs("master-1: handling (Ask|Told) of client-7")

    async def buggy(_: Request) -> None:
        raise KeyError("bug")

    def unanswered(_: Request) -> None:
        return None

    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: unanswered, Told: buggy}) as met:
            connection = await met.connect()
            for message in (Ask(1), Told(1)):
                with pytest.raises(Failure, match="failed to handle") as caught:
                    await connection.call(message, timeout_s=SOON_S)
                assert caught.value.code is Code.UNAVAILABLE
            assert not connection.closed.is_set()

    stage.run(main)


def test_what_nobody_handles_is_refused(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, {}) as met:
            connection = await met.connect()
            with pytest.raises(Failure, match="master-1 does not take Ask") as caught:
                await ask(connection, 1)
            assert caught.value.code is Code.BAD_MESSAGE

    stage.run(main)


def test_outstanding_calls_fail_at_once_when_the_connection_ends(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        gate, failed = Gate(), list[Code]()

        async def call(number: int) -> None:
            with pytest.raises(Failure) as caught:
                await ask(connection, number)
            failed.append(caught.value.code)

        async with meeting(stage, {Ask: gate.handler}) as met:
            connection = await met.connect()
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(call, number)
                await gate.until(lambda: len(gate.begun) == 5)
                met.accepted[0].close()
            assert failed == [Code.CONNECTION_LOST] * 5
            assert sorted(gate.cancelled) == [0, 1, 2, 3, 4]
            assert connection.closed.is_set()
            with pytest.raises(Failure) as caught:
                await ask(connection, 6)
            assert caught.value.code is Code.CONNECTION_LOST

    stage.run(main)


def test_a_handler_may_close_its_own_connection(stage: Stage) -> None:
    def close(request: Request) -> Told:
        request.connection.close()
        return Told(0)

    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: close}) as met:
            connection = await met.connect()
            with pytest.raises(Failure) as caught:
                await ask(connection, 1)
            assert caught.value.code is Code.CONNECTION_LOST
            await met.left.wait()

    stage.run(main)


def test_nothing_is_handled_after_a_handler_closed_the_connection(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        handled = list[int]()

        def close_at_two(request: Request) -> Told:
            handled.append(request.message.number)
            if request.message.number == 2:
                request.connection.close()
            return Told(0)

        async with meeting(stage, {Ask: close_at_two}) as met:
            stream, _ = await met.intruder()
            frames = [raw_frame(Kind.REQUEST, i, codec.encode(Ask(i))) for i in range(1, 6)]
            await send(stream, b"".join(frames))
            await met.left.wait()
            assert handled == [1, 2]
            stream.close()

    stage.run(main)


def test_a_shielded_handler_ends_before_its_connection_does(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        begun, release, done = trio.Event(), trio.Event(), list[str]()

        async def careful(_: Request) -> Told:
            with trio.CancelScope(shield=True):
                begun.set()
                await release.wait()
                done.append("handler")
            return Told(1)

        async with meeting(stage, {Ask: careful}) as met:
            connection = await met.connect()
            connection.notify(Ask(1))
            await begun.wait()
            connection.close()
            await met.accepted[0].closed.wait()
            assert not met.left.is_set()
            release.set()
            await met.left.wait()
            assert done == ["handler"]

    stage.run(main)


# -- bounds


def test_calls_beyond_the_bound_wait_for_a_slot(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        gate, answers = Gate(), list[int]()

        async def call(number: int) -> None:
            answers.append(await ask(connection, number))

        async with meeting(stage, {Ask: gate.handler}, limits(max_in_flight=3)) as met:
            connection = await met.connect()
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(call, number)
                await gate.until(lambda: len(gate.begun) == 3)
                await trio.testing.wait_all_tasks_blocked()
                assert len(gate.begun) == 3
                gate.open(*range(8))
        assert sorted(answers) == list(range(8))
        assert sorted(gate.begun) == list(range(8))

    stage.run(main)


def test_waiting_for_a_slot_ends_at_the_deadline_and_leaves_the_others_alone() -> None:
    async def main(stage: Stage) -> None:
        gate = Gate()
        async with meeting(stage, {Ask: gate.handler}, limits(max_in_flight=1)) as met:
            connection = await met.connect()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, connection, 1)
                await gate.until(lambda: gate.begun == [1])
                with pytest.raises(Failure, match="no room to send") as caught:
                    await connection.call(Ask(2), timeout_s=0.5)
                assert caught.value.code is Code.TIMEOUT
                nursery.start_soon(ask, connection, 3)
                gate.open(1, 3)
            assert gate.begun == [1, 3]

    simulated_stage().run(main)


def test_a_peer_that_ignores_the_bound_is_answered_overloaded(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        gate = Gate()
        async with meeting(stage, {Ask: gate.handler}, limits(max_in_flight=2)) as met:
            stream, inbox = await met.intruder()
            frames = [raw_frame(Kind.REQUEST, i, FIRST, b"p" * 9) for i in (1, 2, 3)]
            await send(stream, b"".join(frames))
            prefix, header, _ = await read_frame(inbox)
            assert (prefix.kind, prefix.request_id) == (Kind.ERROR, 3)
            assert codec.decode(header).code == Code.OVERLOADED
            assert len(gate.begun) == 2
            gate.open(1)
            assert {(await read_frame(inbox))[0].request_id for _ in range(2)} == {1, 2}
            stream.close()

    stage.run(main)


def test_the_same_id_twice_ends_the_connection(stage: Stage, expected_logs: ExpectedLogs) -> None:
    expected_logs("request id 1 used twice")

    async def main(stage: Stage) -> None:
        gate = Gate()
        async with meeting(stage, {Ask: gate.handler}) as met:
            stream, _ = await met.intruder()
            await send(stream, raw_frame(Kind.REQUEST, 1, FIRST) * 2)
            await met.left.wait()
            assert gate.cancelled == [1]
            stream.close()

    stage.run(main)


def test_notices_that_find_no_room_are_refused_not_queued() -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: told}, limits(max_queued_bytes=1 << 16)) as met:
            stream, _ = await met.intruder()
            connection = met.accepted[0]
            sent = 0
            while connection.notify(Ask(1), [bytes(10_000)]):
                sent += 1
                assert sent < 10_000
            assert connection._outbox.queued_bytes < (1 << 16) + 11_000
            stream.close()
            await connection.closed.wait()

    simulated_stage().run(main)


def test_a_peer_that_does_not_read_its_answers_is_not_read_either() -> None:
    """Answers pile up to the bound, not beyond; then the peer has to take them."""

    async def main(stage: Stage) -> None:
        def much(_: Request) -> Reply:
            return Reply(Told(1), [bytes(100_000)])

        bound = limits(max_queued_bytes=1 << 20, idle_probe_s=1.0, probe_timeout_s=1.0)
        async with meeting(stage, {Ask: much}, bound) as met:
            stream, _ = await met.intruder()
            connection = met.accepted[0]
            for request_id in range(1, 200):
                await send(stream, raw_frame(Kind.REQUEST, request_id, FIRST))
            await stage.server.clock.sleep(0.5)
            assert connection._outbox.full
            assert connection._outbox.queued_bytes < (1 << 20) + 110_000
            await connection.closed.wait()  # no sign of life
            stream.close()

    simulated_stage().run(main)


# -- peers that are gone


def test_a_silent_peer_is_found_out_by_a_probe() -> None:
    async def main(stage: Stage) -> None:
        bound = limits(idle_probe_s=5.0, probe_timeout_s=2.0)
        async with meeting(stage, {Ask: told}, bound) as met:
            stream, _ = await met.intruder()
            begun = stage.server.clock.monotonic()
            await met.accepted[0].closed.wait()
            assert 6.99 < stage.server.clock.monotonic() - begun < 13
            stream.close()

    simulated_stage().run(main)


def test_an_idle_peer_that_answers_probes_stays_connected() -> None:
    async def main(stage: Stage) -> None:
        bound = limits(idle_probe_s=5.0, probe_timeout_s=2.0)
        async with meeting(stage, {Ask: told}, bound) as met:
            connection = await met.connect()
            await stage.client.clock.sleep(100)
            assert not connection.closed.is_set()
            assert await ask(connection, 1) == 1

    simulated_stage().run(main)


def test_slow_handlers_do_not_make_their_caller_look_dead() -> None:
    """While the reader waits for its own handlers, silence is not the peer's fault."""

    async def main(stage: Stage) -> None:
        gate = Gate()
        bound = limits(idle_probe_s=5.0, probe_timeout_s=2.0, max_request_bytes=1 << 20)
        async with meeting(stage, {Ask: gate.handler}, bound) as met:
            connection = await met.connect(limits=limits(idle_probe_s=10_000.0))

            async def call(number: int) -> None:
                await connection.call(Ask(number), [bytes(1 << 20)], timeout_s=1000.0)

            async with trio.open_nursery() as nursery:
                for number in (1, 2, 3):
                    nursery.start_soon(call, number)
                await stage.client.clock.sleep(100)
                assert len(gate.begun) == 1
                gate.open(1, 2, 3)
            assert sorted(gate.begun) == [1, 2, 3]

    simulated_stage().run(main)


def test_a_partition_ends_the_connection_and_the_pool_dials_again_after_it() -> None:
    world = World(3)
    stage = Stage(world.env("master-1"), world.env("client-7"), world.run)

    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: told}) as met:
            pool = Pool(stage.client_endpoint(), met.nursery)
            first = await pool.get(met.address)
            world.partition("master-1", "client-7")
            with pytest.raises(Failure) as caught:
                await pool.call(met.address, Ask(1), timeout_s=1.0)
            assert caught.value.code is Code.TIMEOUT
            await first.closed.wait()
            world.heal()
            answer = await pool.call(met.address, Ask(2), timeout_s=1.0)
            assert answer.message == Told(2)
            assert len(met.accepted) == 2

    stage.run(main)


def test_a_timeout_makes_the_connection_prove_itself() -> None:
    """A peer that vanished is noticed after one timeout, not after the idle time."""

    async def main(stage: Stage) -> None:
        bound = limits(idle_probe_s=1000.0, probe_timeout_s=2.0)
        async with puppet(stage, bound) as (connection, _, _):
            begun = stage.client.clock.monotonic()
            with pytest.raises(Failure) as caught:
                await connection.call(Ask(1), timeout_s=1.0)
            assert caught.value.code is Code.TIMEOUT
            await connection.closed.wait()
            assert stage.client.clock.monotonic() - begun < 5

    simulated_stage().run(main)
