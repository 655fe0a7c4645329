"""What both networks promise."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hypothesis
import pytest
import trio
from hypothesis import strategies as st

from dfs.runtime import Env, Stream
from dfs.runtime.network import recv_exactly, remaining, send_all
from tests.runtime.worlds import Place


@asynccontextmanager
async def connected(env: Env) -> AsyncIterator[tuple[Stream, Stream]]:
    """Both ends of a stream."""
    listener = await env.network.listen("127.0.0.1:0")
    near = await env.network.connect(listener.address)
    far = await listener.accept()
    try:
        yield near, far
    finally:
        near.close()
        far.close()
        listener.close()


async def receive(stream: Stream, length_bytes: int) -> bytes:
    data = bytearray(length_bytes)
    await recv_exactly(stream, memoryview(data))
    return bytes(data)


async def receive_end(stream: Stream) -> int:
    """What the next read says once it need not wait: 0 is the end."""
    buffer = memoryview(bytearray(10))
    while (got := stream.recv_nowait(buffer)) is None:
        await stream.wait_readable()
    return got


async def send_for_ever(env: Env, stream: Stream) -> None:
    while True:
        stream.send_nowait([b"x"])
        await env.clock.sleep(0.001)


def test_bytes_arrive_in_order_both_ways(place: Place) -> None:
    async def main(env: Env) -> None:
        async with connected(env) as (near, far):
            await send_all(near, [b"ab", b"", bytearray(b"cd"), memoryview(b"ef")])
            assert await receive(far, 6) == b"abcdef"
            await send_all(far, [b"back"])
            assert await receive(near, 4) == b"back"

    place.run(main)


def test_an_empty_stream_would_block(place: Place) -> None:
    async def main(env: Env) -> None:
        async with connected(env) as (near, _):
            assert near.recv_nowait(memoryview(bytearray(10))) is None

    place.run(main)


def test_a_writer_is_held_back_until_its_reader_reads(place: Place) -> None:
    async def main(env: Env) -> None:
        async with connected(env) as (near, far):
            piece, sent = bytes(1 << 20), 0
            with env.clock.move_on_after(5) as scope:
                while not scope.cancelled_caught:
                    got = near.send_nowait([piece])
                    sent += got
                    if got == 0:
                        with env.clock.move_on_after(0.05) as pause:
                            await near.wait_writable()
                        if pause.cancelled_caught:
                            break
            assert 0 < sent < 64 << 20
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.wait_writable)
                await receive(far, sent)

    place.run(main)


def test_more_than_a_window_passes_through(place: Place) -> None:
    async def main(env: Env) -> None:
        content = env.random.token(5 << 20)
        async with connected(env) as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(
                send_all, near, [content[:7], content[7 : 3 << 20], content[3 << 20 :]]
            )
            assert await receive(far, len(content)) == content

    place.run(main)


def test_the_end_comes_after_the_bytes(place: Place) -> None:
    async def main(env: Env) -> None:
        async with connected(env) as (near, far):
            await send_all(near, [b"last"])
            near.close()
            assert await receive(far, 4) == b"last"
            assert await receive_end(far) == 0
            with pytest.raises(EOFError):
                await receive(far, 1)

    place.run(main)


def test_writing_to_a_closed_peer_fails_in_the_end(place: Place) -> None:
    async def main(env: Env) -> None:
        async with connected(env) as (near, far):
            far.close()
            with pytest.raises(OSError, match=r"."), env.clock.fail_after(5):
                await send_for_ever(env, near)

    place.run(main)


def test_closing_wakes_whoever_waits_on_the_stream(place: Place) -> None:
    async def main(env: Env) -> None:
        async with connected(env) as (near, _):

            async def reader() -> None:
                with pytest.raises(OSError, match=r"."):
                    await near.wait_readable()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader)
                await trio.testing.wait_all_tasks_blocked()
                near.close()
            with pytest.raises(OSError, match=r"."):
                near.send_nowait([b"x"])
            with pytest.raises(OSError, match=r"."):
                near.recv_nowait(memoryview(bytearray(1)))
            with pytest.raises(OSError, match=r"."):
                await near.wait_writable()

    place.run(main)


def test_closing_a_listener_wakes_its_acceptor_and_frees_the_address(place: Place) -> None:
    async def main(env: Env) -> None:
        listener = await env.network.listen("127.0.0.1:0")

        async def acceptor() -> None:
            with pytest.raises(OSError, match=r"."):
                await listener.accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(acceptor)
            await trio.testing.wait_all_tasks_blocked()
            listener.close()
        with pytest.raises(ConnectionRefusedError):
            await env.network.connect(listener.address)
        (await env.network.listen(listener.address)).close()

    place.run(main)


def test_two_listeners_do_not_share_an_address(place: Place) -> None:
    async def main(env: Env) -> None:
        listener = await env.network.listen("127.0.0.1:0")
        with pytest.raises(OSError, match=r"listening on") as caught:
            await env.network.listen(listener.address)
        assert caught.value.errno == errno.EADDRINUSE
        listener.close()

    place.run(main)


def test_a_senseless_address_is_refused(place: Place) -> None:
    async def main(env: Env) -> None:
        for address in ("nonsense", "host:port", "127.0.0.1:"):
            with pytest.raises(OSError, match=r"host:port") as caught:
                await env.network.listen(address)
            assert caught.value.errno == errno.EINVAL

    place.run(main)


def test_several_connections_are_accepted_in_turn(place: Place) -> None:
    async def main(env: Env) -> None:
        listener = await env.network.listen("127.0.0.1:0")
        near = [await env.network.connect(listener.address) for _ in range(5)]
        far = [await listener.accept() for _ in range(5)]
        for i, stream in enumerate(near):
            await send_all(stream, [bytes([i])])
        assert sorted([await receive(stream, 1) for stream in far]) == [b"%c" % i for i in range(5)]
        for stream in (*near, *far):
            stream.close()
        listener.close()

    place.run(main)


@hypothesis.given(st.lists(st.binary(max_size=5)), st.data())
def test_remaining_is_what_was_not_sent(buffers: list[bytes], data: st.DataObject) -> None:
    content = b"".join(buffers)
    sent = data.draw(st.integers(0, len(content)))
    assert b"".join(remaining(list(buffers), sent)) == content[sent:]
