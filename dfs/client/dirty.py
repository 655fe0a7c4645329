"""Written data that has not reached its replicas yet: one file's, pure bookkeeping without I/O.

Data is kept per slot of the packet grid, as sorted pieces that do not overlap; a later write
replaces what it covers. `seal` turns a slot's pieces into packets, which then count as in flight
and never change. While a slot has packets in flight its newer pieces stay, so an older packet can
never land after a newer one. Data written by the caller as `bytes` is kept as it is, never copied;
small writes are gathered in a buffer of our own.

Every write has a number, so that a flush can wait for all writes up to its own beginning.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from dfs.client.grid import Grid
from dfs.layout import BLOCK_BYTES, CHUNK_BYTES
from dfs.runtime.network import Buffer

PIECE_OVERHEAD_BYTES = 256  # what a piece costs besides its data


@dataclass(slots=True)
class Piece:
    """Bytes [start, stop) of the file. A bytearray is ours and may still grow."""

    start: int
    stop: int
    data: Buffer


@dataclass(slots=True, eq=False)
class Packet:
    """Contiguous bytes of one slot on their way to the replicas."""

    slot: int
    index: int  # of the chunk
    start: int  # in the file
    length_bytes: int
    buffers: tuple[Buffer, ...]
    oldest: int  # number of the oldest write in it
    charge_bytes: int
    sync: bool = False
    sync_covers: int = 0

    @property
    def stop(self) -> int:
        return self.start + self.length_bytes

    @property
    def chunk_offset(self) -> int:
        return self.start % CHUNK_BYTES


@dataclass(slots=True)
class _Slot:
    oldest: int
    pieces: list[Piece] = field(default_factory=list)
    covered_bytes: int = 0


class DirtyBuffer:
    """The dirty data of one file."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._slots: dict[int, _Slot] = {}  # unsent, in the order first written
        self._due: dict[int, None] = {}  # slots that shall go out
        self._in_flight: dict[int, list[Packet]] = {}  # by slot
        self.writes = 0  # number of the newest write
        # Chunks whose next packet, if it is alone in its slot, is to be synced as it is written;
        # with each what the owner needs to know when that is done (`Packet.sync_covers`).
        self.sync_chunks: dict[int, int] = {}
        self.in_flight_bytes = 0
        self.in_flight_packets = 0

    def __bool__(self) -> bool:
        return bool(self._slots or self._in_flight)

    def put(self, slot_number: int, start: int, data: Buffer) -> int:
        """Take data lying within one slot; how many bytes of charge that adds."""
        stop = start + len(data)
        self.writes += 1
        slot = self._slots.get(slot_number)
        if slot is None:
            slot = self._slots[slot_number] = _Slot(self.writes)
        before = _charge(slot)
        _insert(slot, start, stop, data)
        first, end = self._grid.bounds(slot_number)
        if stop == end or slot.covered_bytes == end - first:
            self._due[slot_number] = None  # the writer has gone through it
        return _charge(slot) - before

    def make_all_due(self) -> None:
        """Let everything that was written go out."""
        for slot in self._slots:
            self._due[slot] = None

    def unsent_packets(self, index: int) -> int:
        """How many packets the unsent data of a chunk would make now."""
        slots = (s for n, s in self._slots.items() if self._grid.chunk_of(n) == index)
        return sum(sum(1 for _ in _runs(slot.pieces)) for slot in slots)

    def unsent_chunks(self) -> list[int]:
        """The chunks with unsent data."""
        return list(dict.fromkeys(self._grid.chunk_of(slot) for slot in self._slots))

    def chunk_in_flight(self, index: int) -> bool:
        return any(self._grid.chunk_of(slot) == index for slot in self._in_flight)

    def next_packets(self) -> list[Packet]:
        """The packets of the next due slot, now in flight; none when there is no such slot."""
        for slot in self._due:
            if slot not in self._in_flight:
                return self._seal(slot)
        return []

    def finished(self, packet: Packet) -> None:
        """A packet is on its replicas, or has failed for good: forget it."""
        others = self._in_flight[packet.slot]
        others.remove(packet)
        if not others:
            del self._in_flight[packet.slot]
        self.in_flight_bytes -= packet.length_bytes
        self.in_flight_packets -= 1

    def discard_unsent(self) -> int:
        """Drop what has not been sent; the charge that frees."""
        charge = sum(_charge(slot) for slot in self._slots.values())
        self._slots.clear()
        self._due.clear()
        return charge

    def oldest(self) -> int:
        """Number of the oldest write not finished; beyond the newest when all are."""
        oldest = self.writes + 1
        for slot in self._slots.values():
            oldest = min(oldest, slot.oldest)
        for packets in self._in_flight.values():
            oldest = min(oldest, *(p.oldest for p in packets))
        return oldest

    def end(self) -> int:
        """The end of the furthest byte held here, 0 for none."""
        ends = [s.pieces[-1].stop for s in self._slots.values() if s.pieces]
        ends += [p.stop for packets in self._in_flight.values() for p in packets]
        return max(ends, default=0)

    def overlay(self, start: int, stop: int) -> list[Piece]:
        """What lies over [start, stop) of the replicas' data, older first, clipped, immutable."""
        if not self:
            return []
        found: list[Piece] = []
        for number, low, high in self._grid.pieces(start, stop):
            for packet in self._in_flight.get(number, ()):
                at = packet.start
                for buffer in packet.buffers:
                    _clip(found, at, buffer, low, high)
                    at += len(buffer)
            slot = self._slots.get(number)
            if slot is not None:
                for piece in slot.pieces:
                    _clip(found, piece.start, piece.data, low, high)
        return found

    def _seal(self, number: int) -> list[Packet]:
        slot = self._slots.pop(number)
        del self._due[number]
        index = self._grid.chunk_of(number)
        packets = [_packet(number, index, slot.oldest, run) for run in _runs(slot.pieces)]
        if index in self.sync_chunks and len(packets) == 1:
            packets[0].sync, packets[0].sync_covers = True, self.sync_chunks.pop(index)
        self._in_flight[number] = list(packets)
        self.in_flight_bytes += sum(p.length_bytes for p in packets)
        self.in_flight_packets += len(packets)
        return packets


