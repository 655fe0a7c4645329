"""The endpoint answers those who ask properly, and nobody can hold it up or fill it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs.config import Metrics
from dfs.errors import Code, Failure
from dfs.metrics import http
from dfs.metrics.http import Answer
from dfs.metrics.server import HttpServer
from dfs.runtime.network import send_all
from tests.conftest import ExpectedLogs
from tests.metrics.scraping import ask, get
from tests.rpc.stage import SOON_S, Lines, Stage, read_to_end, simulated_stage

LIMITS = Metrics()
LARGE = bytes(range(256)) * 20_000  # more than the buffers between the two hold


async def small() -> Answer:
    return Answer(200, b"here")


async def large() -> Answer:
    return Answer(200, LARGE)


async def broken() -> Answer:
    raise RuntimeError("a bug")


ROUTES = {"/small": small, "/large": large, "/broken": broken}
Main = Callable[[str], Awaitable[None]]


@asynccontextmanager
async def serving(stage: Stage, limits: Metrics = LIMITS) -> AsyncIterator[str]:
    """The endpoint's address, until the block ends."""
    async with trio.open_nursery() as nursery:
        yield await nursery.start(HttpServer(stage.server, limits, ROUTES).run, "127.0.0.1:0")
        nursery.cancel_scope.cancel()


def with_server(stage: Stage, main: Main, limits: Metrics = LIMITS) -> None:
    async def run(stage: Stage) -> None:
        async with serving(stage, limits) as address:
            await main(address)

    stage.run(run)


@contextmanager
def watching() -> Iterator[list[str]]:
    handler, logger = Lines(), logging.getLogger("dfs.metrics")
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)


def test_get_is_answered_and_the_connection_closed(stage: Stage) -> None:
    async def main(address: str) -> None:
        answered = await get(stage.client, address, "/small?and=more")
        assert (answered.status, answered.body) == (200, b"here")
        assert answered.headers["Content-Length"] == "4"
        assert answered.headers["Connection"] == "close"

    with_server(stage, main)


def test_head_is_answered_without_the_body(stage: Stage) -> None:
    async def main(address: str) -> None:
        answered = await get(stage.client, address, "/small", "HEAD")
        assert (answered.status, answered.headers["Content-Length"]) == (200, "4")
        assert answered.body == b""

    with_server(stage, main)


def test_a_large_answer_arrives_whole(stage: Stage) -> None:
    async def main(address: str) -> None:
        assert (await get(stage.client, address, "/large")).body == LARGE

    with_server(stage, main)


def test_a_request_may_come_byte_by_byte(stage: Stage) -> None:
    async def main(address: str) -> None:
        stream = await stage.client.network.connect(address)
        for byte in b"GET /small HTTP/1.0\r\nX: y\r\n\r\n":
            await send_all(stream, [bytes([byte])])
        assert (await read_to_end(stream)).endswith(b"\r\n\r\nhere")

    with_server(stage, main)


