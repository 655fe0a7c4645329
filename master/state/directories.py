"""Directories as the operations see them: searching, and the entries themselves.

Owns `dentries` and `dirindex` (always changed together) and the directory's own count of entries,
times and cookie counter. Each function costs the same whatever the directory's size.
"""

from __future__ import annotations

import errno
import stat
from typing import NamedTuple

from dfs.layout import NAME_MAX_BYTES
from dfs.messages.common import Credentials
from dfs.permissions import EXECUTE, WRITE, may, sticky_forbids
from master import tables as names
from master.state import records
from master.state.records import Inode, key, key2
from master.state.refusals import refusal
from master.state.transaction import Transaction

DOTS = (b".", b"..")


class Entry(NamedTuple):
    """A name in a directory."""

    name: bytes
    inode: int
    cookie: int


# -- looking


def enter(transaction: Transaction, number: int, caller: Credentials) -> Inode:
    """The directory, which the caller may search. Raises ENOENT, ENOTDIR, EACCES."""
    directory = transaction.inode(number)
    if not stat.S_ISDIR(directory.mode):
        raise refusal(errno.ENOTDIR, f"inode {number}")
    if not may(directory, caller, EXECUTE):
        raise refusal(errno.EACCES, f"search of directory {number}")
    return directory


def check_name(name: bytes) -> None:
    """Raises ENOENT (empty), ENAMETOOLONG, EINVAL (a slash or NUL in it)."""
    if not name:
        raise refusal(errno.ENOENT, "the empty name")
    if len(name) > NAME_MAX_BYTES:
        raise refusal(errno.ENAMETOOLONG, f"name of {len(name)} bytes")
    if b"/" in name or b"\0" in name:
        raise refusal(errno.EINVAL, f"name {name!r}")


def find_entry(transaction: Transaction, directory: Inode, name: bytes) -> Entry | None:
    """The entry of that name (not `.` or `..`), or None. Raises as `check_name`."""
    check_name(name)
    stored = transaction.tables.get(names.DENTRIES, key(directory.number) + name)
    return None if stored is None else Entry(name, *records.decode_entry(stored))


def require_entry(transaction: Transaction, directory: Inode, name: bytes) -> Entry:
    """The entry. Raises ENOENT and as `check_name`."""
    entry = find_entry(transaction, directory, name)
    if entry is None:
        raise refusal(errno.ENOENT, f"name {name!r} in directory {directory.number}")
    return entry


# -- permissions


def check_may_add(directory: Inode, caller: Credentials) -> None:
    """Raises ENOENT for a removed directory, EACCES."""
    if directory.nlink == 0:
        raise refusal(errno.ENOENT, f"directory {directory.number} was removed")
    if not may(directory, caller, WRITE | EXECUTE):
        raise refusal(errno.EACCES, f"change of directory {directory.number}")


def check_may_remove(directory: Inode, victim: Inode, caller: Credentials, *, tree: bool) -> None:
    """Whether the caller may take the victim's name away, as may_delete() of Linux asks.

    `tree` tells that a directory is expected. Raises EACCES, EPERM, ENOTDIR, EISDIR.
    """
    if not may(directory, caller, WRITE | EXECUTE):
        raise refusal(errno.EACCES, f"change of directory {directory.number}")
    if sticky_forbids(directory, victim, caller):
        raise refusal(errno.EPERM, f"inode {victim.number} in sticky directory {directory.number}")
    if tree and not stat.S_ISDIR(victim.mode):
        raise refusal(errno.ENOTDIR, f"inode {victim.number}")
    if not tree and stat.S_ISDIR(victim.mode):
        raise refusal(errno.EISDIR, f"inode {victim.number}")


# -- changing


def add_entry(transaction: Transaction, directory: Inode, name: bytes, inode: Inode) -> None:
    """A new name for the inode; its link count is the caller's business."""
    cookie = directory.next_cookie
    directory.next_cookie = cookie + 1
    directory.entries += 1
    _put(transaction, directory.number, Entry(name, inode.number, cookie))
    stamp(transaction, directory)


def point_entry(transaction: Transaction, directory: Inode, entry: Entry, inode: Inode) -> None:
    """The name leads to another inode; it keeps its cookie, so listings see it once."""
    _put(transaction, directory.number, Entry(entry.name, inode.number, entry.cookie))
    stamp(transaction, directory)


def remove_entry(transaction: Transaction, directory: Inode, entry: Entry) -> None:
    """The name is gone; the link count is the caller's business."""
    tables = transaction.tables
    tables.delete(names.DENTRIES, key(directory.number) + entry.name)
    tables.delete(names.DIRINDEX, key2(directory.number, entry.cookie))
    directory.entries -= 1
    stamp(transaction, directory)


def stamp(transaction: Transaction, directory: Inode) -> None:
    """The directory's contents changed now."""
    directory.mtime_ns = directory.ctime_ns = transaction.now_ns
    transaction.changed(directory)


def _put(transaction: Transaction, parent: int, entry: Entry) -> None:
    tables = transaction.tables
    tables.put(
        names.DENTRIES,
        key(parent) + entry.name,
        records.encode_entry(entry.inode, entry.cookie),
    )
    tables.put(
        names.DIRINDEX,
        key2(parent, entry.cookie),
        records.encode_index(entry.inode, entry.name),
    )