def _charge(slot: _Slot) -> int:
    return slot.covered_bytes + PIECE_OVERHEAD_BYTES * len(slot.pieces)


def _insert(slot: _Slot, start: int, stop: int, data: Buffer) -> None:
    pieces = slot.pieces
    if not pieces or start >= pieces[-1].stop:
        slot.covered_bytes += stop - start
        if not (pieces and _gathered(pieces[-1], start, data)):
            pieces.append(Piece(start, stop, _own(data)))
        return
    low = bisect_right(pieces, start, key=lambda p: p.stop)
    high = bisect_left(pieces, stop, key=lambda p: p.start)
    kept: list[Piece] = []
    for piece in pieces[low:high]:
        slot.covered_bytes -= piece.stop - piece.start
        kept += _cut(piece, piece.start, start) + _cut(piece, stop, piece.stop)
    slot.covered_bytes += stop - start + sum(p.stop - p.start for p in kept)
    before = [p for p in kept if p.stop <= start]
    after = [p for p in kept if p.start >= stop]
    pieces[low:high] = [*before, Piece(start, stop, _own(data)), *after]


def _gathered(last: Piece, start: int, data: Buffer) -> bool:
    """Append to a piece that gathers small writes, if that is what comes."""
    if last.stop != start or type(last.data) is not bytearray or len(data) >= BLOCK_BYTES:
        return False
    last.data += data
    last.stop += len(data)
    return True


def _own(data: Buffer) -> Buffer:
    """The data in a form that no one else changes; small data in one that may grow."""
    if len(data) < BLOCK_BYTES:
        return bytearray(data)
    return data if type(data) is bytes else bytes(data)


def _cut(piece: Piece, start: int, stop: int) -> list[Piece]:
    """What lies in [start, stop) of a piece. A small rest does not keep a large buffer alive."""
    if start >= stop:
        return []
    low, high = start - piece.start, stop - piece.start
    if type(piece.data) is bytearray or 2 * (high - low) < len(piece.data):
        return [Piece(start, stop, bytearray(memoryview(piece.data)[low:high]))]
    return [Piece(start, stop, memoryview(piece.data)[low:high])]


def _runs(pieces: list[Piece]) -> Iterator[list[Piece]]:
    """The pieces grouped into contiguous runs."""
    run: list[Piece] = []
    for piece in pieces:
        if run and run[-1].stop != piece.start:
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _packet(slot: int, index: int, oldest: int, run: list[Piece]) -> Packet:
    length = run[-1].stop - run[0].start
    buffers: tuple[Buffer, ...] = tuple(p.data for p in run)
    if any(p.start % BLOCK_BYTES for p in run[1:]):
        buffers = (b"".join(buffers),)  # so that every checksummed block lies in one buffer
    charge = length + PIECE_OVERHEAD_BYTES * len(run)
    return Packet(slot, index, run[0].start, length, buffers, oldest, charge)


def _clip(found: list[Piece], at: int, data: Buffer, low: int, high: int) -> None:
    start, stop = max(at, low), min(at + len(data), high)
    if start >= stop:
        return
    # A bytearray may grow, which an exported view forbids: hand out a copy of it.
    view = memoryview(data)[start - at : stop - at]
    found.append(Piece(start, stop, bytes(view) if type(data) is bytearray else view))
