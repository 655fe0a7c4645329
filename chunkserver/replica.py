"""One replica: a file that holds a chunk's bytes and their checksums (see `format`).

Owns the order of the writes to that file. Everything here blocks and is synchronous; one caller at
a time. Who may call when, and in which thread, is `store`'s and `lane`'s concern.

A write goes to the file in this order:
  1. a header slot whose intent names the blocks about to change, and a datasync, unless it is sure
     that every header that may survive names them already;
  2. the data;
  3. the checksum table entries.
A kill between any two of them, or in the middle of one, or a power loss, which keeps any of the
writes since the last datasync and loses the others, leaves blocks whose bytes do not match their
entry only inside the intent. Opening such a file settles it: each intent block is read, and where
its checksum differs it is computed anew. Unacknowledged bytes are then old or new, and a block
outside the intent that does not match is what it looks like: damage, answered with CORRUPT.

The intent is sticky, so that the datasync of step 1 is rare: a new replica is born with all blocks
in it, a sync takes none out, and only `end_sync(clean=True)`, long after the last write, does. What
comes back from a stop with an intent is not believed before it was compared with the other replicas
of its chunk (`store`, `settling`), so a large intent costs time, not safety.

A cut announces itself in the header (CUTTING, with the new length and generation), cuts the file,
writes the last block's entry, and ends with a header without the flag, a datasync between any two
of these; opening repeats it.

`begin_sync`, `File.datasync` and `end_sync` make a sync: the first writes the header as it is now,
the second runs in any thread while writes go on, the third notes what is durable.

Errors: Failure CORRUPT when stored bytes do not match their checksum, OSError from the file. After
an OSError in a change the replica is `broken`: close it and open it again, which settles it.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from chunkserver import format as layout
from chunkserver import sectors
from chunkserver.format import DATA_OFFSET, ENTRY_BYTES, TABLE_BYTES, TABLE_OFFSET, Header
from dfs.checksums import checksum
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES, BLOCKS_PER_CHUNK, CHUNK_BYTES
from dfs.messages.chunks import ReplicaState
from dfs.runtime import Buffer, File

log = logging.getLogger(__name__)

# Overwrites announce as many blocks as this at a time: a datasync per 4 MiB that was at rest.
ANNOUNCED_BLOCKS = 64
ALL_BLOCKS = layout.block_bits(0, BLOCKS_PER_CHUNK)

_ENTRY = struct.Struct(">Q")


@dataclass(slots=True)
class _Sync:
    """A sync under way: the blocks it covers and the header that it makes durable.

    `safe` is what the intents of that header and of all later ones have in common.
    """

    number: int
    blocks: int
    slot: int
    sequence: int
    safe: int


class Replica:
    """An open replica file. `about` names it in errors, server and path."""

    def __init__(
        self, file: File, header: Header, slot: int, table: bytearray, about: str, boot: int
    ) -> None:
        self._file = file
        self._header = header  # the newest one written; the length in it may be behind
        self._boot = boot
        self._slot = slot
        self._durable_slot, self._durable_sequence = slot, 0
        self._safe = header.intent  # blocks that every header which may survive has in its intent
        self._table = table
        self._about = about
        self._corrupt = 0  # bitmap of blocks found damaged
        self._doubtful = 0  # bitmap of blocks whose checksum opening had to compute anew
        self._touched = header.intent  # blocks changed since the last `begin_sync`
        self._syncs: list[_Sync] = []
        self._sync_number = 0
        self._dirty = bool(header.intent)  # anything written since the last `begin_sync`
        self.length_bytes = header.length_bytes
        self.broken = False
        self.pins = 0  # who uses the file beside the one caller: syncs, `warm`; see `store`
        self.settled_blocks = 0  # how many checksums opening had to compute anew
        self.read_errors = 0  # reads that the disk refused since `store` last looked

    # -- making and opening

    @classmethod
    def create(
        cls,
        file: File,
        handle: int,
        version: int,
        generation: int,
        about: str,
        *,
        boot: int = 1,
        state: ReplicaState = ReplicaState.SETTLED,
    ) -> Replica:
        """A replica in a new, empty file. The first write, or `write_header`, makes it exist."""
        header = Header(0, handle, version, generation, 0, ALL_BLOCKS, state=state, boot=boot)
        replica = cls(file, header, 0, bytearray(TABLE_BYTES), about, boot)
        replica._touched = 0
        return replica

    @classmethod
    def open(
        cls,
        file: File,
        handle: int,
        about: str,
        *,
        writable: bool = True,
        settled: bool = False,
        boot: int = 1,
    ) -> Replica:
        """Open and settle. Raises Failure CORRUPT when no header is valid or it is another's.

        Without `writable` (a disk gone read-only) what was settled stays in memory. `settled`
        says that this process has closed it in good order, so that there is nothing to settle.
        """
        found = layout.valid_headers(read_at_most(file, 0, layout.HEADER_BYTES))
        if not found or found[0][0].handle != handle:
            raise Failure(Code.CORRUPT, f"{about}: no valid header for chunk {handle:x}")
        header, slot = found[0]
        if not settled:
            header = replace(header, state=layout.state_after_stop(header, boot))
        table = bytearray(read_at_most(file, TABLE_OFFSET, TABLE_BYTES).ljust(TABLE_BYTES, b"\0"))
        replica = cls(file, header, slot, table, about, boot)
        if len(found) > 1:
            replica._durable_slot = found[1][1]
        for older, _ in found[1:]:
            replica._safe &= older.intent  # this start's header may be the one that is lost
        size = file.size()
        replica.length_bytes = layout.settled_length(header, size)
        replica._drop_entries_beyond(replica.length_bytes)
        if not settled:
            replica._settle(size, writable)
        return replica

    def _settle(self, size: int, writable: bool) -> None:
        due = DATA_OFFSET + self.length_bytes
        # Only a power loss takes away the end of a file that its header has told of.
        lost = self._header.state is ReplicaState.LOST and self._header.intent
        if writable and (size > due or (size < due and lost)):
            self._file.truncate(due)
            size = due
        whole = max(0, size - DATA_OFFSET) // BLOCK_BYTES if size < due else BLOCKS_PER_CHUNK
        suspects = self._header.intent & layout.block_bits(0, whole)
        changed = [b for b in self._blocks_of(suspects) if self._settle_block(b)]
        self.settled_blocks = len(changed)
        for block in changed:
            self._doubtful |= 1 << block
        if changed:
            log.info("%s: %d blocks settled after an unclean stop", self._about, len(changed))
        if writable and changed:
            self._write_entries(changed[0], changed[-1] + 1)
        if writable and self._header.cutting:
            self._file.datasync()
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
    def state(self) -> ReplicaState:
        return self._header.state

    @property
    def intent(self) -> int:
        """Bitmap of the blocks that a stop now would leave in doubt."""
        return self._header.intent

    @property
    def dirty(self) -> bool:
        """Whether anything was written that no sync has covered."""
        return self._dirty or bool(self._syncs)

    @property
    def damaged(self) -> int:
        """Bitmap of blocks known to be damaged; they are refused until written as a whole."""
        return self._corrupt

    @property
    def doubtful(self) -> int:
        """Bitmap of the blocks that did not match, and were taken as they are, after a stop.

        Torn, most likely; whoever has the block whole knows better.
        """
        return self._doubtful

    def packed_table(self) -> bytes:
        """The packed checksums of all blocks; a hole has that of the zeros it reads as."""
        return self._packed(0, layout.block_count(self.length_bytes))

    def remember_damage(self, blocks: int) -> None:
        """These were found damaged when the replica was open before."""
        self._corrupt |= blocks & layout.block_bits(0, layout.block_count(self.length_bytes))

    def damaged_bytes(self, block: int) -> bytes:
        """What is there of a block, unverified; zeros where the disk cannot read it."""
        length = layout.extent(block, self.length_bytes)
        return sectors.salvage(self._file, DATA_OFFSET + block * BLOCK_BYTES, length)

    def digest(self) -> int:
        """xxh3_64 over the packed block checksums; a hole counts as the zeros it reads as."""
        return checksum(self.packed_table())

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
            # What the disk cannot read, the read that follows finds out.
            view = memoryview(bytearray(stop - start))
            sectors.read_around(self._file, view, DATA_OFFSET + start)

    def _fill(self, view: memoryview, start: int, cached: bool) -> bool:
        position = DATA_OFFSET + start
        got: int | None
        if cached:
            got = sectors.read_cached(self._file, view, position)
        else:
            got, bad = sectors.read_around(self._file, view, position)
            self._refuse_unreadable(start // BLOCK_BYTES, bad)
        if got is None:
            return False
        if got < len(view):
            raise self._found_corrupt((start + got) // BLOCK_BYTES, "the file ends before it")
        return True

    def _refuse_unreadable(self, first: int, bad: list[int]) -> None:
        self.read_errors += len(bad)
        found = [self._found_corrupt(first + block, "the disk cannot read it") for block in bad]
        if found:
            raise found[0]

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
        if not self._corrupt >> block & 1:
            log.error("%s: block %d is damaged: %s", self._about, block, why)
        self._corrupt |= 1 << block
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
        self._announce(self._needed(offset, len(data)), end > self.length_bytes)
        self._dirty = True
        self._touched |= layout.block_bits(begin, stop)
        with _Breaking(self, self.length_bytes):
            self._file.pwrite([data], DATA_OFFSET + offset)
            if tail is not None:
                self._set_entry(*tail)
            self._table[first * ENTRY_BYTES : stop * ENTRY_BYTES] = sums
            self._write_entries(begin, stop)
        self.length_bytes = max(self.length_bytes, end)
        self._now_good(layout.block_bits(first, stop))

    def _now_good(self, blocks: int) -> None:
        self._corrupt &= ~blocks
        self._doubtful &= ~blocks

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

    def must_announce(self, offset: int, length_bytes: int) -> bool:
        """Whether a write to that range has to wait for a datasync first (`announce`)."""
        return bool(self._needed(offset, length_bytes) & ~self._safe)

    def announce(self, offset: int, length_bytes: int) -> None:
        """Have the intent on disk name the blocks that a write to the range is about to change."""
        end = offset + length_bytes
        self._announce(self._needed(offset, length_bytes), end > self.length_bytes)

    def _needed(self, offset: int, length_bytes: int) -> int:
        """The blocks that a write changes: its own, and those that it fills up with zeros."""
        first = min(offset // BLOCK_BYTES, self.length_bytes // BLOCK_BYTES)
        return layout.block_bits(first, layout.block_count(offset + length_bytes))

    def _announce(self, needed: int, appends: bool) -> None:
        if not needed & ~self._safe:
            if not self._header.sequence:  # a new replica, born with all blocks in the intent
                self._write_header(self._header)
            return
        first = (needed & -needed).bit_length() - 1
        first -= first % ANNOUNCED_BLOCKS
        stop = needed.bit_length() + -needed.bit_length() % ANNOUNCED_BLOCKS
        blocks = layout.block_bits(first, BLOCKS_PER_CHUNK if appends else stop)
        self._write_header(replace(self._header, intent=self._header.intent | blocks))
        self._sync_header()

    def _sync_header(self) -> None:
        """Make the newest header durable, and what was written before it."""
        with _Breaking(self, None):
            self._file.datasync()
        self._now_durable(self._slot, self._header.sequence)
        self._safe = self._header.intent

    def _now_durable(self, slot: int, sequence: int) -> None:
        if sequence > self._durable_sequence:
            self._durable_slot, self._durable_sequence = slot, sequence

    def cut(self, generation: int, length_bytes: int) -> None:
        """Cut to a length (never extends) and take the generation; nothing when it has it."""
        if generation <= self.generation:
            return
        length = min(length_bytes, self.length_bytes)
        block, filled = divmod(length, BLOCK_BYTES)
        entry = None
        if filled and length < self.length_bytes:
            entry = checksum(memoryview(self._read_verified(block))[:filled])
        self._cut(generation, length, entry)

    def shrink(self, length_bytes: int) -> None:
        """Cut to a length, whatever the last block's checksum was: the source's will be put."""
        if length_bytes >= self.length_bytes:
            return
        block, filled = divmod(length_bytes, BLOCK_BYTES)
        entry = checksum(memoryview(self._read_block(block))[:filled]) if filled else None
        self._cut(self.generation, length_bytes, entry)
        if filled:
            self._now_good(1 << block)

    def _cut(self, generation: int, length: int, entry: int | None) -> None:
        # Also where no block changes: the intent says that this is yet to be synced.
        block = min(length // BLOCK_BYTES, BLOCKS_PER_CHUNK - 1)
        self._touched |= 1 << block
        self._dirty = True
        intent = self._header.intent | 1 << block
        cutting = replace(
            self._header, intent=intent, generation=generation, length_bytes=length, cutting=True
        )
        self._write_header(cutting)
        self._sync_header()
        with _Breaking(self, length):
            self._file.truncate(DATA_OFFSET + length)
            self.length_bytes = length
            self._drop_entries_beyond(length)
            if entry is not None:
                self._set_entry(block, entry)
                self._write_entries(block, block + 1)
            self._file.datasync()
        self._write_header(replace(self._header, cutting=False))
        self._corrupt &= layout.block_bits(0, layout.block_count(length))

    def fence(self, version: int, state: ReplicaState) -> None:
        """Take a version and a state in which nobody is served; durable."""
        self._dirty = True
        self._write_header(replace(self._header, version=version, state=state))
        self._sync_header()

    def adopt(self, block: int, data: Buffer) -> None:
        """Take a whole block as another replica has it."""
        self.write(block * BLOCK_BYTES, memoryview(data), _ENTRY.pack(checksum(data)))

    def serve(self, generation: int) -> None:
        """Become a settled replica, with all that is here made durable before."""
        number = self.begin_sync()
        if number:
            self.datasync()
            self.end_sync(number)
        settled = replace(self._header, generation=generation, state=ReplicaState.SETTLED)
        self._write_header(settled)
        self._dirty = True
        self._doubtful = 0

    def mark_damaged(self, block: int, entry: int) -> None:
        """Nobody has good data for this block: it is to be refused, never read as zeros."""
        self._set_entry(block, entry)
        self._write_entries(block, block + 1)
        self._corrupt |= 1 << block

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
        header = replace(header, sequence=header.sequence + 1, boot=self._boot)
        slot = next(i for i in range(layout.SLOTS) if i not in (self._slot, self._durable_slot))
        with _Breaking(self, None):
            self._file.pwrite([layout.pack_header(header)], slot * layout.SLOT_BYTES)
        self._header, self._slot = header, slot
        self._safe &= header.intent
        for sync in self._syncs:
            sync.safe &= header.intent

    # -- syncing

    def begin_sync(self, *, always: bool = False) -> int:
        """Ready the file for `datasync`; a number for `end_sync`, 0 when all is synced."""
        if not self.dirty and not always:
            return 0
        if self._header.length_bytes != self.length_bytes:
            self._write_header(replace(self._header, length_bytes=self.length_bytes))
        self._sync_number += 1
        header = self._header
        sync = _Sync(self._sync_number, self._touched, self._slot, header.sequence, header.intent)
        self._syncs.append(sync)
        self._touched, self._dirty = 0, False
        return self._sync_number

    def datasync(self) -> None:
        """Make what was written before `begin_sync` durable; may run beside reads and writes."""
        self._file.datasync()

    def end_sync(self, number: int, *, clean: bool = False) -> None:
        """After a successful datasync: what was there at `begin_sync` is safe.

        With `clean`, what was not written since leaves the intent: nobody writes here any more.
        """
        position = next((i for i, s in enumerate(self._syncs) if s.number == number), None)
        if position is None:
            return  # a sync that began later ended before and has covered this one
        sync = self._syncs[position]
        del self._syncs[: position + 1]
        if sync.sequence > self._durable_sequence:
            self._now_durable(sync.slot, sync.sequence)
            self._safe = sync.safe
        if clean:
            self._leave_intent()

    def _leave_intent(self) -> None:
        intent = self._touched
        for sync in self._syncs:
            intent |= sync.blocks
        if intent != self._header.intent:
            header = replace(self._header, intent=intent, length_bytes=self.length_bytes)
            self._write_header(header)

    def sync(self, *, clean: bool = False) -> None:
        """All three steps in one."""
        number = self.begin_sync(always=clean and bool(self.intent))
        if number:
            self.datasync()
            self.end_sync(number, clean=clean)

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
