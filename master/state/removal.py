"""Operations that take a name away: unlink and rmdir.

What loses its last link becomes an orphan at once and costs no more; `master.state.orphans` frees
it, in bounded steps, when nobody has it open.
"""

from __future__ import annotations

import errno

from dfs.messages.common import Done
from dfs.messages.operations import RemoveDirectory, Unlink
from master.state.directories import check_may_remove, enter, remove_entry, require_entry
from master.state.refusals import refusal
from master.state.transaction import Transaction


def unlink(transaction: Transaction, operation: Unlink) -> Done:
    """unlink(2)."""
    caller, name = operation.caller, operation.name
    parent = enter(transaction, operation.parent, caller)
    if name in (b".", b".."):
        raise refusal(errno.EISDIR, f"unlink of {name!r}")
    entry = require_entry(transaction, parent, name)
    victim = transaction.inode(entry.inode)
    check_may_remove(parent, victim, caller, tree=False)
    remove_entry(transaction, parent, entry)
    transaction.drop_link(victim)
    return Done()


def remove_directory(transaction: Transaction, operation: RemoveDirectory) -> Done:
    """rmdir(2)."""
    caller, name = operation.caller, operation.name
    parent = enter(transaction, operation.parent, caller)
    if name == b".":
        raise refusal(errno.EINVAL, "rmdir of '.'")
    if name == b"..":
        raise refusal(errno.ENOTEMPTY, "rmdir of '..'")
    entry = require_entry(transaction, parent, name)
    victim = transaction.inode(entry.inode)
    check_may_remove(parent, victim, caller, tree=True)
    if victim.entries:
        raise refusal(errno.ENOTEMPTY, f"name {name!r} in directory {parent.number}")
    remove_entry(transaction, parent, entry)
    transaction.drop_link(victim)
    parent.nlink -= 1
    return Done()
