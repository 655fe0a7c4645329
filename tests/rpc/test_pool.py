"""Sharing connections by address."""

from __future__ import annotations

import pytest
import trio

from dfs.errors import Code, Failure
from dfs.rpc import Connection, Pool, Request
from tests.rpc.stage import SOON_S, Ask, Stage, Told, limits, meeting, simulated_stage


def told(request: Request) -> Told:
    return Told(request.message.number)


def test_everybody_shares_one_connection(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: told}) as met:
            pool = Pool(stage.client_endpoint(), met.nursery)
            got: list[Connection] = []

            async def get() -> None:
                got.append(await pool.get(met.address))

            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(get)
            assert len(got) == 10
            assert all(connection is got[0] for connection in got)
            assert len(met.accepted) == 1

    stage.run(main)


def test_a_lost_connection_is_dialled_again(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: told}) as met:
            pool = Pool(stage.client_endpoint(), met.nursery)
            for number in range(3):
                answer = await pool.call(met.address, Ask(number), timeout_s=SOON_S)
                assert answer.message == Told(number)
                (await pool.get(met.address)).close()
            assert len(met.accepted) == 3

    stage.run(main)


def test_one_who_gives_up_does_not_take_the_dial_along(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: told}) as met:
            pool = Pool(stage.client_endpoint(), met.nursery)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.get, met.address)
                await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await pool.get(met.address)
            assert len(met.accepted) == 1

    stage.run(main)


def test_all_who_wait_learn_why_a_dial_failed(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, {}) as met:
            listener = await stage.server.network.listen("127.0.0.1:0")
            address = listener.address
            listener.close()
            pool = Pool(stage.client_endpoint(), met.nursery)
            failures: list[Failure] = []

            async def get() -> None:
                with pytest.raises(Failure) as caught:
                    await pool.get(address)
                failures.append(caught.value)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(get)
            assert [f.code for f in failures] == [Code.CONNECTION_LOST] * 3
            assert address in failures[0].message
            assert failures[0] is not failures[1]

    stage.run(main)


def test_dialling_counts_toward_the_timeout_of_a_call() -> None:
    async def main(stage: Stage) -> None:
        listener = await stage.server.network.listen("127.0.0.1:0")  # accepts, never speaks
        async with trio.open_nursery() as nursery:
            pool = Pool(stage.client_endpoint(limits(handshake_timeout_s=50.0)), nursery)
            begun = stage.client.clock.monotonic()
            with pytest.raises(Failure) as caught:
                await pool.call(listener.address, Ask(1), timeout_s=0.5)
            assert caught.value.code is Code.TIMEOUT
            assert stage.client.clock.monotonic() - begun == pytest.approx(0.5, abs=0.01)
            nursery.cancel_scope.cancel()

    simulated_stage().run(main)


def test_peers_may_call_back_over_pooled_connections(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, {}) as met:
            pool = Pool(stage.client_endpoint(), met.nursery, {Ask: told})
            await pool.get(met.address)
            answer = await met.accepted[0].call(Ask(4), timeout_s=SOON_S)
            assert answer.message == Told(4)
            pool.close()
            await met.left.wait()

    stage.run(main)


def test_the_pool_is_bounded(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, {}) as first, meeting(stage, {}) as second:
            pool = Pool(stage.client_endpoint(limits(max_connections=1)), first.nursery)
            connection = await pool.get(first.address)
            with pytest.raises(Failure) as caught:
                await pool.get(second.address)
            assert caught.value.code is Code.OVERLOADED
            connection.close()
            await pool.get(second.address)

    stage.run(main)
