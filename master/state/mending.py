"""Commands that mend a state which contradicts itself: what `dfs fsck --repair` has committed.

Each is a pure function of the state and the command, as all commands are (C7), and safe on a state
that has moved on since the check: records change only from exactly what they were said to be, and
counts change by what they are off, which no operation alters. Nothing here decides what is wrong;
that is `master.check`.
"""

from __future__ import annotations

import errno
import stat
from typing import Final

from dfs.errors import Code, Failure
from dfs.layout import ROOT_INODE
from dfs.messages.common import Done
from master import tables as names
from master.commands import (
    AdjustCounts,
    AdjustInode,
    AttachInode,
    MendRecords,
    RecordChange,
)
from master.state import records
from master.state.directories import add_entry, find_entry
from master.state.records import Inode, Orphan, OrphanKind, key
from master.state.refusals import refusal
from master.state.transaction import Transaction

LOST_NAME = b"lost+found"
LOST_MODE = 0o700

# The others are held decoded by a transaction, or must only change by operations.
_TABLES: Final = frozenset(
    {
        names.ANSWERS,
        names.DELETIONS,
        names.DENTRIES,
        names.DIRINDEX,
        names.HANDLES,
        names.MODES,
        names.ORPHANS,
        names.SYMLINKS,
        names.TRIMS,
        names.XATTRS,
    }
)
_KEY_MAX_BYTES = 511  # LMDB's own limit
_COUNTS = (
    "nlink",
    "entries",
    "next_cookie",
    "chunks",
    "trims",
    "trim_epoch",
    "size_bytes",
    "xattr_names_bytes",
    "xattr_values_bytes",
)
_NARROW = frozenset({"nlink", "trims", "xattr_names_bytes", "xattr_values_bytes"})  # 32 bits


def mend_records(transaction: Transaction, command: MendRecords) -> Done:
    """Raises STALE_VERSION when a record is not as it was, BAD_MESSAGE for what may not be."""
    for change in command.changes:
        _check_change(transaction, change)
    orphans = [_orphan(encoded) for encoded in command.orphans]
    adjusted = [_adjusted(transaction, adjust) for adjust in command.adjust]
    if len(frozenset(a.inode for a in command.adjust)) < len(adjusted):
        raise Failure(Code.BAD_MESSAGE, "an inode is adjusted twice")
    for change in command.changes:
        if change.after:
            transaction.tables.put(change.table, change.key, change.after)
        else:
            transaction.tables.delete(change.table, change.key)
    for inode, adjust in zip(adjusted, command.adjust, strict=True):
        _adjust(transaction, inode, adjust)
    for orphan in orphans:
        transaction.add_orphan(transaction.take_number(), orphan)
    return Done()


def _check_change(transaction: Transaction, change: RecordChange) -> None:
    if change.table not in _TABLES or not 0 < len(change.key) <= _KEY_MAX_BYTES:
        raise Failure(Code.BAD_MESSAGE, f"records of table {change.table!r} are not mended")
    if (transaction.tables.get(change.table, change.key) or b"") != change.before:
        text = f"table {change.table}: the record of key {change.key.hex()} has changed"
        raise Failure(Code.STALE_VERSION, text)


def _orphan(encoded: bytes) -> Orphan:
    """The trim that is left to be reaped. Raises BAD_MESSAGE for anything else."""
    if len(encoded) == len(Orphan(0).encode()) and encoded[0] == records.FORMAT:
        orphan = Orphan.decode(encoded)
        numbers = (orphan.first, orphan.second, orphan.third)
        if orphan.kind == OrphanKind.TRIM and max(numbers) < records.NUMBER_END:
            return orphan
    raise Failure(Code.BAD_MESSAGE, "that is no trim to be reaped")


def adjust_inode(transaction: Transaction, command: AdjustInode) -> Done:
    """Raises ENOENT, BAD_MESSAGE when a count would become impossible."""
    _adjust(transaction, _adjusted(transaction, command), command)
    return Done()


def _adjusted(transaction: Transaction, command: AdjustInode) -> Inode:
    """The inode, which can take the change."""
    inode = transaction.inode(command.inode)
    for count in _COUNTS:
        value = getattr(inode, count) + getattr(command, count)
        if not 0 <= value < (2**32 if count in _NARROW else records.NUMBER_END):
            raise Failure(Code.BAD_MESSAGE, f"inode {inode.number}: {count} cannot be {value}")
    if not 0 <= command.parent < records.NUMBER_END:
        raise Failure(Code.BAD_MESSAGE, f"{command.parent} cannot be a parent")
    return inode


