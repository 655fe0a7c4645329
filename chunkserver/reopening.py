"""What opening a replica file after a stop has to put right (see `replica` for what may be wrong).

Works on the inside of a `Replica` that is just being opened. Touched blocks (after a power loss all
of the intent) whose bytes do not match their checksums are torn or lost changes that nobody was
promised: they are taken as they are and remembered as doubtful, for another replica may know better
(`settling`). A cut that was begun is carried out. A file that ends before its header says so is no
work of a killed process: what it lacks stays damage, unless the power was lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from chunkserver import format as layout
from chunkserver import sectors
from chunkserver.format import DATA_OFFSET, Header
from dfs.checksums import checksum
from dfs.layout import BLOCK_BYTES, BLOCKS_PER_CHUNK
from dfs.messages.chunks import ReplicaState
from dfs.runtime import File

if TYPE_CHECKING:
    from chunkserver.replica import Replica

log = logging.getLogger(__name__)


def headers_on_disk(file: File) -> list[tuple[Header, int]]:
    """The valid headers, the newest first; of a replica that was in use, those of the disk itself.

    After a failed sync the page cache may hold what is not on the disk, and no later sync writes
    it or complains: it is dropped, with that of the blocks in use. What is merely not synced yet
    stays.
    """
    found = layout.valid_headers(read_at_most(file, 0, layout.HEADER_BYTES))
    if not found or not found[0][0].intent:
        return found
    file.forget(0, DATA_OFFSET)
    for block in range(found[0][0].intent.bit_length()):
        if found[0][0].intent >> block & 1:
            file.forget(DATA_OFFSET + block * BLOCK_BYTES, BLOCK_BYTES)
    return layout.valid_headers(read_at_most(file, 0, layout.HEADER_BYTES))


def settle(replica: Replica, size: int, *, writable: bool) -> None:
    """Make a replica that is being opened, of a file that long, consistent in itself."""
    due = DATA_OFFSET + replica.length_bytes
    if writable and (size > due or (size < due and _lost(replica))):
        replica._file.truncate(due)
        size = due
    whole = max(0, size - DATA_OFFSET) // BLOCK_BYTES if size < due else BLOCKS_PER_CHUNK
    suspects = _suspects(replica) & layout.block_bits(0, whole)
    changed = [b for b in _blocks_of(replica, suspects) if _settle_block(replica, b)]
    replica.settled_blocks = len(changed)
    for block in changed:
        replica._doubtful |= 1 << block
    if changed:
        log.info("%s: %d blocks settled after an unclean stop", replica._about, len(changed))
    if writable and changed:
        replica._table.write(changed[0], changed[-1] + 1)
    if writable and replica._headers.newest.cutting:
        replica._file.datasync()
        replica._write_header(cutting=False)


def _suspects(replica: Replica) -> int:
    """The blocks whose checksums may be out of step: any other mismatch is damage."""
    if _power_was_lost(replica):
        return replica.intent
    return replica.intent & replica._headers.newest.touched


def _lost(replica: Replica) -> bool:
    """Only a power loss takes away the end of a file that its header has told of."""
    return _power_was_lost(replica) and bool(replica.intent)


def _power_was_lost(replica: Replica) -> bool:
    """Since the header was written: of one that is joining the state does not tell."""
    return replica.state is ReplicaState.LOST or replica._headers.is_of_another_boot


def _blocks_of(replica: Replica, bitmap: int) -> Iterator[int]:
    count = layout.block_count(replica.length_bytes)
    return (block for block in range(count) if bitmap >> block & 1)


def _settle_block(replica: Replica, block: int) -> bool:
    """Make the entry that of the bytes which are there; whether it was another one.

    What the disk cannot read is damage, as it is of any other block.
    """
    view = memoryview(bytearray(layout.extent(block, replica.length_bytes)))
    _, bad = sectors.read_around(replica._file, view, DATA_OFFSET + block * BLOCK_BYTES)
    if bad:
        replica.read_errors += 1
        replica._found_corrupt(block, "the disk cannot read it")
        return False
    found = checksum(view)  # zeros where the file is short: its length was not synced either
    if found == replica._table.entry(block, replica.length_bytes):
        return False
    replica._table.put(block, found)
    return True


def read_at_most(file: File, offset: int, length_bytes: int) -> bytes:
    """What the file has of that range."""
    data = bytearray(length_bytes)
    return bytes(data[: file.pread_into(memoryview(data), offset)])
