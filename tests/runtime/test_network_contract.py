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


def test_more_buffers_than_one_system_call_takes(place: Place) -> None:
    async def main(env: Env) -> None:
        buffers = [bytes([i % 251]) * 5 for i in range(5000)]
        async with connected(env) as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send_all, near, buffers)
            assert await receive(far, 25_000) == b"".join(buffers)

    place.run(main)


def test_bytes_sent_before_the_stream_is_accepted_arrive(place: Place) -> None:
    async def main(env: Env) -> None:
        listener = await env.network.listen("127.0.0.1:0")
        near = await env.network.connect(listener.address)
        await send_all(near, [b"early"])
        far = await listener.accept()
        assert await receive(far, 5) == b"early"
        for each in (near, far, listener):
            each.close()

    place.run(main)


def test_a_cancelled_wait_leaves_the_stream_as_it_was(place: Place) -> None:
    async def main(env: Env) -> None:
        async with connected(env) as (near, far):
            for _ in range(3):
                with env.clock.move_on_after(0.01) as scope:
                    await near.wait_readable()
                assert scope.cancelled_caught
            await send_all(far, [b"later"])
            assert await receive(near, 5) == b"later"
            with trio.CancelScope() as scope:
                scope.cancel()
                await near.wait_writable()
            await send_all(near, [b"back"])
            assert await receive(far, 4) == b"back"

    place.run(main)


def test_a_cancelled_accept_loses_no_connection(place: Place) -> None:
    async def main(env: Env) -> None:
        listener = await env.network.listen("127.0.0.1:0")
        with env.clock.move_on_after(0.01) as scope:
            await listener.accept()
        assert scope.cancelled_caught
        near = await env.network.connect(listener.address)
        await send_all(near, [b"x"])
        far = await listener.accept()
        assert await receive(far, 1) == b"x"
        for each in (near, far, listener):
            each.close()

    place.run(main)


def test_one_task_at_a_time_waits_for_a_stream(place: Place) -> None:
    async def main(env: Env) -> None:
        async with connected(env) as (near, _), trio.open_nursery() as nursery:
            nursery.start_soon(near.wait_readable)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await near.wait_readable()
            nursery.cancel_scope.cancel()

    place.run(main)


def test_closing_with_bytes_unread_resets_the_other_end(place: Place) -> None:
    """So that it does not take for delivered what nobody has read."""

    async def main(env: Env) -> None:
        async with connected(env) as (near, far):
            await send_all(far, [b"seen"])
            await send_all(near, [b"never read"])
            await far.wait_readable()
            far.close()
            assert await receive(near, 4) == b"seen"
            with pytest.raises(ConnectionResetError):
                await receive(near, 1)
            with pytest.raises(OSError, match=r".") as caught:
                near.send_nowait([b"more"])
            assert caught.value.errno in (errno.EPIPE, errno.ECONNRESET)

    place.run(main)


def test_a_writer_that_waits_for_room_wakes_when_its_peer_is_gone(place: Place) -> None:
    async def main(env: Env) -> None:
        async with connected(env) as (near, far):

            async def writer() -> None:
                with pytest.raises(OSError, match=r"."):
                    await send_all(near, [bytes(64 << 20)])

            with env.clock.fail_after(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(writer)
                    await trio.testing.wait_all_tasks_blocked()
                    far.close()

    place.run(main)


def test_a_closed_listener_ends_the_connections_that_nobody_accepted(place: Place) -> None:
    async def main(env: Env) -> None:
        listener = await env.network.listen("127.0.0.1:0")
        near = await env.network.connect(listener.address)
        listener.close()
        with pytest.raises(ConnectionResetError):
            await receive(near, 1)
        with pytest.raises(OSError, match=r"."):
            await listener.accept()
        near.close()

    place.run(main)


def test_closing_twice_is_closing(place: Place) -> None:
    async def main(env: Env) -> None:
        listener = await env.network.listen("127.0.0.1:0")
        near = await env.network.connect(listener.address)
        for _ in range(2):
            near.close()
            listener.close()
        for use in (near.wait_readable, near.wait_writable, listener.accept):
            with pytest.raises(OSError, match=r".") as caught:
                await use()
            assert caught.value.errno == errno.EBADF

    place.run(main)


def test_streams_know_whom_they_lead_to(place: Place) -> None:
    async def main(env: Env) -> None:
        listener = await env.network.listen("127.0.0.1:0")
        near = await env.network.connect(listener.address)
        far = await listener.accept()
        assert near.peer == listener.address
        assert far.peer != near.peer
        assert far.peer.rpartition(":")[2].isdigit()
        for each in (near, far, listener):
            each.close()

    place.run(main)


@hypothesis.given(st.lists(st.binary(max_size=5)), st.data())
def test_remaining_is_what_was_not_sent(buffers: list[bytes], data: st.DataObject) -> None:
    content = b"".join(buffers)
    sent = data.draw(st.integers(0, len(content)))
    assert b"".join(remaining(list(buffers), sent)) == content[sent:]