def _adjust(transaction: Transaction, inode: Inode, command: AdjustInode) -> None:
    for count in _COUNTS:
        setattr(inode, count, getattr(inode, count) + getattr(command, count))
    inode.parent = command.parent or inode.parent
    transaction.changed(inode)
    if command.nlink > 0:
        _not_orphaned(transaction, inode.number)


def _not_orphaned(transaction: Transaction, number: int) -> None:
    stored = transaction.tables.get(names.ORPHANS, key(number))
    if stored is not None and Orphan.decode(stored).kind == OrphanKind.INODE:
        transaction.tables.delete(names.ORPHANS, key(number))


def attach_inode(transaction: Transaction, command: AttachInode) -> Done:
    """Raises ENOENT, EEXIST when it is attached already, BAD_MESSAGE for the root."""
    inode = transaction.inode(command.inode)
    name = b"#%d" % inode.number
    if inode.number == ROOT_INODE or not 0 <= command.nlink <= inode.nlink:
        raise Failure(Code.BAD_MESSAGE, f"inode {inode.number} is not to be attached")
    lost = _lost_directory(transaction)
    if lost.number == inode.number or find_entry(transaction, lost, name) is not None:
        raise refusal(errno.EEXIST, f"name {name!r} in {LOST_NAME!r}")
    add_entry(transaction, lost, name, inode)
    if stat.S_ISDIR(inode.mode):
        inode.nlink = inode.nlink or 2
        inode.parent = lost.number
        lost.nlink += 1
    else:
        inode.nlink += 1 - command.nlink
    transaction.changed(inode)
    _not_orphaned(transaction, inode.number)
    return Done()


def _lost_directory(transaction: Transaction) -> Inode:
    """The directory that takes what has no name; made when it is missing."""
    root = transaction.inode(ROOT_INODE)
    entry = find_entry(transaction, root, LOST_NAME)
    if entry is not None:
        found = transaction.inode(entry.inode)
        if not stat.S_ISDIR(found.mode):
            raise refusal(errno.ENOTDIR, f"/{LOST_NAME.decode()}")
        return found
    made = transaction.new_inode(stat.S_IFDIR | LOST_MODE, 0, 0)
    made.nlink = 2
    made.parent = ROOT_INODE
    made.next_cookie = records.FIRST_COOKIE
    made.size_bytes = records.DIRECTORY_SIZE_BYTES
    add_entry(transaction, root, LOST_NAME, made)
    root.nlink += 1
    return made


def adjust_counts(transaction: Transaction, command: AdjustCounts) -> Done:
    """Raises BAD_MESSAGE when a counter would become impossible."""
    now = transaction.counters
    changed = (
        now.inodes + command.inodes,
        now.chunks + command.chunks,
        now.sessions + command.sessions,
    )
    tops = (command.next_inode, command.next_handle)
    if min(*changed, *tops) < 0 or max(*changed, *tops) >= records.NUMBER_END:
        raise Failure(Code.BAD_MESSAGE, f"counters of {changed}, next numbers of {tops}")
    if len(command.replica_sets) != len(command.set_changes):
        raise Failure(Code.BAD_MESSAGE, "a change is due for each replica set")
    sets = list(zip(command.replica_sets, command.set_changes, strict=True))
    if len(dict(sets)) < len(sets):
        raise Failure(Code.BAD_MESSAGE, "a replica set is adjusted twice")
    for set_key, change in sets:
        _check_set(transaction, set_key, change)
    for set_key, change in sets:
        transaction.adjust_replica_set(set_key, change)
    now.inodes, now.chunks, now.sessions = changed
    now.next_inode = max(now.next_inode, command.next_inode)
    now.next_handle = max(now.next_handle, command.next_handle)
    return Done()


def _check_set(transaction: Transaction, set_key: bytes, change: int) -> None:
    if 0 < len(set_key) <= _KEY_MAX_BYTES:
        count = transaction.replica_set_count(set_key) + change
        if 0 <= count < records.NUMBER_END:
            return
    raise Failure(Code.BAD_MESSAGE, f"replica set {set_key.hex()} cannot change by {change}")
