"""One replica: a file that holds a chunk's bytes and their checksums (see `format`).

Owns the order of the writes to that file. Everything here blocks and is synchronous; one caller at
a time. Who may call when, and in which thread, is `store`'s and `lane`'s concern.

A write goes to the file in this order:
  1. a header slot whose intent names the blocks about to change, unless it names them already;
  2. the data;
  3. the checksum table entries.
A kill between any two of them, or in the middle of one, leaves blocks whose bytes do not match
their entry only inside the intent. Opening such a file settles it: each intent block is read, and
where its checksum differs it is computed anew. Unacknowledged bytes are then old or new, and a
block outside the intent that does not match is what it looks like: damage, answered with CORRUPT.

A cut announces itself in the header (CUTTING, with the new length and generation), cuts the file,
writes the last block's entry, and ends with a header without the flag; opening repeats it.

`begin_sync`, `File.datasync` and `end_sync` make a sync: the first writes the header as it is now,
the second runs in any thread while writes go on, the third takes the synced blocks out of the
intent. That last header may stay unsynced: an intent that holds too much costs time, not safety.

Power loss reorders writes between two syncs, which a kill does not. For that case step 1 needs a
datasync of its own before step 2 whenever it adds blocks that a sync had covered, and a cut needs
one before its flag goes. The format is ready for both: the slot that the last sync made durable
is never overwritten, and neither is the newest.

Errors: Failure CORRUPT when stored bytes do not match their checksum, OSError from the file. After
an OSError in a change the replica is `broken`: close it and open it again, which settles it.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from chunkserver import format as layout
from chunkserver.format import DATA_OFFSET, ENTRY_BYTES, TABLE_BYTES, TABLE_OFFSET, Header
from dfs.checksums import checksum
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES, BLOCKS_PER_CHUNK, CHUNK_BYTES
from dfs.runtime import File

log = logging.getLogger(__name__)

# How far an append announces beyond its end: one header write per 4 MiB of a stream.
AHEAD_BLOCKS = 64

_ENTRY = struct.Struct(">Q")


@dataclass(slots=True)
class _Sync:
    """A sync under way: the blocks it covers and the header slot it makes durable."""

    number: int
    blocks: int
    slot: int


class Replica:
    """An open replica file. `about` names it in errors, server and path."""

    def __init__(self, file: File, header: Header, slot: int, table: bytearray, about: str) -> None:
        self._file = file
        self._header = header  # the newest one written; the length in it may be behind
        self._slot = slot
        self._durable_slot = slot
        self._table = table
        self._about = about
        self._corrupt = 0  # bitmap of blocks found damaged
        self._touched = header.intent  # blocks changed since the last `begin_sync`
        self._syncs: list[_Sync] = []
        self._sync_number = 0
        self._dirty = bool(header.intent)  # anything written since the last `begin_sync`
        self.length_bytes = header.length_bytes
        self.broken = False
        self.pins = 0  # who uses the file beside the one caller: syncs, `warm`; see `store`
        self.settled_blocks = 0  # how many checksums opening had to compute anew

    # -- making and opening

    @classmethod
    def create(cls, file: File, handle: int, version: int, generation: int, about: str) -> Replica:
        """A replica in a new, empty file. The first write, or `write_header`, makes it exist."""
        header = Header(0, handle, version, generation, 0)
        return cls(file, header, 0, bytearray(TABLE_BYTES), about)

    @classmethod
    def open(
        cls, file: File, handle: int, about: str, *, writable: bool = True, settled: bool = False
    ) -> Replica:
        """Open and settle. Raises Failure CORRUPT when no header is valid or it is another's.

        Without `writable` (a disk gone read-only) what was settled stays in memory. `settled`
        says that this process has closed it in good order, so that there is nothing to settle.
        """
        found = layout.valid_headers(read_at_most(file, 0, layout.HEADER_BYTES))
        if not found or found[0][0].handle != handle:
            raise Failure(Code.CORRUPT, f"{about}: no valid header for chunk {handle:x}")
        header, slot = found[0]
        table = bytearray(read_at_most(file, TABLE_OFFSET, TABLE_BYTES).ljust(TABLE_BYTES, b"\0"))
        replica = cls(file, header, slot, table, about)
        if len(found) > 1:
            replica._durable_slot = found[1][1]
        size = file.size()
        replica.length_bytes = layout.settled_length(header, size)
        replica._drop_entries_beyond(replica.length_bytes)
        if not settled:
            replica._settle(size, writable)
        return replica

    def _settle(self, size: int, writable: bool) -> None:
        due = DATA_OFFSET + self.length_bytes
        if writable and (size > due or (size < due and self._header.intent)):
            self._file.truncate(due)
        changed = [b for b in self._blocks_of(self._header.intent) if self._settle_block(b)]
        self.settled_blocks = len(changed)
        if changed:
            log.info("%s: %d blocks settled after an unclean stop", self._about, len(changed))
        if writable and changed:
            self._write_entries(changed[0], changed[-1] + 1)
        if writable and self._header.cutting:
            self._write_header(replace(self._header, cutting=False))

    def _blocks_of(self, bitmap: int) -> Iterator[int]:
        count = layout.block_count(self.length_bytes)
        return (block for block in range(count) if bitmap >> block & 1)

    def _settle_block(self, block: int) -> bool:
        """Make the entry that of the bytes which are there; whether it was another one."""
        length = layout.extent(block, self.length_bytes)
        data = read_at_most(self._file, DATA_OFFSET + block * BLOCK_BYTES, length)
        found = checksum(data.ljust(length, b"\0"))  # short: its length was not synced either
        if found == self._entry(block):
            return False
        self._set_entry(block, found)
        return True

    # -- what it is

    @property
    def handle(self) -> int:
        return self._header.handle

    @property
    def version(self) -> int:
        return self._header.version

    @property
    def generation(self) -> int:
        return self._header.generation

    @property
    def dirty(self) -> bool:
        """Whether anything was written that no sync has covered."""
        return self._dirty or bool(self._header.intent)

    @property
    def damaged(self) -> int:
        """Bitmap of the blocks known not to match their checksums."""
        return self._corrupt

    def digest(self) -> int:
        """xxh3_64 over the packed block checksums; a hole counts as the zeros it reads as."""
        return checksum(self._packed(0, layout.block_count(self.length_bytes)))

    # -- reading

    def read(
        self, offset: int, length_bytes: int, *, cached: bool = False
    ) -> tuple[memoryview, bytes] | None:
        """The bytes of a range, short where the replica ends, and their packed checksums.

        Whole blocks carry the stored checksum and are not verified here; the pieces at the edges
        are. With `cached`, None when it would have to wait for the disk.
        """
        end = min(offset + length_bytes, self.length_bytes)
        if end <= offset:
            return memoryview(b""), b""
        first, last = offset // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
        self._refuse_corrupt(first, last + 1)
        start = first * BLOCK_BYTES
        stop = min((last + 1) * BLOCK_BYTES, self.length_bytes)
        view = memoryview(bytearray(stop - start))
        if not self._fill(view, start, cached):
            return None
        packed = bytearray(self._packed(first, last + 1))
        if end < stop:
            self._edge(view, packed, start, last, max(offset, last * BLOCK_BYTES), end)
        if offset > start and not (first == last and end < stop):
            edge_end = min(end, start + BLOCK_BYTES)
            self._edge(view, packed, start, first, offset, edge_end)
        return view[offset - start : end - start], bytes(packed)

    def read_verified(self, offset: int, length_bytes: int) -> tuple[memoryview, bytes]:
        """Whole blocks (the last as far as the replica goes), each verified, and their checksums.

        Raises Failure CORRUPT, and remembers the block.
        """
        end = min(offset + length_bytes, self.length_bytes)
        blocks = range(offset // BLOCK_BYTES, layout.block_count(end))
        data = bytearray().join(self._read_verified(block) for block in blocks)
        return memoryview(data), self._packed(blocks.start, blocks.stop)

    def warm(self, offset: int, length_bytes: int) -> None:
        """Wait until the disk has brought a range; the next read finds it in the page cache."""
        start = offset // BLOCK_BYTES * BLOCK_BYTES
        stop = min(layout.block_count(offset + length_bytes) * BLOCK_BYTES, CHUNK_BYTES)
        if stop > start:
            self._file.pread_into(memoryview(bytearray(stop - start)), DATA_OFFSET + start)

    def _fill(self, view: memoryview, start: int, cached: bool) -> bool:
        position = DATA_OFFSET + start
        got = (
            self._file.pread_cached(view, position)
            if cached
            else self._file.pread_into(view, position)
        )
        if got is None:
            return False
        if got < len(view):
            raise self._found_corrupt((start + got) // BLOCK_BYTES, "the file ends before it")
        return True

    def _edge(
        self, view: memoryview, packed: bytearray, start: int, block: int, begin: int, end: int
    ) -> None:
        """Verify the block that [begin, end) is a piece of, and put the piece's own checksum."""
        at = block * BLOCK_BYTES - start
        whole = view[at : at + layout.extent(block, self.length_bytes)]
        if checksum(whole) != self._entry(block):
            raise self._found_corrupt(block, "checksum mismatch")
        entry = (block * BLOCK_BYTES - start) // BLOCK_BYTES * ENTRY_BYTES
        _ENTRY.pack_into(packed, entry, checksum(view[begin - start : end - start]))

    def _read_block(self, block: int) -> bytearray:
        """The block's bytes within the length, unverified."""
        data = bytearray(layout.extent(block, self.length_bytes))
        self._fill(memoryview(data), block * BLOCK_BYTES, cached=False)
        return data

    def _read_verified(self, block: int) -> bytearray:
        self._refuse_corrupt(block, block + 1)
        data = self._read_block(block)
        if checksum(data) != self._entry(block):
            raise self._found_corrupt(block, "checksum mismatch")
        return data

    def _refuse_corrupt(self, first: int, end: int) -> None:
        damaged = self._corrupt & layout.block_bits(first, end)
        if damaged:
            block = (damaged & -damaged).bit_length() - 1
            raise Failure(Code.CORRUPT, f"{self._about}: block {block} is damaged")

    def _found_corrupt(self, block: int, why: str) -> Failure:
        """Remember a damaged block: it is refused until it is overwritten as a whole."""
        self._corrupt |= 1 << block
        log.error("%s: block %d is damaged: %s", self._about, block, why)
        return Failure(Code.CORRUPT, f"{self._about}: block {block}: {why}")

    # -- writing

    def write(self, offset: int, data: memoryview, packed: bytes) -> None:
        """Write bytes whose packed checksums the caller has verified. Idempotent."""
        end = offset + len(data)
        if end > CHUNK_BYTES or not len(data):
            raise Failure(Code.BAD_MESSAGE, f"{self._about}: no range [{offset}, {end})")
        first, stop = offset // BLOCK_BYTES, layout.block_count(end)
        sums = self._merged(offset, data, packed)
        tail = self._extended_tail(offset)
        begin = min(first, layout.block_count(self.length_bytes)) if tail is None else tail[0]
        self._announce(begin, stop, end)
        with _Breaking(self, self.length_bytes):
            self._file.pwrite([data], DATA_OFFSET + offset)
            if tail is not None:
                self._set_entry(*tail)
            self._table[first * ENTRY_BYTES : stop * ENTRY_BYTES] = sums
            self._write_entries(begin, stop)
        self.length_bytes = max(self.length_bytes, end)
        self._corrupt &= ~layout.block_bits(first, stop)

    def _merged(self, offset: int, data: memoryview, packed: bytes) -> bytes:
        """The entries of the blocks that the data touches, as they are once it is written."""
        sums = bytearray(packed)
        end = offset + len(data)
        first, last = offset // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
        for block in (first,) if first == last else (first, last):
            begin = max(offset, block * BLOCK_BYTES)
            stop = min(end, (block + 1) * BLOCK_BYTES)
            piece = data[begin - offset : stop - offset]
            merged = self._merged_block(block, begin - block * BLOCK_BYTES, piece)
            if merged is not None:
                _ENTRY.pack_into(sums, (block - first) * ENTRY_BYTES, merged)
        return bytes(sums)

    def _merged_block(self, block: int, within: int, piece: memoryview) -> int | None:
        """The checksum of the block with the piece in it; None when the piece is all of it."""
        old = layout.extent(block, self.length_bytes)
        if within == 0 and len(piece) >= old:
            return None
        content = self._read_verified(block)
        content.extend(bytes(max(0, within + len(piece) - old)))
        content[within : within + len(piece)] = piece
        return checksum(content)

    def _extended_tail(self, offset: int) -> tuple[int, int] | None:
        """The last block and its new checksum, when a write beyond it fills it up with zeros."""
        block, filled = divmod(self.length_bytes, BLOCK_BYTES)
        if not filled or offset // BLOCK_BYTES <= block:
            return None
        content = self._read_verified(block)
        return block, checksum(content.ljust(BLOCK_BYTES, b"\0"))

    def _announce(self, first: int, stop: int, end: int) -> None:
        """Have the intent on disk name these blocks before any of them changes."""
        needed = layout.block_bits(first, stop)
        blocks = needed
        if end > self.length_bytes:
            blocks = layout.block_bits(first, min(stop + AHEAD_BLOCKS, BLOCKS_PER_CHUNK))
        self._dirty = True
        if needed & ~self._header.intent:
            intent = self._header.intent | blocks
            self._write_header(replace(self._header, intent=intent))
        self._touched |= blocks & self._header.intent

    def cut(self, generation: int, length_bytes: int) -> None:
        """Cut to a length (never extends) and take the generation; nothing when it has it."""
        if generation <= self.generation:
            return
        length = min(length_bytes, self.length_bytes)
        block, filled = divmod(length, BLOCK_BYTES)
        entry = None
        if filled and length < self.length_bytes:
            entry = checksum(memoryview(self._read_verified(block))[:filled])
        # Also where no block changes: the intent says that this is yet to be synced.
        blocks = 1 << min(block, BLOCKS_PER_CHUNK - 1)
        intent = self._header.intent | blocks
        self._touched |= blocks
        self._dirty = True
        cutting = replace(
            self._header, intent=intent, generation=generation, length_bytes=length, cutting=True
        )
        self._write_header(cutting)
        with _Breaking(self, length):
            self._file.truncate(DATA_OFFSET + length)
            self.length_bytes = length
            self._drop_entries_beyond(length)
            if entry is not None:
                self._set_entry(block, entry)
                self._write_entries(block, block + 1)
        self._write_header(replace(self._header, cutting=False))

    def raise_version(self, version: int) -> None:
        """Take a higher version; a lower or equal one is ignored."""
        if version > self.version:
            self._dirty = True
            self._write_header(replace(self._header, version=version))

    def write_header(self) -> None:
        """Write the header as it is: a replica that has no data yet begins to exist."""
        self._dirty = True
        self._write_header(replace(self._header, length_bytes=self.length_bytes))

    def _write_header(self, header: Header) -> None:
        header = replace(header, sequence=header.sequence + 1)
        slot = next(i for i in range(layout.SLOTS) if i not in (self._slot, self._durable_slot))
        with _Breaking(self, None):
            self._file.pwrite([layout.pack_header(header)], slot * layout.SLOT_BYTES)
        self._header, self._slot = header, slot

    # -- syncing

    def begin_sync(self) -> int:
        """Ready the file for `datasync`; a number for `end_sync`, 0 when all is synced."""
        if not self.dirty and not self._syncs:
            return 0
        if self._header.length_bytes != self.length_bytes:
            self._write_header(replace(self._header, length_bytes=self.length_bytes))
        self._sync_number += 1
        self._syncs.append(_Sync(self._sync_number, self._touched, self._slot))
        self._touched, self._dirty = 0, False
        return self._sync_number

    def datasync(self) -> None:
        """Make what was written before `begin_sync` durable; may run beside reads and writes."""
        self._file.datasync()

    def end_sync(self, number: int) -> None:
        """After a successful datasync: its blocks, and those of syncs begun before, are safe."""
        position = next((i for i, s in enumerate(self._syncs) if s.number == number), None)
        if position is None:
            return  # a sync that began later ended before and has covered this one
        self._durable_slot = self._syncs[position].slot
        del self._syncs[: position + 1]
        intent = self._touched
        for sync in self._syncs:
            intent |= sync.blocks
        if intent != self._header.intent:
            header = replace(self._header, intent=intent, length_bytes=self.length_bytes)
            self._write_header(header)

    def sync(self) -> None:
        """All three steps in one."""
        number = self.begin_sync()
        if number:
            self.datasync()
            self.end_sync(number)

    def close(self) -> None:
        self._file.close()

    # -- the checksum table

    def _entry(self, block: int) -> int:
        (entry,) = _ENTRY.unpack_from(self._table, block * ENTRY_BYTES)
        return entry or layout.zeros_checksum(layout.extent(block, self.length_bytes))

    def _set_entry(self, block: int, entry: int) -> None:
        _ENTRY.pack_into(self._table, block * ENTRY_BYTES, entry)

    def _packed(self, first: int, stop: int) -> bytes:
        packed = self._table[first * ENTRY_BYTES : stop * ENTRY_BYTES]
        if b"\0" * ENTRY_BYTES not in packed:
            return bytes(packed)
        return b"".join(_ENTRY.pack(self._entry(block)) for block in range(first, stop))

    def _drop_entries_beyond(self, length_bytes: int) -> None:
        kept = layout.block_count(length_bytes) * ENTRY_BYTES
        self._table[kept:] = bytes(TABLE_BYTES - kept)

    def _write_entries(self, first: int, stop: int) -> None:
        entries = self._table[first * ENTRY_BYTES : stop * ENTRY_BYTES]
        self._file.pwrite([entries], TABLE_OFFSET + first * ENTRY_BYTES)


class _Breaking:
    """Marks the replica broken when a change fails half-way, and frees what an append took."""

    def __init__(self, replica: Replica, length_bytes: int | None) -> None:
        self._replica, self._length = replica, length_bytes

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, OSError):
            self._replica.broken = True
            if self._length is not None:
                self._cut_back(DATA_OFFSET + self._length)

    def _cut_back(self, file_bytes: int) -> None:
        file = self._replica._file
        try:
            if file.size() > file_bytes:
                file.truncate(file_bytes)
        except OSError as error:
            log.warning("%s: cannot free a failed write: %s", self._replica._about, error)


def read_at_most(file: File, offset: int, length_bytes: int) -> bytes:
    """What the file has of that range."""
    data = bytearray(length_bytes)
    return bytes(data[: file.pread_into(memoryview(data), offset)])
