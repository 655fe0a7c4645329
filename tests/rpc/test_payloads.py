"""Payloads: large ones both ways, into given buffers, whole under concurrency and cancellation."""

from __future__ import annotations

import random
from functools import partial

import pytest
import trio
import trio.testing
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs.errors import Code, Failure
from dfs.rpc import Connection, Reply, Request, codec, frame
from dfs.rpc.frame import Kind
from dfs.rpc.inbox import Inbox
from dfs.rpc.outbox import Outbox
from dfs.runtime import Buffer, Stream
from tests.rpc.stage import (
    LIMITS,
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

_ANY = frame.FrameLimits(1 << 20, 1 << 20)
SIZES = [1, 100, 65_000, 65_536, 65_537, 200_000, 1 << 20, 3_000_001]


def noise(length_bytes: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length_bytes)


async def echo(request: Request) -> Reply:
    return Reply(Told(len(request.payload)), [request.payload])


def echo_inline(request: Request) -> Reply:
    return Reply(Told(len(request.payload)), [request.payload])


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "task"])
def test_payloads_of_any_size_come_back_whole(stage: Stage, inline: bool) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: echo_inline if inline else echo}) as met:
            connection = await met.connect()
            for size in SIZES:
                data = noise(size)
                third = size // 3
                pieces: list[Buffer] = [data[:third], bytearray(data[third:]), b""]
                received = await connection.call(Ask(0), pieces, timeout_s=SOON_S)
                assert received.message == Told(size)
                assert received.payload == data

    stage.run(main)


def test_an_answer_is_received_into_the_given_buffer(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: echo}) as met:
            connection = await met.connect()
            buffer = bytearray(4 << 20)
            for size in SIZES:
                data = noise(size, seed=size)
                into = memoryview(buffer)[10:]
                received = await connection.call(Ask(0), [data], timeout_s=SOON_S, into=into)
                assert len(received.payload) == size
                assert buffer[10 : 10 + size] == data
                assert received.payload.obj is buffer

    stage.run(main)


def test_an_answer_too_large_for_the_buffer_fails_the_call_only(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: echo}) as met:
            connection = await met.connect()
            into = memoryview(bytearray(99))
            for size in (100, 500_000):
                with pytest.raises(Failure, match=f"{size} bytes where 99") as caught:
                    await connection.call(Ask(0), [bytes(size)], timeout_s=SOON_S, into=into)
                assert caught.value.code is Code.BAD_MESSAGE
            received = await connection.call(Ask(0), [b"x" * 99], timeout_s=SOON_S, into=into)
            assert received.payload == b"x" * 99

    stage.run(main)


def test_a_payload_beyond_the_limit_is_refused_where_it_is_sent(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: echo}) as met:
            connection = await met.connect()
            too_much = bytes(LIMITS.max_payload_bytes + 1)
            with pytest.raises(Failure, match="too large to send"):
                await connection.call(Ask(0), [too_much], timeout_s=SOON_S)
            most = await connection.call(Ask(0), [too_much[1:]], timeout_s=SOON_S)
            assert len(most.payload) == LIMITS.max_payload_bytes

    stage.run(main)


def test_concurrent_payloads_do_not_mix(stage: Stage) -> None:
    async def digest(request: Request) -> Reply:
        before = xxhash.xxh3_64_intdigest(request.payload)
        await trio.lowlevel.checkpoint()
        data = bytes(request.payload)
        assert xxhash.xxh3_64_intdigest(data) == before
        return Reply(Told(before), [data[::-1]])

    async def main(stage: Stage) -> None:
        async def caller(seed: int) -> None:
            source = random.Random(seed)
            buffer = memoryview(bytearray(1 << 20))
            for _ in range(10):
                data = source.randbytes(source.choice([10, 5_000, 70_000, 700_000]))
                into = buffer if source.random() < 0.5 else None
                received = await connection.call(Ask(0), [data], timeout_s=SOON_S, into=into)
                assert received.message.number == xxhash.xxh3_64_intdigest(data)
                assert received.payload == data[::-1]

        small = limits(max_in_flight=8, max_queued_bytes=1 << 20, max_request_bytes=1 << 20)
        async with meeting(stage, {Ask: digest}, small) as met:
            connection = await met.connect(limits=small)
            async with trio.open_nursery() as nursery:
                for seed in range(16):
                    nursery.start_soon(caller, seed)
            assert met.accepted[0]._service._held_bytes == 0

    stage.run(main)


