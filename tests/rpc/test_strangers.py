"""What strangers, broken peers and attackers can bring about: the end of their own connection."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs.errors import Code, Failure
from dfs.rpc import Connection, Handlers, auth, codec, frame
from dfs.rpc.frame import Kind
from dfs.rpc.inbox import Inbox
from tests.conftest import ExpectedLogs
from tests.rpc.stage import (
    KEY,
    OTHER_KEY,
    SOON_S,
    Ask,
    Meeting,
    Stage,
    Told,
    limits,
    meeting,
    raw_frame,
    read_frame,
    read_to_end,
    send,
    simulated_stage,
    watching,
)

HANDLERS: Handlers = {Ask: lambda request: Told(request.message.number)}


async def works(connection: Connection) -> None:
    answer = await connection.call(Ask(5), timeout_s=SOON_S)
    assert answer.message == Told(5)


async def refused_with_one_line(met: Meeting, good: Connection, *data: bytes) -> str:
    """Send that from a stranger; the one log line. `good` must not notice anything."""
    with watching() as lines:
        stream = await met.dial()
        await send(stream, *data)
        await read_to_end(stream)
        stream.close()
    await works(good)
    assert len(lines) == 1, lines
    assert "master-1: refused" in lines[0]
    return lines[0]


HELLO = codec.encode(auth.Hello(b"n" * auth.NONCE_BYTES, "client", 1, "", 1))
OTHER_VERSION = struct.pack(">4sBBHQII", frame.MAGIC, 77, Kind.HELLO, 0, 0, len(HELLO), 0)

STRANGERS = {
    "random bytes": (b"\x93\x1f\x07\xee" * 50, "not a frame"),
    "http": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not a frame: it begins with b'GET '"),
    "4 GiB header": (frame.pack(Kind.HELLO, 0, 2**32 - 1, 0), "header of 4294967295 bytes"),
    "4 GiB payload": (frame.pack(Kind.HELLO, 0, 10, 2**32 - 1), "payload of 4294967295 bytes"),
    "larger than a handshake": (frame.pack(Kind.HELLO, 0, 2000, 0), "header of 2000 bytes"),
    "another version": (OTHER_VERSION + HELLO, "protocol version 77, this side 1"),
    "a request at once": (raw_frame(Kind.REQUEST, 1, codec.encode(Ask(1))), "REQUEST frame"),
    "a proof at once": (raw_frame(Kind.PROOF, 0, codec.encode(auth.Proof(b"x"))), "PROOF frame"),
    "a rejection": (raw_frame(Kind.REJECT, 0, b""), "REJECT frame"),
    "a hello that is no message": (raw_frame(Kind.HELLO, 0, b"\xc1" * 20), "not msgpack"),
    "a hello of another class": (raw_frame(Kind.HELLO, 0, codec.encode(Ask(1))), "Ask where"),
    "a wrong proof": (
        raw_frame(Kind.HELLO, 0, HELLO) + raw_frame(Kind.PROOF, 0, codec.encode(auth.Proof(b"x"))),
        "another cluster key",
    ),
    "a request instead of a proof": (
        raw_frame(Kind.HELLO, 0, HELLO) + raw_frame(Kind.REQUEST, 1, codec.encode(Ask(1))),
        "a REQUEST frame where PROOF was due",
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_one_log_line(stage: Stage, name: str, expected_logs: ExpectedLogs) -> None:
    expected_logs("master-1: refused")
    data, says = STRANGERS[name]

    async def main(stage: Stage) -> None:
        async with meeting(stage, HANDLERS) as met:
            good = await met.connect()
            assert says in await refused_with_one_line(met, good, data)
            assert len(met.accepted) == 1

    stage.run(main)


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=3000), st.integers(0, 3000))
def test_any_bytes_of_a_stranger_are_one_log_line(data: bytes, at: int) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, HANDLERS) as met:
            good = await met.connect()
            await refused_with_one_line(met, good, data[:at], data[at:])

    with watching():
        simulated_stage().run(main)


@pytest.fixture(autouse=True)
def _lines_are_expected(expected_logs: ExpectedLogs) -> None:
    """Nearly every test here provokes lines and counts them itself."""
    expected_logs("refused|closing the connection with client-7|refusing")


def test_a_port_scan_is_no_warning(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, HANDLERS) as met:
            with watching() as lines:
                stream = await met.dial()
                stream.close()
                await works(await met.connect())
            assert not lines

    stage.run(main)


def test_a_silent_peer_is_refused_after_the_handshake_timeout(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        short = limits(handshake_timeout_s=0.05)
        async with meeting(stage, HANDLERS, short) as met:
            with watching() as lines:
                stream = await met.dial()
                assert await read_to_end(stream) == b""
            assert len(lines) == 1
            assert "did not complete the handshake in time" in lines[0]

    stage.run(main)


def test_a_peer_that_sends_a_byte_at_a_time_is_refused_all_the_same() -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, HANDLERS, limits(handshake_timeout_s=1.0)) as met:
            stream = await met.dial()

            async def trickle() -> None:
                for byte in raw_frame(Kind.HELLO, 0, HELLO):
                    await send(stream, bytes([byte]))
                    await stage.client.clock.sleep(0.1)

            begun = stage.client.clock.monotonic()
            with watching() as lines, pytest.raises((ConnectionError, EOFError)):
                await trickle()
            assert stage.client.clock.monotonic() - begun < 2
            assert len(lines) == 1

    simulated_stage().run(main)


def test_a_wrong_key_is_a_clear_failure_on_both_sides(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, HANDLERS) as met:
            with watching() as lines, pytest.raises(Failure) as caught:
                await met.connect(key=OTHER_KEY)
            assert caught.value.code is Code.UNAUTHENTICATED
            assert met.address in caught.value.message
            assert "does not accept this side's cluster key" in caught.value.message
            assert len(lines) == 1
            assert "another cluster key" in lines[0]
            await works(await met.connect())

    stage.run(main)


def test_the_recorded_handshake_of_another_connection_is_refused(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, HANDLERS) as met:
            stream = await met.dial()
            inbox = Inbox(stream, 4096)
            nonce = b"r" * auth.NONCE_BYTES
            dialer = auth.Dialer(KEY, stage.client_endpoint().identity, nonce, 8)
            hello = raw_frame(Kind.HELLO, 0, dialer.hello)
            await send(stream, hello)
            _, challenge, _ = await read_frame(inbox)
            proof = raw_frame(Kind.PROOF, 0, dialer.answer(challenge)[0])
            await send(stream, proof)
            assert (await read_frame(inbox))[0].kind is Kind.PROOF
            line = await refused_with_one_line(met, await met.connect(), hello, proof)
            assert "another cluster key" in line

    stage.run(main)


class Mirror:
    """A server that sends everything back: the cheapest attacker."""

    async def run(self, stage: Stage, task_status: trio.TaskStatus[str]) -> None:
        listener = await stage.server.network.listen("127.0.0.1:0")
        task_status.started(listener.address)
        stream = await listener.accept()
        buffer = bytearray(4096)
        while True:
            got = stream.recv_nowait(memoryview(buffer))
            if got is None:
                await stream.wait_readable()
            elif got:
                await send(stream, bytes(buffer[:got]))
            else:
                return


def test_a_mirror_does_not_pass_for_a_master(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with trio.open_nursery() as nursery:
            address = await nursery.start(Mirror().run, stage)
            met = Meeting(stage, address, nursery)
            with pytest.raises(Failure) as caught:
                await met.connect()
            assert caught.value.code is Code.UNAUTHENTICATED
            nursery.cancel_scope.cancel()

    stage.run(main)


def test_a_server_of_another_version_is_named(stage: Stage) -> None:
    async def other_server(task_status: trio.TaskStatus[str]) -> None:
        listener = await stage.server.network.listen("127.0.0.1:0")
        task_status.started(listener.address)
        stream = await listener.accept()
        await send(stream, OTHER_VERSION + HELLO)
        await read_to_end(stream)

    async def main(stage: Stage) -> None:
        async with trio.open_nursery() as nursery:
            met = Meeting(stage, await nursery.start(other_server), nursery)
            with pytest.raises(Failure, match="protocol version 77, this side 1"):
                await met.connect()

    stage.run(main)


def test_connections_beyond_the_bound_are_closed_with_a_line(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, HANDLERS, limits(max_connections=2)) as met:
            first, second = await met.connect(), await met.connect()
            with watching() as lines, pytest.raises(Failure) as caught:
                await met.connect()
            assert caught.value.code is Code.CONNECTION_LOST
            assert len(lines) == 1
            assert "2 connections are open already" in lines[0]
            await works(first)
            second.close()
            await met.left.wait()
            await works(await met.connect())

    stage.run(main)


def test_a_crowd_of_silent_strangers_does_not_lock_out_who_has_the_key(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        bound = limits(max_connections=20, max_handshakes=5, handshake_timeout_s=1000.0)
        async with meeting(stage, HANDLERS, bound) as met:
            with watching() as lines:
                crowd = [await met.dial() for _ in range(30)]
                await works(await met.connect())
                assert await read_to_end(crowd[0]) == b""
            assert len(lines) == 26
            assert all("crowded out" in line for line in lines)
            for stream in crowd:
                stream.close()

    stage.run(main)


# -- peers that know the key and are broken


async def cut_off(met: Meeting, good: Connection, *data: bytes) -> str:
    """Send that after a good handshake; the one log line."""
    with watching() as lines:
        stream, _ = await met.intruder()
        await send(stream, *data)
        await read_to_end(stream)
        stream.close()
    await works(good)
    assert len(lines) == 1, lines
    assert "closing the connection with client-7" in lines[0]
    return lines[0]


ASK = codec.encode(Ask(1))
BROKEN = {
    "random bytes": (b"\x93\x1f\x07\xee" * 50, "not a frame"),
    "4 GiB header": (frame.pack(Kind.REQUEST, 1, 2**32 - 1, 0), "header of 4294967295 bytes"),
    "4 GiB payload": (frame.pack(Kind.REQUEST, 1, 10, 2**32 - 1), "payload of 4294967295"),
    "no message": (raw_frame(Kind.REQUEST, 1, b"\xc1"), "not msgpack"),
    "a wrong field": (raw_frame(Kind.REQUEST, 1, b"\x92\xcc\xda\xc0"), "Ask.number"),
    "an answer never asked for": (raw_frame(Kind.REPLY, 9, ASK), "request 9, never made"),
    "an error never asked for": (raw_frame(Kind.ERROR, 9, ASK), "request 9, never made"),
    "a request without id": (raw_frame(Kind.REQUEST, 0, ASK), "REQUEST frame"),
    "a notice with id": (raw_frame(Kind.NOTICE, 3, ASK), "NOTICE frame"),
    "a second handshake": (raw_frame(Kind.HELLO, 0, HELLO), "HELLO frame"),
    "a ping with a payload": (raw_frame(Kind.PING, 0, b"", b"x"), "PING frame"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_peer_is_one_log_line(stage: Stage, name: str) -> None:
    data, says = BROKEN[name]

    async def main(stage: Stage) -> None:
        async with meeting(stage, HANDLERS) as met:
            good = await met.connect()
            assert says in await cut_off(met, good, data)

    stage.run(main)


GOOD_FRAMES = [
    raw_frame(Kind.REQUEST, 1, ASK),
    raw_frame(Kind.REQUEST, 2, ASK, b"payload" * 20),
    raw_frame(Kind.NOTICE, 0, ASK),
    raw_frame(Kind.CANCEL, 1),
    raw_frame(Kind.PING),
    raw_frame(Kind.PONG),
]


@settings(max_examples=100)
@given(st.lists(st.sampled_from(GOOD_FRAMES), min_size=1, max_size=5), st.data())
def test_no_mutated_frames_harm_others(frames: list[bytes], data: st.DataObject) -> None:
    """Whatever comes after the proof: at most one line, and the others' calls are answered."""
    mutated = bytearray(b"".join(frames))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(mutated)))
    cuts = sorted(data.draw(st.lists(st.integers(0, end), max_size=4)))

    async def main(stage: Stage) -> None:
        handlers = {Ask: lambda r: Told(0) if r.payload != b"?" else None}
        async with meeting(stage, {**HANDLERS, Told: handlers[Ask]}) as met:
            good = await met.connect()
            with watching() as lines:
                stream, _ = await met.intruder()
                for a, b in zip([0, *cuts], [*cuts, end], strict=True):
                    await send(stream, bytes(mutated[a:b]))
                await works(good)
                stream.close()
                await works(good)
                await met.accepted[1].closed.wait()
            closing = [line for line in lines if "closing the connection" in line]
            assert len(closing) <= 1

    with watching():
        simulated_stage().run(main)


