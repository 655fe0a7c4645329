"""Reading tables in order, group by group, for checks that hold none of them whole."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from master import tables as names
from master.check.findings import Unreadable, decoded
from master.state.records import Inode, key, key_number
from master.tables import Tables

NUMBER_BYTES = 8


class Rows:
    """The records of one table whose keys begin with a number, taken number by number."""

    def __init__(self, tables: Tables, table: str) -> None:
        self.table = table
        self._scan = tables.scan(table)
        self._next = next(self._scan, None)

    @property
    def number(self) -> int | None:
        """The number that the next record belongs to; None at the end."""
        return None if self._next is None else key_number(self._next[0].ljust(NUMBER_BYTES, b"\0"))

    def take(self, number: int) -> Iterator[tuple[bytes, bytes]]:
        """The records of that number, if they are next: (rest of the key, value)."""
        while self._next is not None and self.number == number:
            key_bytes, value = self._next
            yield key_bytes[NUMBER_BYTES:], value
            self._next = next(self._scan, None)


def find_inode(tables: Tables, number: int) -> Inode | None:
    """The inode, or None where there is none or its record cannot be read."""
    stored = tables.get(names.INODES, key(number)) if 0 < number < 2**63 else None
    if stored is None:
        return None
    try:
        return decoded(lambda value: Inode.decode(number, value), stored)
    except Unreadable:
        return None  # told of where the table itself is gone over


def is_directory(inode: Inode | None) -> bool:
    return inode is not None and stat.S_ISDIR(inode.mode)