def test_a_cancelled_call_leaves_its_buffers_to_the_caller(stage: Stage) -> None:
    """Reusing payload and `into` at once harms neither the caller nor the connection."""

    async def main(stage: Stage) -> None:
        seen, got = list[int](), trio.Event()

        async def check(request: Request) -> Reply:
            digest = xxhash.xxh3_64_intdigest(request.payload)
            if request.message.number:
                seen.append(digest)
                got.set()
            return Reply(Told(digest), [noise(2_000_000, seed=1)])

        async with meeting(stage, {Ask: check}) as met:
            connection = await met.connect()
            for checkpoints in range(12):
                payload = bytearray(noise(2_000_000))
                into = bytearray(2_000_000)
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_cancel_after, scope, checkpoints)
                        await connection.call(
                            Ask(1), [payload], timeout_s=SOON_S, into=memoryview(into)
                        )
                payload[:] = bytes(len(payload))
                into[:] = bytes(len(into))
                received = await connection.call(Ask(0), [b"next"], timeout_s=SOON_S)
                assert received.message.number == xxhash.xxh3_64_intdigest(b"next")
                assert received.payload == noise(2_000_000, seed=1)
                if scope.cancelled_caught:
                    assert into == bytes(len(into))
            right = xxhash.xxh3_64_intdigest(noise(2_000_000))
            assert all(digest == right for digest in seen)
            assert not connection.closed.is_set()

    stage.run(main)


async def _cancel_after(scope: trio.CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    scope.cancel()


def test_the_buffer_of_a_cancelled_call_is_not_written_any_more(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        into, header = bytearray(500_000), codec.encode(Told(1))
        async with puppet(stage) as (connection, stream, inbox):
            async with trio.open_nursery() as nursery:

                async def call() -> None:
                    await connection.call(Ask(1), timeout_s=SOON_S, into=memoryview(into))

                nursery.start_soon(call)
                await read_frame(inbox)
                begun = frame.pack(Kind.REPLY, 1, len(header), len(into)) + header
                await send(stream, begun, b"x" * 100_000)
                while into[99_999] == 0:
                    await stage.client.clock.sleep(0.001)
                nursery.cancel_scope.cancel()
            into[:] = bytes(len(into))
            await send(stream, b"x" * 400_000)
            await answer(connection, stream, inbox)
            assert into == bytes(len(into))

    stage.run(main)


async def answer(connection: Connection, stream: Stream, inbox: Inbox) -> None:
    """One more call, to see that the connection is well and in step."""

    async def reply() -> None:
        kind, request_id = Kind.CANCEL, 0
        while kind is not Kind.REQUEST:
            (kind, request_id, _, _), _, _ = await read_frame(inbox)
        await send(stream, raw_frame(Kind.REPLY, request_id, codec.encode(Told(9))))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reply)
        received = await connection.call(Ask(9), timeout_s=SOON_S)
        assert received.message == Told(9)


async def take(inbox: Inbox, length_bytes: int) -> bytes:
    data = bytearray(length_bytes)
    await inbox.fill(memoryview(data), lambda: True)
    return bytes(data)


def test_an_answer_before_the_request_is_sent_leaves_its_buffers_to_the_caller() -> None:
    async def main(stage: Stage) -> None:
        payload = bytearray(noise(6_000_000))
        async with puppet(stage) as (connection, stream, inbox):
            async with trio.open_nursery() as nursery:

                async def call() -> None:
                    await connection.call(Ask(1), [payload], timeout_s=SOON_S)
                    payload[:] = bytes(len(payload))

                nursery.start_soon(call)
                await inbox.need(frame.PREFIX_BYTES)
                await send(stream, raw_frame(Kind.REPLY, 1, codec.encode(Told(1))))
            assert payload == bytes(len(payload))
            await take(inbox, frame.PREFIX_BYTES + len(codec.encode(Ask(1))))
            assert await take(inbox, len(payload)) == noise(6_000_000)
            await answer(connection, stream, inbox)

    simulated_stage().run(main)


def test_a_queued_notice_keeps_a_copy_of_its_payload() -> None:
    async def main(stage: Stage) -> None:
        async with puppet(stage) as (connection, _, inbox):
            payload = bytearray(1_000_000)
            for number in range(6):
                payload[:] = bytes([number]) * len(payload)
                assert connection.notify(Ask(number), [payload])
            assert connection._outbox.queued_bytes > len(payload)
            for number in range(6):
                await take(inbox, frame.PREFIX_BYTES + len(codec.encode(Ask(number))))
                assert await take(inbox, len(payload)) == bytes([number]) * len(payload)

    simulated_stage().run(main)


def test_a_requests_buffer_is_not_reused_before_the_answer_is_sent() -> None:
    """Handlers may answer with the payload they got."""

    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: echo}) as met:
            stream, inbox = await met.intruder()
            header = codec.encode(Ask(0))
            for number in range(1, 9):
                prefix = frame.pack(Kind.REQUEST, number, len(header), 1_000_000)
                await send(stream, prefix, header, bytes([number]) * 1_000_000)
            for _ in range(8):
                await inbox.need(frame.PREFIX_BYTES)
                got = frame.parse(inbox.data, inbox.start, _ANY)
                await take(inbox, frame.PREFIX_BYTES + got.header_bytes)
                assert await take(inbox, 1_000_000) == bytes([got.request_id]) * 1_000_000
            stream.close()

    simulated_stage().run(main)


