"""What a replica file looks like. Owns every byte offset in it; does no I/O.

    offset  length
         0     512  header slot 0
       512     512  header slot 1; of the valid slots the one with the highest sequence counts
      1024     512  header slot 2
      4096    8192  checksum table: 1024 entries of 8 bytes, big-endian, one per 64 KiB block
     65536       -  data; the file ends where the replica ends

Header slot, big-endian, zeros up to 512 bytes:

         0       8  magic "dfsreplc"
         8       4  format version (2)
        12       4  flags: bit 0 CUTTING, bits 1 and 2 the replica's state (`chunks.ReplicaState`)
        16       8  sequence: one more than the slot written before
        24       8  chunk handle
        32       8  chunk version
        40       8  generation
        48       8  length in bytes
        56     128  intent: bit i of the integer is block i
       184       8  boot: the run of the machine in which the slot was written (`Disk.boot`)
       192     128  touched: those of the intent that no sync has covered since they were written
       320       8  xxh3_64 of the bytes before

Format 1 ends with the intent, and its checksum stands at 184. It is read, and never written.

A slot lies in a sector of its own and there are three, so that a new one overwrites neither the
newest nor the one that the last sync made durable: whatever tears while it is written, an older
slot is whole. A table entry is the checksum of the block's bytes that lie within the replica's
length (the last block is usually short), 0 for a block that was never written and reads as zeros.
Entries of blocks beyond the length mean nothing.

The intent holds each block whose data may be newer than the last sync, and others that are likely
to be written soon, beyond the end too. While it is not empty, the length is the file's own (file
size minus 65536) and the header's only a lower bound, unless CUTTING says that the file is yet to
be cut to the header's length. What is touched is known by a process that was killed, and guessed
from the intent after a power loss, which may have taken the newest header away. See `replica` for
the order of the writes that this rests on.

Newer format versions get another number at the same place; a slot with an unknown one is invalid.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dfs.checksums import checksum
from dfs.layout import BLOCK_BYTES, BLOCKS_PER_CHUNK, CHUNK_BYTES
from dfs.messages.chunks import ReplicaState

MAGIC = b"dfsreplc"
FORMAT_VERSION = 2
FLAG_CUTTING = 1
_STATE_SHIFT, _STATE_MASK = 1, 3
UNKNOWN_BOOT = 0  # of slots of format 1

SLOT_BYTES = 512
SLOTS = 3
HEADER_BYTES = SLOT_BYTES * SLOTS
TABLE_OFFSET = 4096
ENTRY_BYTES = 8
TABLE_BYTES = BLOCKS_PER_CHUNK * ENTRY_BYTES
DATA_OFFSET = 65536

_INTENT_BYTES = BLOCKS_PER_CHUNK // 8
_COMMON = f">8sIIQQQQQ{_INTENT_BYTES}s"
_FIELDS = struct.Struct(f"{_COMMON}Q{_INTENT_BYTES}s")
_FIELDS_OF_1 = struct.Struct(_COMMON)
_CHECKSUM = struct.Struct(">Q")
_FORM = struct.Struct(">I")

_ZERO_BLOCK = bytes(BLOCK_BYTES)
ZERO_BLOCK_CHECKSUM = checksum(_ZERO_BLOCK)


@dataclass(frozen=True, slots=True)
class Header:
    """One header slot's contents. `intent` is a bitmap of blocks."""

    sequence: int
    handle: int
    version: int
    generation: int
    length_bytes: int
    intent: int = 0
    cutting: bool = False
    state: ReplicaState = ReplicaState.SETTLED
    boot: int = UNKNOWN_BOOT
    touched: int = 0


def pack_header(header: Header) -> bytes:
    """The slot's SLOT_BYTES bytes."""
    fields = _FIELDS.pack(
        MAGIC,
        FORMAT_VERSION,
        (FLAG_CUTTING if header.cutting else 0) | header.state << _STATE_SHIFT,
        header.sequence,
        header.handle,
        header.version,
        header.generation,
        header.length_bytes,
        header.intent.to_bytes(_INTENT_BYTES, "big"),
        header.boot,
        header.touched.to_bytes(_INTENT_BYTES, "big"),
    )
    return (fields + _CHECKSUM.pack(checksum(fields))).ljust(SLOT_BYTES, b"\0")


def unpack_header(slot: bytes) -> Header | None:
    """The slot's header; None when it is torn, empty, damaged or of an unknown format."""
    if _is_whole(slot, _FIELDS, FORMAT_VERSION):
        *common, boot, touched = _FIELDS.unpack_from(slot)
    elif _is_whole(slot, _FIELDS_OF_1, 1):
        common, boot = list(_FIELDS_OF_1.unpack_from(slot)), UNKNOWN_BOOT
        touched = common[-1]
    else:
        return None
    _, _, flags, sequence, handle, version, generation, length, intent = common
    if length > CHUNK_BYTES:
        return None
    return Header(
        sequence,
        handle,
        version,
        generation,
        length,
        int.from_bytes(intent, "big"),
        bool(flags & FLAG_CUTTING),
        ReplicaState(flags >> _STATE_SHIFT & _STATE_MASK),
        boot,
        int.from_bytes(touched, "big"),
    )


def _is_whole(slot: bytes, fields: struct.Struct, form: int) -> bool:
    """Whether the slot holds a header of that format whose checksum is right."""
    if len(slot) < fields.size + _CHECKSUM.size or slot[:8] != MAGIC:
        return False
    found: int = _FORM.unpack_from(slot, 8)[0]
    (due,) = _CHECKSUM.unpack_from(slot, fields.size)
    return found == form and checksum(slot[: fields.size]) == due


def valid_headers(slots: bytes) -> list[tuple[Header, int]]:
    """The valid headers among the three slots' bytes with their slot numbers, newest first."""
    found = [(unpack_header(slots[i * SLOT_BYTES : (i + 1) * SLOT_BYTES]), i) for i in range(SLOTS)]
    valid = [(header, i) for header, i in found if header is not None]
    return sorted(valid, key=lambda pair: -pair[0].sequence)


def state_after_stop(header: Header, boot: int) -> ReplicaState:
    """How far a replica found with this header is to be trusted by a process that starts.

    With an intent it was in use when the last process ended: at the least, it may have applied
    what was not acknowledged; after a power loss, lack what was.
    """
    if not header.intent or header.state is ReplicaState.JOINING:
        return header.state
    since = ReplicaState.UNSETTLED if header.boot == boot else ReplicaState.LOST
    return max(header.state, since)


def settled_length(header: Header, file_bytes: int) -> int:
    """The replica's length in bytes, from its header and the file's size (see above)."""
    if header.intent and not header.cutting:
        return min(max(file_bytes - DATA_OFFSET, header.length_bytes), CHUNK_BYTES)
    return header.length_bytes


def block_count(length_bytes: int) -> int:
    """How many blocks a replica of that length has."""
    return -(-length_bytes // BLOCK_BYTES)


def extent(block: int, length_bytes: int) -> int:
    """How many bytes of the block lie within the length."""
    return max(0, min(BLOCK_BYTES, length_bytes - block * BLOCK_BYTES))


def block_bits(first: int, end: int) -> int:
    """The bitmap of blocks first to end - 1."""
    return (1 << max(first, end)) - (1 << first)


def zeros_checksum(length_bytes: int) -> int:
    """The checksum of so many zeros, at most a block."""
    if length_bytes == BLOCK_BYTES:
        return ZERO_BLOCK_CHECKSUM
    return checksum(memoryview(_ZERO_BLOCK)[:length_bytes])
