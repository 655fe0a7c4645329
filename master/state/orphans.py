"""Freeing what nobody can reach any more, in bounded steps.

Owns the end of `orphans` entries of all kinds (see `records.OrphanKind`). The leader names the
orphans that no session has open; whatever else it names is left alone.
"""

from __future__ import annotations

import stat

from dfs.messages.common import Done
from master import tables as names
from master.commands import ReapOrphans
from master.state import chunks, records, sessions, xattrs
from master.state.records import Orphan, OrphanKind, key
from master.state.transaction import Transaction

UNITS_MAX = 65536  # of one command, whatever it asks for


def reap_orphans(transaction: Transaction, command: ReapOrphans) -> Done:
    """Free the orphans in turn until `max_chunks` records are dropped."""
    budget = min(command.max_chunks, UNITS_MAX)
    for number in command.inodes:
        if budget <= 0:
            break
        if 0 < number < records.NUMBER_END:
            budget -= _reap(transaction, number, budget)
    return Done()


def _reap(transaction: Transaction, number: int, budget: int) -> int:
    """Go on with one orphan; the number of records it cost."""
    stored = transaction.tables.get(names.ORPHANS, key(number))
    if stored is None:
        return 0
    orphan = Orphan.decode(stored)
    if orphan.kind == OrphanKind.TRIM:
        cost, finished = chunks.reap_trim(transaction, orphan, budget)
    elif orphan.kind == OrphanKind.ANSWERS:
        cost, finished = sessions.reap_answers(transaction, orphan, budget)
    else:
        cost, finished = _reap_inode(transaction, number, budget)
    if finished:
        transaction.tables.delete(names.ORPHANS, key(number))
    elif orphan.kind != OrphanKind.INODE:
        transaction.add_orphan(number, orphan)
    return cost


def _reap_inode(transaction: Transaction, number: int, budget: int) -> tuple[int, bool]:
    inode = transaction.inode(number)
    cost = chunks.drop_some(transaction, inode, budget)
    cost += xattrs.drop_some(transaction, inode, budget - cost)
    if inode.chunks or inode.xattr_names_bytes:
        return cost, False
    if stat.S_ISLNK(inode.mode):
        transaction.tables.delete(names.SYMLINKS, key(number))
    transaction.forget_inode(number)
    return cost, True
