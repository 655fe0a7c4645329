"""From inodes to names: findings are about inodes and chunks, people know paths.

A pass over all entries finds one name for each of a bounded number of inodes; the rest of the way
to the root is by the parents of directories, whose names are looked for in those parents alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dfs.layout import PATH_MAX_BYTES, ROOT_INODE
from master import tables as names
from master.check.findings import RECORDS_PER_TICK, Found, Unreadable, decoded
from master.check.rows import NUMBER_BYTES, find_inode, is_directory
from master.state import records
from master.state.records import key_number
from master.tables import Tables

DEPTH_MAX = PATH_MAX_BYTES // 2 + 1
Name = tuple[int, bytes]  # parent, name


@dataclass(slots=True)
class Paths:
    """The names of what some findings are about: `want` each, then `search` once, then ask."""

    tables: Tables
    _names: dict[int, Name | None] = field(default_factory=dict)  # of inodes, None for none
    _begun: list[Name] = field(default_factory=list)  # entries that findings are about

    def want(self, found: Found) -> None:
        """This finding is to be named: by its entry, or by a name of its inode."""
        if found.name is not None:
            self._begun.append(found.name)
        elif found.inode:
            self._names.setdefault(found.inode, None)

    def search(self) -> Iterator[int]:
        """Find all that is wanted; yields how many records were gone over, as it goes."""
        if self._names:
            yield from self._find_names()
        for parent, _ in [*self._begun, *filter(None, self._names.values())]:
            yield from self._climb(parent)

    def _find_names(self) -> Iterator[int]:
        for seen, (entry_key, value) in enumerate(self.tables.scan(names.DENTRIES), 1):
            if seen % RECORDS_PER_TICK == 0:
                yield RECORDS_PER_TICK
            number = _entry_number(value)
            if number in self._names and self._names[number] is None:
                self._names[number] = (key_number(entry_key), entry_key[NUMBER_BYTES:])

    def _climb(self, directory: int) -> Iterator[int]:
        """Know the names of a directory and of all above it."""
        while directory != ROOT_INODE and self._names.get(directory) is None:
            inode = find_inode(self.tables, directory)
            if inode is None or not is_directory(inode):
                return
            found: Name | None = None
            entries = self.tables.scan(names.DENTRIES, *records.range_of(inode.parent))
            for seen, (entry_key, value) in enumerate(entries, 1):
                if seen % RECORDS_PER_TICK == 0:
                    yield RECORDS_PER_TICK
                if _entry_number(value) == directory:
                    found = (inode.parent, entry_key[NUMBER_BYTES:])
                    break
            if found is None:
                return
            self._names[directory] = found
            directory = inode.parent

    # -- once all is found

    def of(self, found: Found) -> bytes:
        """The path of what a finding is about; b"" where it has none that leads to the root."""
        if found.name is None and found.inode == ROOT_INODE:
            return b"/"
        way = list(self._way(found))
        if not way or way[-1][0] != ROOT_INODE:
            return b""
        return b"/" + b"/".join(name for _, name in reversed(way))

    def _way(self, found: Found) -> Iterator[Name]:
        """The entries from the finding's own up to the root, as far as they are known."""
        name = found.name or self._names.get(found.inode)
        for _ in range(DEPTH_MAX):
            if name is None:
                return
            yield name
            name = None if name[0] == ROOT_INODE else self._names.get(name[0])


def find_below(tables: Tables, top: int, found: dict[int, None]) -> Iterator[int]:
    """Put the inode, and all below it, into `found`; yields how many entries, as it goes."""
    found[top] = None
    due = [top]
    while due:
        directory = due.pop()
        for seen, (_, value) in enumerate(
            tables.scan(names.DENTRIES, *records.range_of(directory)), 1
        ):
            if seen % RECORDS_PER_TICK == 0:
                yield RECORDS_PER_TICK
            number = _entry_number(value)
            if number and number not in found:
                found[number] = None
                if is_directory(find_inode(tables, number)):
                    due.append(number)
        yield 1


def _entry_number(value: bytes) -> int:
    """The inode that an entry leads to; 0 for one that cannot be read."""
    try:
        return decoded(records.decode_entry, value)[0]
    except Unreadable:
        return 0  # told of by the check of names
