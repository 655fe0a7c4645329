"""What two replicas of a chunk have in common: pure decisions over their checksum tables.

Owns the plan of a settling: which blocks the source has to take from somebody else because its own
are damaged or doubtful, and which it has to send to a peer. Does no I/O; see `settling`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from chunkserver import format as layout
from chunkserver.fencing import blocks_of
from dfs.checksums import unpack_checksums
from dfs.layout import BLOCK_BYTES
from dfs.messages.chunks import ReplicaState, ReplicaTable


@dataclass(frozen=True, slots=True)
class Table:
    """One replica's blocks, by their checksums. `address` is where it stands."""

    address: str
    generation: int
    length_bytes: int
    state: int
    entries: tuple[int, ...]
    damaged: frozenset[int]
    doubtful: frozenset[int]

    @staticmethod
    def of(address: str, message: ReplicaTable, packed: bytes) -> Table:
        """From a `ReplicaTable` and its payload."""
        return Table(
            address,
            message.generation,
            message.length_bytes,
            message.state,
            unpack_checksums(packed),
            frozenset(blocks_of(message.damaged)),
            frozenset(blocks_of(message.doubtful)),
        )

    def is_good(self, block: int, length_bytes: int) -> bool:
        """Whether it vouches for at least that much of the block."""
        reaches = layout.extent(block, self.length_bytes) >= length_bytes
        return reaches and block not in self.damaged and block not in self.doubtful

    def is_like(self, other: Table) -> bool:
        """Whether both hold the same bytes, all of them good."""
        same = (self.generation, self.length_bytes) == (other.generation, other.length_bytes)
        return same and self.entries == other.entries and self.damaged == other.damaged


@dataclass(frozen=True, slots=True)
class Cure:
    """A block of the source that another replica has whole."""

    block: int
    length_bytes: int
    addresses: tuple[str, ...]  # who has it, best first


def cures(own: Table, peers: Sequence[Table]) -> Iterator[Cure]:
    """For each damaged or doubtful block of the source, who can help.

    A complete replica that vouches for the block has what was acknowledged. Failing that, anybody
    who has just what the source's own checksum says is good enough.
    """
    for block in sorted(own.damaged | own.doubtful):
        length = layout.extent(block, own.length_bytes)
        able = [p for p in peers if length and p.is_good(block, length)]
        complete = [p for p in able if p.state != ReplicaState.JOINING]
        alike = [p for p in able if p.entries[block] == own.entries[block]]
        helpers = complete or (alike if block in own.damaged else [])
        if helpers and (block in own.damaged or not alike):
            yield Cure(block, length, tuple(p.address for p in helpers))


def missing(own: Table, peer: Table) -> list[int]:
    """The blocks that the source has to send to make the peer equal; what is damaged, it cannot.

    Blocks of zeros beyond the peer's end need not travel, but for the last, which makes the length.
    """
    count = len(own.entries)
    return [
        block
        for block in range(count)
        if block not in own.damaged
        and not _has(own, peer, block)
        and not (block >= len(peer.entries) and block < count - 1 and _is_hole(own, block))
    ]


def _has(own: Table, peer: Table, block: int) -> bool:
    if block >= len(peer.entries) or block in peer.damaged:
        return False
    if layout.extent(block, own.length_bytes) != layout.extent(block, peer.length_bytes):
        return False
    return own.entries[block] == peer.entries[block]


def _is_hole(own: Table, block: int) -> bool:
    return own.entries[block] == layout.ZERO_BLOCK_CHECKSUM


def runs(blocks: Iterable[int], length_bytes: int, limit_bytes: int) -> Iterator[tuple[int, int]]:
    """Consecutive blocks together: (offset, length) of at most `limit_bytes`, at least a block."""
    start, stop = 0, 0
    for block in blocks:
        if stop > start and (block != stop or (block + 1 - start) * BLOCK_BYTES > limit_bytes):
            yield _range(start, stop, length_bytes)
            start = block
        elif stop == start:
            start = block
        stop = block + 1
    if stop > start:
        yield _range(start, stop, length_bytes)


def _range(start: int, stop: int, length_bytes: int) -> tuple[int, int]:
    offset = start * BLOCK_BYTES
    return offset, min(stop * BLOCK_BYTES, length_bytes) - offset
