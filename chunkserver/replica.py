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

Within the intent the header also names the touched blocks, which no sync has covered: after a kill,
which loses nothing that was written, only they may be out of step, and the rest is damage too.

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
from dataclasses import replace
from typing import Any

from chunkserver import format as layout
from chunkserver import reopening, sectors
from chunkserver.block_table import BlockTable, pack_entry
from chunkserver.format import DATA_OFFSET, ENTRY_BYTES, TABLE_BYTES, TABLE_OFFSET, Header
from chunkserver.headers import Headers
from chunkserver.reopening import read_at_most
from dfs.checksums import checksum
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES, BLOCKS_PER_CHUNK, CHUNK_BYTES
from dfs.messages.chunks import ReplicaState
from dfs.runtime import Buffer, File

log = logging.getLogger(__name__)


class Replica:
    """An open replica file. `about` names it in errors, server and path."""

    def __init__(self, file: File, headers: Headers, table: BlockTable, about: str) -> None:
        self._file = file
        self._headers = headers
        self._table = table
        self._about = about
        self._corrupt = 0  # bitmap of blocks found damaged
        self._doubtful = 0  # bitmap of blocks whose checksum opening had to compute anew
        self.length_bytes = headers.newest.length_bytes
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
        header = Header(0, handle, version, generation, 0, state=state)
        return cls(file, Headers.fresh(file, header, boot), BlockTable(file), about)

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
        found = (
            layout.valid_headers(read_at_most(file, 0, layout.HEADER_BYTES))
            if settled
            else reopening.headers_on_disk(file)
        )
        if not found or found[0][0].handle != handle:
            raise Failure(Code.CORRUPT, f"{about}: no valid header for chunk {handle:x}")
        header = found[0][0]
        if not settled:
            header = replace(header, state=layout.state_after_stop(header, boot))
        table = BlockTable(file, read_at_most(file, TABLE_OFFSET, TABLE_BYTES))
        replica = cls(file, Headers.found(file, found, header, boot), table, about)
        size = file.size()
        replica.length_bytes = layout.settled_length(header, size)
        replica._table.drop_beyond(replica.length_bytes)
        if not settled:
            reopening.settle(replica, size, writable=writable)
        return replica

    # -- what it is

    @property
    def handle(self) -> int:
        return self._headers.newest.handle

    @property
    def version(self) -> int:
        return self._headers.newest.version

    @property
    def generation(self) -> int:
        return self._headers.newest.generation

    @property
    def state(self) -> ReplicaState:
        return self._headers.newest.state

    @property
    def intent(self) -> int:
        """Bitmap of the blocks that a stop now would leave in doubt."""
        return self._headers.newest.intent

    @property
    def dirty(self) -> bool:
        """Whether anything was written that no sync has covered."""
        return self._headers.dirty

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

    def _packed(self, first: int, stop: int) -> bytes:
        return self._table.packed(first, stop, self.length_bytes)

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
        if checksum(whole) != self._table.entry(block, self.length_bytes):
            raise self._found_corrupt(block, "checksum mismatch")
        entry = (block * BLOCK_BYTES - start) // BLOCK_BYTES * ENTRY_BYTES
        packed[entry : entry + ENTRY_BYTES] = pack_entry(
            checksum(view[begin - start : end - start])
        )

    def _read_block(self, block: int) -> bytearray:
        """The block's bytes within the length, unverified."""
        data = bytearray(layout.extent(block, self.length_bytes))
        self._fill(memoryview(data), block * BLOCK_BYTES, cached=False)
        return data

    def _read_verified(self, block: int) -> bytearray:
        self._refuse_corrupt(block, block + 1)
        data = self._read_block(block)
        if checksum(data) != self._table.entry(block, self.length_bytes):
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
        self.announce(offset, len(data))
        self._headers.touch(layout.block_bits(begin, stop))
        with _Breaking(self, self.length_bytes):
            self._file.pwrite([data], DATA_OFFSET + offset)
            if tail is not None:
                self._table.put(*tail)
            self._table.put_packed(first, sums)
            self._table.write(begin, stop)
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
                at = (block - first) * ENTRY_BYTES
                sums[at : at + ENTRY_BYTES] = pack_entry(merged)
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
        return bool(self._needed(offset, length_bytes) & ~self._headers.safe)

    def announce(self, offset: int, length_bytes: int) -> None:
        """Have the intent on disk name the blocks that a write to the range is about to change."""
        appends = offset + length_bytes > self.length_bytes
        with _Breaking(self, None):
            self._headers.announce(self._needed(offset, length_bytes), appends=appends)

    def _needed(self, offset: int, length_bytes: int) -> int:
        """The blocks that a write changes: its own, and those that it fills up with zeros."""
        first = min(offset // BLOCK_BYTES, self.length_bytes // BLOCK_BYTES)
        return layout.block_bits(first, layout.block_count(offset + length_bytes))

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
        self._headers.touch(1 << block)
        newest = self._headers.newest
        self._write_header(
            intent=newest.intent | 1 << block,
            touched=newest.touched | 1 << block,
            generation=generation,
            length_bytes=length,
            cutting=True,
            durable=True,
        )
        with _Breaking(self, length):
            self._file.truncate(DATA_OFFSET + length)
            self.length_bytes = length
            self._table.drop_beyond(length)
            if entry is not None:
                self._table.put(block, entry)
                self._table.write(block, block + 1)
            self._file.datasync()
        self._write_header(cutting=False)
        self._corrupt &= layout.block_bits(0, layout.block_count(length))

    def fence(self, version: int, state: ReplicaState) -> None:
        """Take a version and a state in which nobody is served; durable."""
        self._write_header(version=version, state=state, durable=True)

    def adopt(self, block: int, data: Buffer) -> None:
        """Take a whole block as another replica has it."""
        self.write(block * BLOCK_BYTES, memoryview(data), pack_entry(checksum(data)))

    def serve(self, generation: int) -> None:
        """Become a settled replica, with all that is here made durable before."""
        number = self.begin_sync()
        if number:
            self.datasync()
            self.end_sync(number)
        self._write_header(generation=generation, state=ReplicaState.SETTLED)
        self._doubtful = 0

    def mark_damaged(self, block: int, entry: int) -> None:
        """Nobody has good data for this block: it is to be refused, never read as zeros."""
        self._table.put(block, entry)
        self._table.write(block, block + 1)
        self._corrupt |= 1 << block

    def write_header(self, *, durable: bool = False) -> None:
        """Write the header as it is: a replica that has no data yet begins to exist."""
        self._write_header(length_bytes=self.length_bytes, durable=durable)

    def _write_header(self, *, durable: bool = False, **changes: Any) -> None:
        with _Breaking(self, None):
            self._headers.write(replace(self._headers.newest, **changes))
            if durable:
                self._headers.make_durable()

    # -- syncing

    def begin_sync(self, *, always: bool = False) -> int:
        """Ready the file for `datasync`; a number for `end_sync`, 0 when all is synced."""
        if not self.dirty and not always:
            return 0
        with _Breaking(self, None):
            return self._headers.begin_sync(self.length_bytes)

    def datasync(self) -> None:
        """Make what was written before `begin_sync` durable; may run beside reads and writes."""
        self._file.datasync()

    def end_sync(self, number: int, *, clean: bool = False) -> None:
        """After a successful datasync: what was there at `begin_sync` is safe.

        With `clean`, what was not written since leaves the intent: nobody writes here any more.
        """
        with _Breaking(self, None):
            self._headers.end_sync(number, self.length_bytes, clean=clean)

    def sync(self, *, clean: bool = False) -> None:
        """All three steps in one."""
        number = self.begin_sync(always=clean and bool(self.intent))
        if number:
            self.datasync()
            self.end_sync(number, clean=clean)

    def close(self) -> None:
        self._file.close()


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
