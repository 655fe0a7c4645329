"""Blocks as registers: may a read have seen that value?

Every write has a value of its own, so no search is needed. A read may see a write that began
before the read ended, and that no other write is sure to have replaced before the read began: one
that began after this one had ended, and ended before the read began. (A regular register, Lamport
1986: two reads beside one write may see it and then not, since any replica serves reads.) An open
write may take effect at any time after its begin, or never, and replaces nothing for sure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from tests.simulation.history import Op

Register = Hashable


@dataclass(frozen=True)
class Misread:
    """A read of a value that it cannot have seen; `write` is the value's, if anybody wrote it."""

    read: Op
    write: Op | None
    replaced_by: Op | None


def misreads(writes: Iterable[Op], reads: Iterable[Op], initial: object) -> Iterator[Misread]:
    """Operations of one register: `answer` of a read and `arguments[-1]` of a write are values."""
    by_value = {op.arguments[-1]: op for op in writes}
    ended = sorted((op for op in by_value.values() if not op.is_open), key=lambda op: op.ended_s)
    for read in reads:
        if read.is_open or read.errno:
            continue
        write = by_value.get(read.answer)
        if write is None and read.answer != initial:
            yield Misread(read, None, None)
        elif write is not None and write.began_s > read.ended_s:
            yield Misread(read, write, None)
        else:
            since_s = -1.0 if write is None else write.ended_s
            replaced = _replacing(ended, since_s, read.began_s)
            if replaced is not None:
                yield Misread(read, write, replaced)


def _replacing(ended: list[Op], since_s: float, before_s: float) -> Op | None:
    """A write that lies wholly between these times."""
    for op in ended:
        if op.ended_s >= before_s:
            return None
        if op.began_s > since_s:
            return op
    return None


def grouped(ops: Iterable[Op]) -> dict[Register, list[Op]]:
    """By register (inode, offset): read(inode, offset), write(inode, offsets, value)."""
    found: dict[Register, list[Op]] = defaultdict(list)
    for op in ops:
        inode, where = op.arguments[:2]
        for offset in where if op.action == "write" else (where,):
            found[inode, offset].append(op)
    return found