def test_cancelled_handlers_give_their_buffers_back(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async def hold(_: Request) -> Told:
            await trio.sleep_forever()
            raise AssertionError

        bound = limits(max_request_bytes=1 << 20)
        async with meeting(stage, {Ask: hold, Told: echo}, bound) as met:
            connection = await met.connect()
            for _ in range(3):
                with pytest.raises(Failure):
                    await connection.call(Ask(0), [bytes(1 << 20)], timeout_s=0.1)
            data = noise(1 << 20)
            received = await connection.call(Told(0), [data], timeout_s=SOON_S)
            assert received.payload == data

    stage.run(main)


def test_request_buffers_are_reused_and_bounded(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        small = limits(buffer_pool_bytes=2 << 20)
        async with meeting(stage, {Ask: echo}, small) as met:
            connection = await met.connect()

            async def call() -> None:
                await connection.call(Ask(0), [bytes(1 << 20)], timeout_s=SOON_S)

            for _ in range(3):
                async with trio.open_nursery() as nursery:
                    for _ in range(6):
                        nursery.start_soon(call)
            pool = met.accepted[0]._endpoint.buffers
            assert 0 < pool.idle_bytes <= 2 << 20

    stage.run(main)


def test_large_requests_wait_until_handlers_have_let_go_of_others() -> None:
    async def main(stage: Stage) -> None:
        running, most, release = 0, 0, trio.Event()

        async def hold(_: Request) -> Told:
            nonlocal running, most
            running, most = running + 1, max(most, running + 1)
            await release.wait()
            running -= 1
            return Told(0)

        async with meeting(stage, {Ask: hold}, limits(max_request_bytes=3 << 20)) as met:
            connection = await met.connect()

            async def call() -> None:
                await connection.call(Ask(0), [bytes(1 << 20)], timeout_s=SOON_S)

            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(call)
                await stage.client.clock.sleep(1)
                assert most == 3
                release.set()

    simulated_stage().run(main)


def test_a_reply_tells_when_its_buffers_are_free(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        freed = list[int]()

        def reply(request: Request) -> Reply:
            number = request.message.number
            return Reply(Told(number), [bytes(500_000)], on_sent=lambda: freed.append(number))

        async with meeting(stage, {Ask: reply}) as met:
            connection = await met.connect()
            await connection.call(Ask(1), timeout_s=SOON_S)
            assert freed == [1]
            stream, _ = await met.intruder()  # never reads what it asked for
            asks = [raw_frame(Kind.REQUEST, i, codec.encode(Ask(i))) for i in range(2, 31)]
            await send(stream, *asks)
            await connection.call(Ask(31), timeout_s=SOON_S)
            stream.close()
            await met.left.wait()
            assert sorted(freed) == list(range(1, 32))

    stage.run(main)


def test_the_reader_waits_for_a_slow_payload_without_holding_up_answers(stage: Stage) -> None:
    """What was asked before an unfinished payload is answered while it trickles in."""

    async def main(stage: Stage) -> None:
        async with meeting(stage, {Ask: echo_inline}) as met:
            stream, inbox = await met.intruder()
            header = codec.encode(Ask(2))
            begun = frame.pack(Kind.REQUEST, 2, len(header), 300_000) + header + bytes(100_000)
            await send(stream, raw_frame(Kind.REQUEST, 1, codec.encode(Ask(1))), begun)
            assert (await read_frame(inbox))[0].request_id == 1
            await send(stream, bytes(200_000))
            await inbox.need(frame.PREFIX_BYTES)
            assert frame.parse(inbox.data, inbox.start, _ANY).request_id == 2
            stream.close()

    stage.run(main)


# -- the outbox alone, on a stream that takes what it likes


class Sink:
    """A stream that takes as many bytes at a time as it is told, and sometimes none."""

    peer = "sink"

    def __init__(self, takes: list[int]) -> None:
        self._takes = takes
        self.taken = bytearray()

    def send_nowait(self, buffers: list[Buffer]) -> int:
        room = self._takes.pop(0) if self._takes else 1 << 20
        data = b"".join(bytes(b) for b in buffers)[:room]
        self.taken += data
        return len(data)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.binary(max_size=50), min_size=1, max_size=3), max_size=12),
    st.lists(st.integers(0, 60), max_size=30),
    st.data(),
)
def test_frames_leave_whole_and_in_order_or_not_at_all(
    frames: list[list[bytes]], takes: list[int], data: st.DataObject
) -> None:
    sink = Sink(takes)
    expected: list[bytes] = []
    sent: list[int] = []

    async def main() -> None:
        outbox = Outbox(sink, 1 << 20)  # type: ignore[arg-type]
        for number, frame_ in enumerate(frames):
            buffers: list[Buffer] = [b"head", *map(bytearray, frame_)]
            whole = b"".join(buffers)
            outbox.corked = data.draw(st.booleans())
            outgoing = outbox.post(
                buffers, len(whole), partial(sent.append, number), later=data.draw(st.booleans())
            )
            unsent = False
            if outgoing is not None and data.draw(st.booleans()):
                unsent = outbox.release(outgoing)
                for buffer in buffers[1:]:
                    assert isinstance(buffer, bytearray)
                    buffer[:] = b"?" * len(buffer)  # free for reuse
            if not unsent:
                expected.append(whole)
        outbox.corked = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            outbox.flush()
            while outbox.queued_bytes:
                await trio.lowlevel.checkpoint()
            outbox.close()

    trio.run(main)
    assert bytes(sink.taken) == b"".join(expected)
    assert sorted(sent) == list(range(len(frames)))


def test_a_connection_with_much_queued_makes_callers_wait() -> None:
    async def main(stage: Stage) -> None:
        bound = limits(max_queued_bytes=2 << 20)
        async with meeting(stage, {Ask: echo}) as met:
            connection = await met.connect(limits=bound)
            most = 0

            async def call() -> None:
                await connection.call(Ask(0), [bytes(1 << 20)], timeout_s=SOON_S)

            async def watch() -> None:
                nonlocal most
                while True:
                    most = max(most, connection._outbox.queued_bytes)
                    await stage.client.clock.sleep(0.0001)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                async with trio.open_nursery() as callers:
                    for _ in range(20):
                        callers.start_soon(call)
                nursery.cancel_scope.cancel()
            assert (1 << 20) < most <= (3 << 20) + 1000

    simulated_stage().run(main)


def test_an_inbox_never_holds_more_than_its_capacity() -> None:
    assert len(Inbox(Sink([]), 4096).data) == 4096  # type: ignore[arg-type]
