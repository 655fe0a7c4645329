"""Verifying a replica: what is on the disk against the checksums, at rest and under the turn.

Two steps. `Survey` reads a replica file through a descriptor of its own, without the turn, while
clients may be writing to it: whatever does not fit is no more than a suspect. `verify_blocks` and
`verify_header` then look at the suspects under the chunk's turn, where nobody writes, against the
header and the table that the open `Replica` holds in memory; only they call anything damaged. They
also put right what the open replica knows better than its file: header slots and table entries
that have rotted on the disk. (They are `Replica`'s friends and use what it keeps to itself.)

What is read is dropped from the page cache before, so that the disk's bytes are seen and not those
that were read or written lately, and after, so that a scrub does not push out what clients use.
Pages that are not synced stay: they are not on the disk yet.
"""

from __future__ import annotations

import logging

from chunkserver import format as layout
from chunkserver import sectors
from chunkserver.format import DATA_OFFSET, ENTRY_BYTES, TABLE_BYTES, TABLE_OFFSET
from chunkserver.replica import Replica, _Breaking
from dfs.checksums import checksum
from dfs.layout import BLOCK_BYTES
from dfs.runtime import File

log = logging.getLogger(__name__)


# -- without the turn


class Survey:
    """A look at one replica file. `suspects` are blocks, `bad_header` says that a slot is one."""

    def __init__(self, file: File, handle: int) -> None:
        self._file = file
        file.forget(0, DATA_OFFSET)
        slots = sectors.salvage(file, 0, layout.HEADER_BYTES)
        found = layout.valid_headers(slots)
        self.bad_header = not found or bool(_bad_slots(slots, handle))
        self.length_bytes = layout.settled_length(found[0][0], file.size()) if found else 0
        self.suspects = 0
        self._table = sectors.salvage(file, TABLE_OFFSET, TABLE_BYTES)

    def look(self, offset: int, length_bytes: int) -> None:
        """Verify a range of the data, from a block's beginning on."""
        stop = min(offset + length_bytes, self.length_bytes)
        if stop <= offset:
            return
        position, view = DATA_OFFSET + offset, memoryview(bytearray(stop - offset))
        _forget(self._file, position, len(view))
        got, bad = sectors.read_around(self._file, view, position)
        for at in range(0, len(view), BLOCK_BYTES):
            piece, block = view[at : at + BLOCK_BYTES], (offset + at) // BLOCK_BYTES
            unread = at // BLOCK_BYTES in bad or (not bad and at + len(piece) > got)
            if unread or checksum(piece) != self._entry(block, len(piece)):
                self.suspects |= 1 << block
        _forget(self._file, position, len(view))

    def _entry(self, block: int, length_bytes: int) -> int:
        packed = self._table[block * ENTRY_BYTES : (block + 1) * ENTRY_BYTES]
        return int.from_bytes(packed, "big") or layout.zeros_checksum(length_bytes)


def _forget(file: File, position: int, length_bytes: int) -> None:
    """To the end of the last block: a page of which a part is asked for stays."""
    file.forget(position, layout.block_count(length_bytes) * BLOCK_BYTES)


def _bad_slots(slots: bytes, handle: int) -> list[int]:
    """The header slots that were written and hold no header of this chunk."""
    bad = []
    for slot in range(layout.SLOTS):
        content = slots[slot * layout.SLOT_BYTES : (slot + 1) * layout.SLOT_BYTES]
        header = layout.unpack_header(content)
        if any(content) and (header is None or header.handle != handle):
            bad.append(slot)
    return bad


# -- under the turn


def verify_blocks(blocks: int, writable: bool, replica: Replica) -> int:
    """Verify these blocks; the bitmap of those that are damaged.

    A block that was called damaged and matches is so no more. An entry that differs on the disk
    from the one in memory, which the block matches, is written again.
    """
    wanted = blocks & layout.block_bits(0, layout.block_count(replica.length_bytes))
    for block in range(wanted.bit_length()):
        if wanted >> block & 1 and _verify_block(replica, block) and writable:
            _mend_entry(replica, block)
    return replica.damaged & wanted


def _verify_block(replica: Replica, block: int) -> bool:
    """Whether the block matches its checksum; the replica remembers it."""
    view = memoryview(bytearray(layout.extent(block, replica.length_bytes)))
    position = DATA_OFFSET + block * BLOCK_BYTES
    _forget(replica._file, position, len(view))
    got, bad = sectors.read_around(replica._file, view, position)
    if bad:
        replica.read_errors += not replica.damaged >> block & 1
        replica._found_corrupt(block, "the disk cannot read it")
    elif got < len(view):
        replica._found_corrupt(block, "the file ends before it")
    elif checksum(view) != replica._table.entry(block, replica.length_bytes):
        replica._found_corrupt(block, "checksum mismatch")
    else:
        replica._corrupt &= ~(1 << block)
        return True
    return False


def _mend_entry(replica: Replica, block: int) -> None:
    at = block * ENTRY_BYTES
    replica._file.forget(0, DATA_OFFSET)
    on_disk = sectors.salvage(replica._file, TABLE_OFFSET + at, ENTRY_BYTES)
    if on_disk != replica._table.raw(block):
        log.warning("%s: the checksum of block %d had rotted", replica._about, block)
        replica._headers.touch(0)
        replica._table.write(block, block + 1)


def missing_blocks(replica: Replica) -> int:
    """The bitmap of the blocks that the file ends before."""
    there = max(0, replica._file.size() - DATA_OFFSET)
    if there >= replica.length_bytes:
        return 0
    return layout.block_bits(there // BLOCK_BYTES, layout.block_count(replica.length_bytes))


def verify_header(writable: bool, replica: Replica) -> int:
    """Verify the header slots on the disk, and write those anew that rotted; how many did."""
    replica._file.forget(0, DATA_OFFSET)
    slots = sectors.salvage(replica._file, 0, layout.HEADER_BYTES)
    bad = _bad_slots(slots, replica.handle)
    newest = layout.unpack_header(slots[replica._headers.slot * layout.SLOT_BYTES :])
    sequence = replica._headers.newest.sequence
    if replica._headers.slot not in bad and (newest is None or newest.sequence != sequence):
        bad.append(replica._headers.slot)
    if bad:
        log.warning("%s: header slots %s had rotted", replica._about, sorted(bad))
    if bad and writable:
        with _Breaking(replica, None):
            replica._headers.rewrite(bad)
    return len(bad)
