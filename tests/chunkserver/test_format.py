"""The replica file's header: round trips, and whatever is not a header is seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chunkserver import format as layout
from chunkserver.format import Header
from dfs.layout import BLOCK_BYTES, BLOCKS_PER_CHUNK, CHUNK_BYTES
from dfs.messages.chunks import ReplicaState

numbers = st.integers(0, 2**64 - 1)
headers = st.builds(
    Header,
    sequence=numbers,
    handle=numbers,
    version=numbers,
    generation=numbers,
    length_bytes=st.integers(0, CHUNK_BYTES),
    intent=st.integers(0, 2**BLOCKS_PER_CHUNK - 1),
    cutting=st.booleans(),
    state=st.sampled_from(ReplicaState),
    boot=numbers,
)


@given(headers)
def test_header_survives_packing(header: Header) -> None:
    slot = layout.pack_header(header)
    assert len(slot) == layout.SLOT_BYTES
    assert layout.unpack_header(slot) == header


@given(headers, st.integers(0, 191), st.integers(1, 255))
def test_one_damaged_byte_is_seen(header: Header, position: int, flip: int) -> None:
    slot = bytearray(layout.pack_header(header))
    slot[position] ^= flip
    assert layout.unpack_header(bytes(slot)) is None


@given(st.binary(max_size=layout.SLOT_BYTES))
def test_random_bytes_are_no_header(slot: bytes) -> None:
    assert layout.unpack_header(slot) is None


@given(headers, st.integers(0, 190))
def test_torn_header_is_seen(header: Header, kept: int) -> None:
    slot = layout.pack_header(header)
    torn = slot[:kept].ljust(layout.SLOT_BYTES, b"\0")
    assert layout.unpack_header(torn) is None or torn == slot


def test_newest_of_three_slots_counts_and_damaged_ones_do_not() -> None:
    slots = [layout.pack_header(Header(s, 1, s, 0, 0)) for s in (4, 6, 5)]
    assert [h.sequence for h, _ in layout.valid_headers(b"".join(slots))] == [6, 5, 4]
    slots[1] = bytes(layout.SLOT_BYTES)
    assert [i for _, i in layout.valid_headers(b"".join(slots))] == [2, 0]


def test_future_format_version_is_not_read_as_ours() -> None:
    slot = bytearray(layout.pack_header(Header(1, 1, 1, 0, 0)))
    slot[11] = layout.FORMAT_VERSION + 1
    assert layout.unpack_header(bytes(slot)) is None


def test_blocks_of_a_length() -> None:
    assert [layout.block_count(n) for n in (0, 1, BLOCK_BYTES, BLOCK_BYTES + 1)] == [0, 1, 1, 2]
    assert [layout.extent(1, n) for n in (0, BLOCK_BYTES + 5, 9 * BLOCK_BYTES)] == [
        0,
        5,
        BLOCK_BYTES,
    ]
    assert layout.block_bits(1, 4) == 0b1110
    assert layout.zeros_checksum(BLOCK_BYTES) == layout.ZERO_BLOCK_CHECKSUM
