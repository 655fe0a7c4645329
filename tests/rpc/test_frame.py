"""The fixed part of a frame, and taking frames out of a stream that is cut anywhere."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from dfs.errors import Code, Failure
from dfs.rpc import frame
from dfs.rpc.frame import FrameLimits, Kind, Prefix
from dfs.rpc.inbox import Inbox
from dfs.runtime import Buffer

LIMITS = FrameLimits(header_bytes=1000, payload_bytes=100_000)
KINDS = st.sampled_from(Kind)
IDS = st.integers(0, 2**64 - 1)


@given(KINDS, IDS, st.integers(0, 1000), st.integers(0, 100_000), st.integers(0, 9))
def test_what_is_packed_is_parsed(
    kind: Kind, request_id: int, header: int, payload: int, offset: int
) -> None:
    packed = bytes(offset) + frame.pack(kind, request_id, header, payload)
    assert frame.parse(packed, offset, LIMITS) == Prefix(kind, request_id, header, payload)


@given(st.binary(min_size=frame.PREFIX_BYTES, max_size=frame.PREFIX_BYTES))
def test_arbitrary_bytes_are_no_frame(data: bytes) -> None:
    with pytest.raises(Failure, match="not a frame"):
        frame.parse(data, 0, LIMITS)


@given(KINDS, IDS, st.integers(0, frame.PREFIX_BYTES - 1), st.integers(0, 255))
def test_a_mutated_prefix_is_parsed_within_the_limits_or_refused(
    kind: Kind, request_id: int, at: int, value: int
) -> None:
    packed = bytearray(frame.pack(kind, request_id, 10, 10))
    packed[at] = value
    try:
        parsed: Prefix | Code = frame.parse(packed, 0, LIMITS)
    except Failure as failure:
        parsed = failure.code
    if isinstance(parsed, Prefix):
        assert parsed.header_bytes <= LIMITS.header_bytes
        assert parsed.payload_bytes <= LIMITS.payload_bytes
    else:
        assert parsed in (Code.BAD_MESSAGE, Code.UNAUTHENTICATED)


@pytest.mark.parametrize(
    ("header", "payload", "says"),
    [
        (1001, 0, "header of 1001 bytes"),
        (2**32 - 1, 0, "header of 4294967295 bytes"),
        (0, 100_001, "payload of 100001 bytes"),
        (0, 2**32 - 1, "payload of 4294967295 bytes"),
    ],
)
def test_lengths_beyond_the_limits_are_refused(header: int, payload: int, says: str) -> None:
    with pytest.raises(Failure, match=says):
        frame.parse(frame.pack(Kind.REQUEST, 1, header, payload), 0, LIMITS)


def test_another_version_is_named() -> None:
    packed = struct.pack(">4sBBHQII", frame.MAGIC, 9, Kind.HELLO, 0, 0, 0, 0)
    with pytest.raises(Failure, match="protocol version 9, this side 1"):
        frame.parse(packed, 0, LIMITS)


class Pieces:
    """A stream that yields its data in given pieces, then ends."""

    peer = "pieces"

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [p for p in pieces if p]

    def recv_nowait(self, buffer: memoryview) -> int | None:
        if not self._pieces:
            return 0
        piece = self._pieces[0]
        count = min(len(piece), len(buffer))
        buffer[:count] = piece[:count]
        self._pieces[0] = piece[count:]
        if not self._pieces[0]:
            self._pieces.pop(0)
        return count

    def send_nowait(self, buffers: list[Buffer]) -> int:
        raise NotImplementedError

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_writable(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._pieces = []


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in pairwise(at)]


FRAMES = st.lists(st.tuples(st.binary(max_size=60), st.binary(max_size=200)), max_size=6)


@given(FRAMES, st.lists(st.integers(0, 2000), max_size=30))
def test_frames_come_out_whole_wherever_the_stream_is_cut(
    frames: list[tuple[bytes, bytes]], places: list[int]
) -> None:
    data = b"".join(frame.pack(Kind.REQUEST, 1, len(h), len(p)) + h + p for h, p in frames)

    async def main() -> None:
        inbox = Inbox(Pieces(cut(data, places)), 100)  # type: ignore[arg-type]
        for header, payload in frames:
            await inbox.need(frame.PREFIX_BYTES)
            prefix = frame.parse(inbox.data, inbox.start, LIMITS)
            await inbox.need(frame.PREFIX_BYTES + prefix.header_bytes)
            inbox.take(frame.PREFIX_BYTES)
            assert inbox.take(prefix.header_bytes) == header
            destination = bytearray(prefix.payload_bytes)
            assert await inbox.fill(memoryview(destination), lambda: True)
            assert destination == payload
        with pytest.raises(EOFError):
            await inbox.need(1)

    trio.run(main)


@given(st.binary(min_size=1, max_size=500), st.lists(st.integers(0, 500)), st.integers(0, 5))
def test_what_is_no_longer_wanted_is_skipped(data: bytes, places: list[int], wanted: int) -> None:
    """The destination is left alone from the moment on that nobody wants it."""
    left = wanted

    def still_wanted() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    async def main() -> None:
        inbox = Inbox(Pieces([*cut(data, places), b"next"]), 16)  # type: ignore[arg-type]
        destination = bytearray(len(data))
        filled = await inbox.fill(memoryview(destination), still_wanted)
        assert destination == data if filled else data.startswith(destination.rstrip(b"\0"))
        await inbox.need(4)
        assert bytes(inbox.take(4)) == b"next"

    trio.run(main)


class Flood:
    """A stream that always has more."""

    peer = "flood"

    def recv_nowait(self, buffer: memoryview) -> int | None:
        return len(buffer)


def test_a_peer_that_never_stops_sending_lets_others_have_their_turn() -> None:
    async def main() -> None:
        inbox, turns = Inbox(Flood(), 100), 0  # type: ignore[arg-type]

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(1000):
                await inbox.need(100)
                inbox.take(100)
            nursery.cancel_scope.cancel()
        assert turns >= 10

    trio.run(main)
