"""What a connection counts: every call and every request once, whatever becomes of it."""

from __future__ import annotations

import trio

from dfs.errors import Code, Failure
from dfs.rpc import Handlers, Reply, Request, connect, serve
from dfs.rpc.meter import Meter
from tests.conftest import ExpectedLogs
from tests.rpc.stage import SOON_S, Ask, Stage, Told

PAYLOAD = b"x" * 1000


class Handling:
    """Answers by the number asked."""

    def __init__(self) -> None:
        self.never = trio.Event()

    def handlers(self) -> Handlers:
        return {Ask: self._handle}

    def _handle(self, request: Request) -> object:
        return (self._inline if request.message.number < 10 else self._in_task)(request)

    def _inline(self, request: Request) -> object:
        if request.message.number == 1:
            raise Failure(Code.CORRUPT, "damaged")
        if request.message.number == 2:
            raise RuntimeError("a bug")
        return Reply(Told(0), [PAYLOAD, PAYLOAD])

    async def _in_task(self, request: Request) -> object:
        if request.message.number == 11:
            raise Failure(Code.CORRUPT, "damaged")
        if request.message.number == 12:
            await self.never.wait()
        return Told(0)


def counted(stage: Stage, *numbers: int) -> tuple[Meter, Meter]:
    """The server's and the client's meter after asking these, one after the other."""
    server, client = stage.server_endpoint(), stage.client_endpoint()

    async def main(stage: Stage) -> None:
        async with trio.open_nursery() as nursery:
            handlers = Handling().handlers()
            address = await nursery.start(serve, server, "127.0.0.1:0", handlers)
            connection = await connect(client, address, nursery)
            for number in numbers:
                timeout_s = 0.1 if number == 12 else SOON_S
                try:
                    await connection.call(Ask(number), [PAYLOAD], timeout_s=timeout_s)
                except Failure:
                    continue
            while sum(kind.count for kind in server.meter.requests.values()) < len(numbers):
                await stage.server.clock.sleep(0.01)
            nursery.cancel_scope.cancel()

    stage.run(main)
    return server.meter, client.meter


def test_answers_inline_and_from_a_task_count_once_on_either_side(stage: Stage) -> None:
    server, client = counted(stage, 0, 0, 10)
    assert server.requests[Ask].count == client.calls[Ask].count == 3
    assert 0 < server.requests[Ask].sum_s <= client.calls[Ask].sum_s
    assert not client.requests
    assert not server.calls


def test_payloads_count_on_either_side(stage: Stage) -> None:
    server, client = counted(stage, 0, 10)
    assert server.requests[Ask].received_bytes == client.calls[Ask].sent_bytes == 2 * len(PAYLOAD)
    assert server.requests[Ask].sent_bytes == client.calls[Ask].received_bytes == 2 * len(PAYLOAD)


def test_failures_count_by_code(stage: Stage, expected_logs: ExpectedLogs) -> None:
    expected_logs("handling Ask")
    server, client = counted(stage, 1, 11, 2)
    for codes in (server.refusals, client.failed_calls):
        assert {c: n for c, n in codes.items() if n} == {Code.CORRUPT: 2, Code.UNAVAILABLE: 1}
    assert server.requests[Ask].count == client.calls[Ask].count == 3


def test_a_call_without_an_answer_in_time_is_a_timeout(stage: Stage) -> None:
    server, client = counted(stage, 12)
    assert client.failed_calls[Code.TIMEOUT] == client.calls[Ask].count == 1
    assert client.calls[Ask].sum_s >= 0.09
    assert server.requests[Ask].count == 1  # cancelled, but it was here
