"""Blocks as registers: may a read have seen that value?

Every write has a value of its own, but for those that put the initial one there again (cuts), so
hardly any search is needed. A read may see a write that began
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
    by_value: dict[object, list[Op | None]] = defaultdict(list, {initial: [None]})
    ended: list[Op] = []
    for op in writes:
        by_value[op.arguments[-1]].append(op)
        if not op.is_open:
            ended.append(op)
    ended.sort(key=lambda op: op.ended_s)
    for read in reads:
        if read.is_open or read.errno:
            continue
        wrong = [_misread(read, write, ended) for write in by_value.get(read.answer, [])]
        if all(wrong):  # whichever write of that value it was
            yield wrong[-1] if wrong and wrong[-1] else Misread(read, None, None)


def _misread(read: Op, write: Op | None, ended: list[Op]) -> Misread | None:
    """Whether it cannot have seen that write; None as `write` is how all began."""
    if write is not None and write.began_s > read.ended_s:
        return Misread(read, write, None)
    since_s = -1.0 if write is None else write.ended_s
    replaced = _replacing(ended, since_s, read.began_s)
    return None if replaced is None else Misread(read, write, replaced)


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