def test_an_unknown_message_is_answered_and_the_connection_goes_on(stage: Stage) -> None:
    """A newer peer may ask for what this side does not know."""

    async def main(stage: Stage) -> None:
        async with meeting(stage, HANDLERS) as met:
            stream, inbox = await met.intruder()
            await send(stream, raw_frame(Kind.REQUEST, 1, b"\x91\xcd\x27\x0f", b"payload"))
            prefix, header, _ = await read_frame(inbox)
            assert prefix.kind is Kind.ERROR
            assert codec.decode(header).code == Code.BAD_MESSAGE
            await send(stream, raw_frame(Kind.REQUEST, 2, ASK))
            prefix, header, _ = await read_frame(inbox)
            assert (prefix.kind, codec.decode(header)) == (Kind.REPLY, Told(1))
            stream.close()

    stage.run(main)


def test_announced_lengths_allocate_nothing(stage: Stage) -> None:
    async def main(stage: Stage) -> None:
        async with meeting(stage, HANDLERS) as met:
            good = await met.connect()
            await refused_with_one_line(met, good, STRANGERS["4 GiB payload"][0])
            tracemalloc.start()
            try:
                await refused_with_one_line(met, good, STRANGERS["4 GiB payload"][0])
                await refused_with_one_line(met, good, STRANGERS["4 GiB header"][0])
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 1 << 20

    stage.run(main)
