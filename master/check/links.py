"""How many names lead to each inode: passes over all entries, a window of inode numbers at a time.

What a pass needs is a count for each number of its window, so the memory stays the same however
many inodes there are; with more of them there are more passes. Comes after `names`, which has
noted the directories that believe to be elsewhere than one of their names is.
"""

from __future__ import annotations

import array
from collections.abc import Iterator, Mapping

from dfs.layout import ROOT_INODE
from master import tables as names
from master.check import findings
from master.check.findings import RECORDS_PER_TICK, Event, Found, Kind, Unreadable, decoded
from master.check.names import Misplaced, drop_name, unname
from master.check.rows import find_inode, is_directory
from master.commands import AdjustInode, AttachInode, MendRecords
from master.state import records
from master.state.records import Inode, Orphan, OrphanKind, key, key_number
from master.tables import Tables


def check_links(
    tables: Tables, top: int, window: int, misplaced: Mapping[int, Misplaced]
) -> Iterator[Event]:
    """All inodes below the number `top`, which after a recovery is far above most of them."""
    end = 0
    while (first := _next_inode(tables, end)) < top:
        end = min(first + window, top)
        counts = array.array("I", bytes(4 * (end - first)))
        yield from _count(tables, counts, first)
        inodes = tables.scan(names.INODES, key(first), key(end))
        for seen, (inode_key, value) in enumerate(inodes, 1):
            if seen % RECORDS_PER_TICK == 0:
                yield RECORDS_PER_TICK
            number = key_number(inode_key)
            yield from _check(tables, number, value, counts[number - first], misplaced)


def _next_inode(tables: Tables, number: int) -> int:
    """The first one that there is from that number on, or one that cannot be."""
    found = next(iter(tables.scan(names.INODES, key(number))), None)
    return records.NUMBER_END if found is None else key_number(found[0])


def _count(tables: Tables, counts: array.array[int], first: int) -> Iterator[int]:
    for seen, (_, value) in enumerate(tables.scan(names.DENTRIES), 1):
        if seen % RECORDS_PER_TICK == 0:
            yield RECORDS_PER_TICK
        try:
            at = decoded(records.decode_entry, value)[0] - first
        except Unreadable:
            continue  # told of where the table is gone over
        if 0 <= at < len(counts):
            counts[at] += 1


def _check(
    tables: Tables, number: int, value: bytes, links: int, misplaced: Mapping[int, Misplaced]
) -> Iterator[Found]:
    try:
        inode = decoded(lambda raw: Inode.decode(number, raw), value)
    except Unreadable:
        return  # told of where the table is gone over
    noted = _noted(tables, number)
    if number == ROOT_INODE:
        yield from _check_root(inode, links)
    elif links == 0 and (inode.nlink or not noted):
        yield _unreachable(inode, noted)
    elif links and inode.nlink == 0:
        yield _named_orphan(tables, inode, links)
    elif is_directory(inode):
        yield from _check_directory(tables, inode, links, misplaced)
    elif inode.nlink != links:
        text = f"inode {number} has {links} names and {inode.nlink} links"
        mend = AdjustInode(number, nlink=links - inode.nlink)
        yield Found(Kind.LINK_COUNT, text, inode=number, mend=mend)
    if noted and inode.nlink and links:
        yield _false_orphan(tables, number)


def _noted(tables: Tables, number: int) -> bool:
    """Whether the inode is noted as one that nothing leads to any more."""
    stored = tables.get(names.ORPHANS, key(number))
    try:
        return stored is not None and decoded(Orphan.decode, stored).kind == OrphanKind.INODE
    except Unreadable:
        return False


def _check_root(inode: Inode, links: int) -> Iterator[Found]:
    if not is_directory(inode) or inode.parent != ROOT_INODE or not inode.nlink:
        yield Found(Kind.NO_ROOT, "the root is no living directory, or not its own parent")
    if links:
        yield Found(Kind.SECOND_NAME, f"the root has {links} names", inode=ROOT_INODE)


def _unreachable(inode: Inode, noted: bool) -> Found:
    number = inode.number
    kind = Kind.UNREACHABLE if inode.nlink else Kind.UNNOTED_ORPHAN
    text = f"inode {number} has {inode.nlink} links and no name"
    if not inode.nlink:
        text = f"inode {number} has no name and is not noted as one to be freed"
    own = 2 if is_directory(inode) and inode.nlink else 0
    too_many = 0 if own else inode.nlink
    return Found(kind, text, inode=number, mend=AttachInode(number, too_many))


def _false_orphan(tables: Tables, number: int) -> Found:
    stored = tables.get(names.ORPHANS, key(number))
    assert stored is not None
    change = findings.drop(names.ORPHANS, key(number), stored)
    text = f"inode {number} has names and is noted as one to be freed"
    return Found(
        Kind.FALSE_ORPHAN,
        text,
        inode=number,
        mend=MendRecords((change,)),
        saved=findings.saved(change),
    )


def _named_orphan(tables: Tables, inode: Inode, links: int) -> Found:
    """Its names are right: nothing is freed that can be reached."""
    number, due = inode.number, links
    if is_directory(inode):
        due = 2 + _subdirectories(tables, number)
    text = f"inode {number} has {links} names and no links: it would be freed"
    return Found(Kind.NAMED_ORPHAN, text, inode=number, mend=AdjustInode(number, nlink=due))


def _subdirectories(tables: Tables, number: int) -> int:
    found = 0
    for _, value in tables.scan(names.DENTRIES, *records.range_of(number)):
        try:
            child = decoded(records.decode_entry, value)[0]
        except Unreadable:
            continue  # told of where the table is gone over
        found += is_directory(find_inode(tables, child))
    return found


def _check_directory(
    tables: Tables, inode: Inode, links: int, misplaced: Mapping[int, Misplaced]
) -> Iterator[Found]:
    number, other = inode.number, misplaced.get(inode.number)
    if links == 1 and other is not None:
        text = f"directory {number} stands in {other.parent} and believes to be in {inode.parent}"
        mend = AdjustInode(number, parent=other.parent)
        yield Found(
            Kind.WRONG_PARENT, text, inode=number, name=(other.parent, other.name), mend=mend
        )
    if links < 2:
        return
    text = f"directory {number} has {links} names"
    if other is None:
        yield Found(Kind.SECOND_NAME, text, inode=number)
        return
    changes = drop_name(tables, other.parent, other.name, number, other.cookie)
    yield Found(
        Kind.SECOND_NAME,
        f"{text}; {other.name!r} in {other.parent} is not the one it knows",
        inode=number,
        name=(other.parent, other.name),
        mend=unname(changes, other.parent),
        saved=findings.saved(*changes),
    )
