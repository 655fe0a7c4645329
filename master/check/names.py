"""Names: the entries of each directory, their index, and whether each directory reaches the root.

Everything here looks at one directory at a time, in the order of inode numbers. How many names lead
to an inode is another question, which takes passes of its own (`links`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dfs.layout import NAME_MAX_BYTES, ROOT_INODE
from master import tables as names
from master.check import findings
from master.check.findings import Event, Found, Kind, Unreadable, decoded
from master.check.rows import NUMBER_BYTES, find_inode, is_directory
from master.commands import AdjustInode, MendRecords, RecordChange
from master.state import records
from master.state.records import Inode, key, key2
from master.tables import Tables

KNOWN_MAX = 65_536  # directories remembered to reach the root
Record = tuple[bytes, bytes]


@dataclass(slots=True)
class Misplaced:
    """A name of a directory that believes to be elsewhere."""

    parent: int
    name: bytes
    cookie: int


@dataclass(slots=True)
class Names:
    """The check of all directories, fed one by one."""

    tables: Tables
    most: int  # misplaced names remembered
    misplaced: dict[int, Misplaced] = field(default_factory=dict)  # by the directory named
    _known: dict[int, None] = field(default_factory=dict)  # directories that reach the root

    def check(
        self, number: int, inode: Inode | None, entries: Iterator[Record], index: Iterator[Record]
    ) -> Iterator[Event]:
        """One directory (or whatever has entries)."""
        if not is_directory(inode):
            yield from self._of_no_directory(number, entries, index)
            return
        assert inode is not None
        count, subdirectories = 0, 0
        for name, value in entries:
            count += 1
            child: Inode | None = None
            try:
                child_number, cookie = decoded(records.decode_entry, value)
            except Unreadable as why:
                yield findings.unreadable(names.DENTRIES, key(number) + name, why, number)
                continue
            child = find_inode(self.tables, child_number)
            subdirectories += is_directory(child)
            yield from self._entry(inode, name, child_number, cookie, child)
        for cookie_key, value in index:
            yield from self._indexed(inode, cookie_key, value)
        yield from self._counts(inode, count, subdirectories)
        yield from self._reaches_root(inode)

    def _of_no_directory(
        self, number: int, entries: Iterator[Record], index: Iterator[Record]
    ) -> Iterator[Event]:
        """Names in what is no directory lead nowhere; what they name is found as unreachable."""
        for table, rows in ((names.DENTRIES, entries), (names.DIRINDEX, index)):
            for rest, value in rows:
                change = findings.drop(table, key(number) + rest, value)
                text = f"table {table}: {rest!r} stands in inode {number}, which is no directory"
                yield Found(
                    Kind.NO_DIRECTORY,
                    text,
                    inode=number,
                    mend=MendRecords((change,)),
                    saved=findings.saved(change),
                )

    # -- an entry

    def _entry(
        self, directory: Inode, name: bytes, number: int, cookie: int, child: Inode | None
    ) -> Iterator[Event]:
        yield 1
        parent = directory.number
        if not 0 < len(name) <= NAME_MAX_BYTES or b"/" in name or name in (b".", b".."):
            text = f"directory {parent} has an entry with the impossible name {name!r}"
            yield Found(Kind.BAD_NAME, text, inode=number, name=(parent, name))
        if child is None:
            yield self._dangling(parent, name, number, cookie)
            return
        if is_directory(child) and child.parent != parent and len(self.misplaced) < self.most:
            self.misplaced[number] = Misplaced(parent, name, cookie)
        yield from self._in_index(directory, name, number, cookie)

    def _dangling(self, parent: int, name: bytes, number: int, cookie: int) -> Found:
        """The inode is not there, or its record cannot be read: only the first may be dropped."""
        changes = drop_name(self.tables, parent, name, number, cookie)
        mend = MendRecords(changes, adjust=(AdjustInode(parent, entries=-1),))
        gone = self.tables.get(names.INODES, key(number)) is None
        return Found(
            Kind.DANGLING_NAME,
            f"{name!r} in directory {parent} leads to inode {number}, which is not there",
            inode=number,
            name=(parent, name),
            mend=mend if gone else None,
            saved=findings.saved(*changes) if gone else b"",
        )

    def _in_index(self, directory: Inode, name: bytes, number: int, cookie: int) -> Iterator[Found]:
        parent, due = directory.number, records.encode_index(number, name)
        if not records.FIRST_COOKIE <= cookie < directory.next_cookie:
            text = f"{name!r} in directory {parent} has cookie {cookie}, never given out there"
            lacks = cookie + 1 - directory.next_cookie
            mend = AdjustInode(parent, next_cookie=lacks) if lacks > 0 else None
            yield Found(Kind.BAD_COOKIE, text, inode=number, name=(parent, name), mend=mend)
        indexed = self.tables.get(names.DIRINDEX, key2(parent, cookie))
        if indexed == due:
            return
        free = indexed is None or not self._claims(parent, cookie, indexed)
        change = findings.put(names.DIRINDEX, key2(parent, cookie), indexed, due)
        yield Found(
            Kind.UNINDEXED_NAME,
            f"{name!r} in directory {parent} is not listed under its cookie {cookie}",
            inode=number,
            name=(parent, name),
            mend=MendRecords((change,)) if free else self._move(directory, name, number, cookie),
            saved=findings.saved(change),
        )

    def _claims(self, parent: int, cookie: int, indexed: bytes) -> bool:
        """Whether that index record belongs to another entry."""
        try:
            number, name = decoded(records.decode_index, indexed)
        except Unreadable:
            return False
        stored = self.tables.get(names.DENTRIES, key(parent) + name)
        return stored == records.encode_entry(number, cookie)

    def _move(self, directory: Inode, name: bytes, number: int, cookie: int) -> MendRecords:
        """Another cookie, the one that is next there."""
        parent, new = directory.number, directory.next_cookie
        before = records.encode_entry(number, cookie)
        after = records.encode_entry(number, new)
        index_key = key2(parent, new)
        changes = (
            findings.put(names.DENTRIES, key(parent) + name, before, after),
            findings.put(names.DIRINDEX, index_key, None, records.encode_index(number, name)),
        )
        return MendRecords(changes, adjust=(AdjustInode(parent, next_cookie=1),))

    def _indexed(self, directory: Inode, cookie_key: bytes, value: bytes) -> Iterator[Event]:
        """An index record without its entry: restored if it leads somewhere, or else dropped."""
        yield 1
        parent = directory.number
        try:
            number, name = decoded(records.decode_index, value)
        except Unreadable as why:
            yield findings.unreadable(names.DIRINDEX, key(parent) + cookie_key, why, parent)
            return
        cookie = records.key_number(cookie_key)
        entry = self.tables.get(names.DENTRIES, key(parent) + name)
        if entry == records.encode_entry(number, cookie):
            return
        change = findings.drop(names.DIRINDEX, key(parent) + cookie_key, value)
        adjust: tuple[AdjustInode, ...] = ()
        child = find_inode(self.tables, number)
        if entry is None and child is not None:
            due = records.encode_entry(number, cookie)
            change = findings.put(names.DENTRIES, key(parent) + name, None, due)
            adjust = (AdjustInode(parent, entries=1, nlink=int(is_directory(child))),)
        yield Found(
            Kind.STRAY_INDEX,
            f"directory {parent} lists {name!r} (inode {number}), but it has no such entry",
            inode=number,
            name=(parent, name),
            mend=MendRecords((change,), adjust=adjust),
            saved=findings.saved(change),
        )

    # -- the directory

    def _counts(self, inode: Inode, entries: int, subdirectories: int) -> Iterator[Found]:
        number = inode.number
        if inode.entries != entries:
            text = f"directory {number} has {entries} entries, its record says {inode.entries}"
            mend = AdjustInode(number, entries=entries - inode.entries)
            yield Found(Kind.ENTRY_COUNT, text, inode=number, mend=mend)
        if inode.nlink and inode.nlink != 2 + subdirectories:
            text = f"directory {number} has {subdirectories} directories and {inode.nlink} links"
            mend = AdjustInode(number, nlink=2 + subdirectories - inode.nlink)
            yield Found(Kind.LINK_COUNT, text, inode=number, mend=mend)

    def _reaches_root(self, inode: Inode) -> Iterator[Event]:
        """By its parents; told of the first that has none, and once of each loop."""
        if inode.nlink == 0:
            return
        at, way = inode, list[int]()
        seen: dict[int, None] = {}
        while at.number != ROOT_INODE and at.number not in self._known:
            if at.number in seen:
                yield from self._loop(at.number, seen, inode.number)
                return
            seen[at.number] = None
            way.append(at.number)
            parent = find_inode(self.tables, at.parent)
            if parent is None or not is_directory(parent):
                if at is inode:
                    text = f"the parent {at.parent} of directory {at.number} is no directory"
                    yield Found(Kind.WRONG_PARENT, text, inode=at.number)
                return
            at = parent
            yield 1
        if len(self._known) + len(way) > KNOWN_MAX:
            self._known.clear()
        self._known.update(dict.fromkeys(way))

    def _loop(self, meets: int, seen: dict[int, None], begun_at: int) -> Iterator[Found]:
        """Those of `seen` from where it meets itself are the loop; its lowest member tells."""
        order = list(seen)
        loop = order[order.index(meets) :]
        if begun_at != min(loop):
            return
        text = f"directories {', '.join(map(str, sorted(loop)[:8]))} stand in each other"
        changes, parent = self._name_of(begun_at)
        mend = unname(changes, parent) if changes else None
        saved = findings.saved(*changes)
        yield Found(Kind.DIRECTORY_LOOP, text, inode=begun_at, mend=mend, saved=saved)

    def _name_of(self, number: int) -> tuple[tuple[RecordChange, ...], int]:
        """What takes the name of a directory in its parent away, and the parent."""
        inode = find_inode(self.tables, number)
        assert inode is not None
        for entry_key, value in self.tables.scan(names.DENTRIES, *records.range_of(inode.parent)):
            try:
                child, cookie = decoded(records.decode_entry, value)
            except Unreadable:
                continue  # told of where the table is gone over
            if child == number:
                name = entry_key[NUMBER_BYTES:]
                return drop_name(self.tables, inode.parent, name, number, cookie), inode.parent
        return (), inode.parent


def drop_name(
    tables: Tables, parent: int, name: bytes, number: int, cookie: int
) -> tuple[RecordChange, ...]:
    """What takes an entry away, and its index record where it is its own."""
    entry = records.encode_entry(number, cookie)
    changes = [findings.drop(names.DENTRIES, key(parent) + name, entry)]
    indexed = tables.get(names.DIRINDEX, key2(parent, cookie))
    if indexed == records.encode_index(number, name):
        changes.append(findings.drop(names.DIRINDEX, key2(parent, cookie), indexed))
    return tuple(changes)


def unname(changes: tuple[RecordChange, ...], parent: int) -> MendRecords:
    """Take a directory's name away; without one it is then attached to /lost+found."""
    return MendRecords(changes, adjust=(AdjustInode(parent, entries=-1, nlink=-1),))