STRANGERS = {
    "random bytes": (b"\x93\x1f\x07\xee" * 50 + b"\r\n\r\n", 400, "is no HTTP request"),
    "our own protocol": (b"DFS1" + bytes(20) + b"\r\n\r\n", 400, "is no HTTP request"),
    "another method": (b"DELETE /small HTTP/1.1\r\n\r\n", 405, "asked DELETE"),
    "another path": (b"GET /etc/passwd HTTP/1.1\r\n\r\n", 404, "no '/etc/passwd' here"),
    "another version": (b"GET /small HTTP/2.0\r\n\r\n", 400, "is no HTTP request"),
    "a line break in the path": (b"GET /a\nb HTTP/1.1\r\n\r\n", 400, "is no HTTP request"),
    "no end": (b"GET /small HTTP/1.1\r\n" + b"X: y\r\n" * 5000, 431, "is over 8192 bytes"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_one_log_line(stage: Stage, name: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("metrics endpoint: ")
    data, status, says = STRANGERS[name]

    async def main(address: str) -> None:
        with watching() as lines:
            reply = await ask(stage.client, address, data)
        # Whoever sends more than is read may see a reset in place of the answer.
        assert reply.startswith(b"HTTP/1.1 %d " % status) or (status == 431 and not reply)
        assert len(lines) == 1, lines
        assert says in lines[0]
        assert (await get(stage.client, address, "/small")).status == 200

    with_server(stage, main)


@settings(max_examples=50)
@given(st.binary(max_size=3000))
def test_any_bytes_are_at_most_one_log_line(data: bytes) -> None:
    stage = simulated_stage()

    async def main(address: str) -> None:
        with watching() as lines:
            stream = await stage.client.network.connect(address)
            await send_all(stream, [data])
            if http.END_OF_HEAD not in data:
                stream.close()
            else:
                await read_to_end(stream)
            assert (await get(stage.client, address, "/small")).body == b"here"
        assert len(lines) <= 1

    logging.getLogger("dfs.metrics").propagate = False  # what is logged is looked at here
    try:
        with_server(stage, main)
    finally:
        logging.getLogger("dfs.metrics").propagate = True


def test_a_look_whether_the_port_is_open_is_no_log_line(stage: Stage) -> None:
    async def main(address: str) -> None:
        for _ in range(3):
            (await stage.client.network.connect(address)).close()
        assert (await get(stage.client, address, "/small")).status == 200

    with_server(stage, main)


def test_silence_is_ended_in_time(stage: Stage, expected_logs: ExpectedLogs) -> None:
    expected_logs("took longer than 0.2 s to ask")

    async def main(address: str) -> None:
        stream = await stage.client.network.connect(address)
        await send_all(stream, [b"GET /small"])
        with trio.fail_after(SOON_S):
            assert await read_to_end(stream) == b""

    with_server(stage, main, replace(LIMITS, request_timeout_s=0.2))


def test_who_does_not_take_the_answer_is_ended_in_time(
    stage: Stage, expected_logs: ExpectedLogs
) -> None:
    expected_logs("took longer than 0.2 s to ask")

    async def main(address: str) -> None:
        with watching() as lines:
            stream = await stage.client.network.connect(address)
            await send_all(stream, [b"GET /large HTTP/1.1\r\n\r\n"])
            while not lines:
                assert (await get(stage.client, address, "/small")).status == 200
            stream.close()

    with_server(stage, main, replace(LIMITS, request_timeout_s=0.2))


def test_a_crowd_of_silent_strangers_locks_nobody_out(
    stage: Stage, expected_logs: ExpectedLogs
) -> None:
    expected_logs("crowded out by others")
    expected_logs("ended the connection")

    async def main(address: str) -> None:
        crowd = []
        for _ in range(10):
            stream = await stage.client.network.connect(address)
            await send_all(stream, [b"GET"])
            crowd.append(stream)
        assert (await get(stage.client, address, "/small")).status == 200
        for stream in crowd[:7]:
            assert await read_to_end(stream) == b""
        for stream in crowd:
            stream.close()

    with_server(stage, main, replace(LIMITS, max_connections=4, request_timeout_s=1000.0))


def test_a_bug_ends_one_connection(stage: Stage, expected_logs: ExpectedLogs) -> None:
    expected_logs("metrics endpoint: answering")

    async def main(address: str) -> None:
        assert (await get(stage.client, address, "/broken")).status == 500
        assert (await get(stage.client, address, "/small")).status == 200

    with_server(stage, main)


def test_a_port_in_use_is_one_clear_line(stage: Stage) -> None:
    async def main(address: str) -> None:
        server = HttpServer(stage.server, LIMITS, ROUTES)
        with pytest.raises(Failure) as caught:
            await server.run(address)
        assert caught.value.code is Code.CONFIG
        assert "metrics_listen" in caught.value.message
        assert address in caught.value.message
        assert "\n" not in caught.value.message

    with_server(stage, main)
