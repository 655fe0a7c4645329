"""renameat2(2), checks in the order of Linux (do_renameat2, vfs_rename).

A replaced name keeps its cookie, so whoever lists the directory meanwhile sees it exactly once.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass

from dfs.layout import LINK_MAX, ROOT_INODE
from dfs.messages.common import Credentials, Done
from dfs.messages.operations import Rename, RenameFlags
from dfs.permissions import WRITE, may
from master.state.directories import (
    DOTS,
    Entry,
    add_entry,
    check_may_add,
    check_may_remove,
    enter,
    find_entry,
    point_entry,
    remove_entry,
    require_entry,
)
from master.state.records import Inode
from master.state.refusals import refusal
from master.state.transaction import Transaction

_KNOWN_FLAGS = (RenameFlags.NONE, RenameFlags.NOREPLACE, RenameFlags.EXCHANGE)


@dataclass(slots=True)
class _Move:
    """All that a rename is about, looked up."""

    old_parent: Inode
    old_entry: Entry
    source: Inode
    new_parent: Inode
    new_name: bytes
    new_entry: Entry | None
    target: Inode | None
    exchange: bool

    @property
    def crosses(self) -> bool:
        return self.old_parent is not self.new_parent


def rename(transaction: Transaction, operation: Rename) -> Done:
    """renameat2(2)."""
    move = _look_up(transaction, operation)
    _check_loops(transaction, move)
    if move.source is move.target:
        return Done()
    _check_permissions(move, operation.caller)
    _check_target(move)
    if move.exchange:
        _exchange(transaction, move)
    else:
        _replace(transaction, move)
    return Done()


def _look_up(transaction: Transaction, operation: Rename) -> _Move:
    if operation.flags not in _KNOWN_FLAGS:
        raise refusal(errno.EINVAL, f"rename flags {operation.flags}")
    exclusive = operation.flags == RenameFlags.NOREPLACE
    exchange = operation.flags == RenameFlags.EXCHANGE
    old_parent = enter(transaction, operation.parent, operation.caller)
    new_parent = enter(transaction, operation.new_parent, operation.caller)
    if operation.name in DOTS:
        raise refusal(errno.EBUSY, f"rename of {operation.name!r}")
    if operation.new_name in DOTS:
        raise refusal(errno.EEXIST if exclusive else errno.EBUSY, "rename onto '.' or '..'")
    old_entry = require_entry(transaction, old_parent, operation.name)
    if new_parent.nlink == 0:
        raise refusal(errno.ENOENT, f"directory {new_parent.number} was removed")
    new_entry = find_entry(transaction, new_parent, operation.new_name)
    about = f"name {operation.new_name!r} in directory {new_parent.number}"
    if exclusive and new_entry is not None:
        raise refusal(errno.EEXIST, about)
    if exchange and new_entry is None:
        raise refusal(errno.ENOENT, about)
    source = transaction.inode(old_entry.inode)
    target = None if new_entry is None else transaction.inode(new_entry.inode)
    return _Move(
        old_parent, old_entry, source, new_parent, operation.new_name, new_entry, target, exchange
    )


def _check_loops(transaction: Transaction, move: _Move) -> None:
    """Neither name may stand above the other: EINVAL, or ENOTEMPTY for the one replaced."""
    if not move.crosses:
        return
    if _contains(transaction, move.source, move.new_parent):
        raise refusal(errno.EINVAL, f"directory {move.source.number} into its own subtree")
    if move.target is not None and _contains(transaction, move.target, move.old_parent):
        number = errno.EINVAL if move.exchange else errno.ENOTEMPTY
        raise refusal(number, f"directory {move.target.number} is above what would replace it")


def _contains(transaction: Transaction, tree: Inode, directory: Inode) -> bool:
    """Whether `directory` is `tree` or lies below it."""
    if not stat.S_ISDIR(tree.mode):
        return False
    at: Inode | None = directory
    while at is not None and at is not tree:
        at = None if at.number == ROOT_INODE else transaction.find_inode(at.parent)
    return at is tree


def _check_permissions(move: _Move, caller: Credentials) -> None:
    source_is_tree = stat.S_ISDIR(move.source.mode)
    target_is_tree = move.target is not None and stat.S_ISDIR(move.target.mode)
    check_may_remove(move.old_parent, move.source, caller, tree=source_is_tree)
    if move.target is None:
        check_may_add(move.new_parent, caller)
    else:
        expected = target_is_tree if move.exchange else source_is_tree
        check_may_remove(move.new_parent, move.target, caller, tree=expected)
    if move.crosses:
        # A directory that gets another parent has its `..` rewritten, a change of its own.
        for inode in (move.source, move.target if move.exchange else None):
            if inode is not None and stat.S_ISDIR(inode.mode) and not may(inode, caller, WRITE):
                raise refusal(errno.EACCES, f"change of directory {inode.number}")


def _check_target(move: _Move) -> None:
    if move.exchange:
        return
    if move.target is not None and move.target.entries:
        raise refusal(errno.ENOTEMPTY, f"directory {move.target.number}")
    grows = move.crosses and move.target is None and stat.S_ISDIR(move.source.mode)
    if grows and move.new_parent.nlink >= LINK_MAX:
        raise refusal(errno.EMLINK, f"directory {move.new_parent.number}")


def _replace(transaction: Transaction, move: _Move) -> None:
    source, target = move.source, move.target
    remove_entry(transaction, move.old_parent, move.old_entry)
    if move.new_entry is None or target is None:
        add_entry(transaction, move.new_parent, move.new_name, source)
    else:
        point_entry(transaction, move.new_parent, move.new_entry, source)
        if stat.S_ISDIR(target.mode):
            move.new_parent.nlink -= 1
        transaction.drop_link(target)
    _settle(transaction, source, move.old_parent, move.new_parent)


def _exchange(transaction: Transaction, move: _Move) -> None:
    assert move.new_entry is not None
    assert move.target is not None
    point_entry(transaction, move.old_parent, move.old_entry, move.target)
    point_entry(transaction, move.new_parent, move.new_entry, move.source)
    _settle(transaction, move.source, move.old_parent, move.new_parent)
    _settle(transaction, move.target, move.new_parent, move.old_parent)


def _settle(transaction: Transaction, inode: Inode, origin: Inode, new_parent: Inode) -> None:
    """The inode has moved from one directory to another (or within one)."""
    inode.ctime_ns = transaction.now_ns
    transaction.changed(inode)
    if stat.S_ISDIR(inode.mode):
        inode.parent = new_parent.number
        origin.nlink -= 1
        new_parent.nlink += 1
