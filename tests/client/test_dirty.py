"""The buffer of unsent writes against a plain byte string."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from dfs.client.dirty import PIECE_OVERHEAD_BYTES, DirtyBuffer, Packet
from dfs.client.grid import Grid
from dfs.layout import BLOCK_BYTES, CHUNK_BYTES

GRID = Grid(2 * BLOCK_BYTES)


def put(buffer: DirtyBuffer, start: int, data: bytes) -> int:
    charge = 0
    for slot, low, high in GRID.pieces(start, start + len(data)):
        charge += buffer.put(slot, low, data[low - start : high - start])
    return charge


def payload(packet: Packet) -> bytes:
    return b"".join(bytes(b) for b in packet.buffers)


def test_slots_never_cross_a_chunk_and_cover_everything() -> None:
    grid = Grid(1_000_000)
    pieces = list(grid.pieces(CHUNK_BYTES - 1_500_000, CHUNK_BYTES + 1_500_000))
    assert sum(stop - start for _, start, stop in pieces) == 3_000_000
    for slot, start, stop in pieces:
        first, end = grid.bounds(slot)
        assert first <= start < stop <= end
        assert grid.slot_at(start) == grid.slot_at(stop - 1) == slot
        assert grid.chunk_of(slot) == start // CHUNK_BYTES == (stop - 1) // CHUNK_BYTES


def test_a_sequential_writer_sends_each_packet_as_it_leaves_it() -> None:
    buffer = DirtyBuffer(GRID)
    put(buffer, 100, b"x" * (BLOCK_BYTES - 100))
    assert not buffer.next_packets()
    put(buffer, BLOCK_BYTES, b"y" * BLOCK_BYTES)
    (packet,) = buffer.next_packets()
    assert (packet.start, packet.stop) == (100, 2 * BLOCK_BYTES)
    assert not buffer.next_packets()


def test_newer_data_waits_for_the_slots_older_packet() -> None:
    buffer = DirtyBuffer(GRID)
    put(buffer, 0, b"old")
    buffer.make_all_due()
    (old,) = buffer.next_packets()
    put(buffer, 1, b"EW")
    buffer.make_all_due()
    assert not buffer.next_packets()
    assert [bytes(p.data) for p in buffer.overlay(0, 3)] == [b"old", b"EW"]
    buffer.finished(old)
    (new,) = buffer.next_packets()
    assert payload(new) == b"EW"
    buffer.finished(new)
    assert not buffer


def test_large_bytes_are_sent_as_they_came() -> None:
    buffer = DirtyBuffer(GRID)
    whole = bytes(2 * BLOCK_BYTES)
    buffer.put(0, 0, whole)
    (packet,) = buffer.next_packets()
    assert packet.buffers[0] is whole


def test_a_reader_of_unsent_data_does_not_stop_the_writer() -> None:
    buffer = DirtyBuffer(GRID)
    put(buffer, 0, b"a")
    held = buffer.overlay(0, 1)
    put(buffer, 1, b"b")  # would raise BufferError if the view exported the growing buffer
    assert bytes(held[0].data) == b"a"


def test_small_rests_of_overwritten_data_do_not_keep_it_alive() -> None:
    buffer = DirtyBuffer(GRID)
    put(buffer, 0, bytes(BLOCK_BYTES + 10))
    put(buffer, 0, bytes(BLOCK_BYTES))
    pieces = buffer.overlay(0, 2 * BLOCK_BYTES)
    assert [len(p.data) for p in pieces] == [BLOCK_BYTES, 10]
    assert isinstance(pieces[1].data, bytes)  # a copy of its own, not a view of the whole


@dataclass(frozen=True)
class Put:
    start: int
    length: int


EVENTS = st.one_of(
    st.builds(Put, st.integers(0, 5 * BLOCK_BYTES), st.integers(1, 3 * BLOCK_BYTES)),
    st.builds(Put, st.integers(0, 5 * BLOCK_BYTES), st.integers(1, 200)),
    st.sampled_from(["due", "send", "finish"]),
)


@given(st.lists(EVENTS, max_size=40))
def test_what_is_held_and_what_was_sent_make_up_what_was_written(events: list[Put | str]) -> None:
    buffer, written, stored = (
        DirtyBuffer(GRID),
        bytearray(9 * BLOCK_BYTES),
        bytearray(9 * BLOCK_BYTES),
    )
    flying: list[Packet] = []
    charge = 0

    def finish(packet: Packet) -> int:
        stored[packet.start : packet.stop] = payload(packet)
        buffer.finished(packet)
        return packet.charge_bytes

    for number, event in enumerate(events):
        if isinstance(event, Put):
            data = bytes([number + 1]) * event.length
            written[event.start : event.start + event.length] = data
            charge += put(buffer, event.start, data)
        elif event == "due":
            buffer.make_all_due()
        elif event == "send":
            flying += buffer.next_packets()
        elif flying:
            charge -= finish(flying.pop(number % len(flying)))
        seen = bytearray(stored)
        for piece in buffer.overlay(0, len(seen)):
            seen[piece.start : piece.stop] = piece.data
        assert seen == written
        assert buffer.in_flight_bytes == sum(p.length_bytes for p in flying)
        assert charge >= 0
    buffer.make_all_due()
    while buffer:
        flying += buffer.next_packets()
        charge -= finish(flying.pop())
    assert stored == written
    assert charge == 0
    assert buffer.oldest() == buffer.writes + 1
    assert PIECE_OVERHEAD_BYTES > 0
