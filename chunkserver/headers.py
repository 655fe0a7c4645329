"""The header slots of one replica file: which is written next, which may survive, what is synced.

Owns the newest header and what is known of the disk's: one of the three slots holds a header that a
datasync covered, and it and the newest are never overwritten. `safe` is what matters for a write:
the blocks that every header which may be the newest after a power loss has in its intent. It
shrinks with each header written, and grows when a datasync has covered one.

Also the syncs under way, which run beside writes: each remembers the header that it covers and the
blocks written before. Errors: OSError from the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chunkserver import format as layout
from chunkserver.format import Header
from dfs.layout import BLOCKS_PER_CHUNK
from dfs.runtime import File

# Overwrites announce as many blocks as this at a time: a datasync per 4 MiB that was at rest.
ANNOUNCED_BLOCKS = 64
ALL_BLOCKS = layout.block_bits(0, BLOCKS_PER_CHUNK)


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


class Headers:
    """The slots of one open file. `newest` is what the replica says of itself; its length in it
    may be behind. `boot` is stamped on what is written."""

    def __init__(self, file: File, newest: Header, slot: int, boot: int) -> None:
        self._file, self._boot = file, boot
        self.newest = newest
        self.slot = slot
        self.safe = newest.intent
        self._durable_slot, self._durable_sequence = slot, 0
        self._touched = newest.intent  # blocks changed since the last `begin_sync`
        self._dirty = bool(newest.intent)  # anything written since then
        self._syncs: list[_Sync] = []
        self._sync_number = 0

    @classmethod
    def found(
        cls, file: File, headers: Sequence[tuple[Header, int]], newest: Header, boot: int
    ) -> Headers:
        """Of a file with these valid headers, newest first, of which the first stands for itself as
        `newest` (what is thought of its state may be otherwise now)."""
        made = cls(file, newest, headers[0][1], boot)
        for older, slot in headers[1:2]:
            made._durable_slot = slot
            made.safe &= older.intent  # the newest may be lost with the power
        for older, _ in headers[2:]:
            made.safe &= older.intent
        return made

    @classmethod
    def fresh(cls, file: File, header: Header, boot: int) -> Headers:
        """Of a new file: nothing is written yet, and all blocks are in the intent."""
        born = replace(header, intent=ALL_BLOCKS, touched=ALL_BLOCKS, boot=boot)
        made = cls(file, born, 0, boot)
        made._touched = 0
        return made

    # -- writing

    def write(self, header: Header) -> None:
        """Put it into the slot that nothing depends on; it is the newest then."""
        self._dirty = True
        self._put(header)

    def _put(self, header: Header) -> None:
        header = replace(header, sequence=self.newest.sequence + 1, boot=self._boot)
        slot = next(i for i in range(layout.SLOTS) if i not in (self.slot, self._durable_slot))
        self._write_slot(header, slot)

    def _write_slot(self, header: Header, slot: int) -> None:
        self._file.pwrite([layout.pack_header(header)], slot * layout.SLOT_BYTES)
        self.newest, self.slot = header, slot
        self.safe &= header.intent
        for sync in self._syncs:
            sync.safe &= header.intent

    def make_durable(self) -> None:
        """Datasync: the newest header is durable, and whatever was written before it."""
        self._file.datasync()
        self._now_durable(self.slot, self.newest.sequence)
        self.safe = self.newest.intent

    def _now_durable(self, slot: int, sequence: int) -> None:
        if sequence > self._durable_sequence:
            self._durable_slot, self._durable_sequence = slot, sequence

    def rewrite(self, slots: Sequence[int]) -> None:
        """Put the newest header into slots that have rotted: torn half-way, they are as before."""
        for slot in slots:
            header = replace(self.newest, sequence=self.newest.sequence + 1, boot=self._boot)
            self._write_slot(header, slot)
        self.make_durable()

    # -- the intent

    def announce(self, needed: int, *, appends: bool) -> None:
        """Have the header name these blocks, and some around them, before they change.

        A killed process leaves the header as it was written, a power loss perhaps an older one: so
        blocks that were at rest are made part of the intent durably.
        """
        newest, at_rest = self.newest, needed & ~self.safe
        if not at_rest and not needed & ~newest.touched and newest.sequence:
            return
        first = (needed & -needed).bit_length() - 1
        first -= first % ANNOUNCED_BLOCKS
        stop = needed.bit_length() + -needed.bit_length() % ANNOUNCED_BLOCKS
        blocks = layout.block_bits(first, BLOCKS_PER_CHUNK if appends else stop)
        intent = newest.intent | blocks if at_rest else newest.intent
        self._put(replace(newest, intent=intent, touched=newest.touched | blocks & intent))
        if at_rest:
            self.make_durable()

    def touch(self, blocks: int) -> None:
        """These blocks change now; they have been announced."""
        self._dirty = True
        self._touched |= blocks

    @property
    def is_of_another_boot(self) -> bool:
        """Whether the machine has been started since the newest was written."""
        return self.newest.boot != self._boot

    # -- syncing

    @property
    def dirty(self) -> bool:
        """Whether anything was written that no sync has covered."""
        return self._dirty or bool(self._syncs)

    def begin_sync(self, length_bytes: int) -> int:
        """A datasync that begins from now on covers what is written; its number."""
        if self.newest.length_bytes != length_bytes:
            self._put(replace(self.newest, length_bytes=length_bytes))
        self._sync_number += 1
        newest = self.newest
        sync = _Sync(self._sync_number, self._touched, self.slot, newest.sequence, newest.intent)
        self._syncs.append(sync)
        self._touched, self._dirty = 0, False
        return self._sync_number

    def end_sync(self, number: int, length_bytes: int, *, clean: bool) -> None:
        """That datasync has ended well, and with it those begun before.

        With `clean`, what was not written since leaves the intent.
        """
        position = next((i for i, s in enumerate(self._syncs) if s.number == number), None)
        if position is None:
            return  # a sync that began later ended before and has covered this one
        sync = self._syncs[position]
        del self._syncs[: position + 1]
        if sync.sequence > self._durable_sequence:
            self._now_durable(sync.slot, sync.sequence)
            self.safe = sync.safe
        touched = self._touched
        for later in self._syncs:
            touched |= later.blocks
        newest = self.newest
        intent = touched if clean else newest.intent
        if (intent, touched) != (newest.intent, newest.touched):
            header = replace(newest, intent=intent, touched=touched, length_bytes=length_bytes)
            self._put(header)
