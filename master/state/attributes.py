"""Operations on an inode's attributes: SetAttributes and CommitWrite.

The checks are those of Linux (setattr_prepare, vfs_truncate, vfs_utimes). Reads do not change
atime (as with the mount option noatime).
"""

from __future__ import annotations

import errno
import stat

from dfs.layout import FILE_MAX_BYTES
from dfs.messages.common import Attributes, Credentials, Done
from dfs.messages.operations import CommitWrite, SetAttributes
from dfs.permissions import WRITE, bits_lost_by_change, in_group, may, owns
from master.state import chunks
from master.state.records import ID_END, TIME_MAX_NS, TIME_MIN_NS, Inode
from master.state.refusals import check_regular, refusal
from master.state.transaction import Transaction


def set_attributes(transaction: Transaction, operation: SetAttributes) -> Attributes:
    """chmod(2), chown(2), truncate(2) and utimensat(2) in one, all or nothing."""
    inode = transaction.inode(operation.inode)
    _check_ranges(operation)
    _check_mode(inode, operation)
    _check_size(inode, operation)
    _check_owner(inode, operation)
    _check_times(inode, operation)
    if operation.size_bytes is not None:
        _set_size(transaction, inode, operation.size_bytes, operation)
    _set_owner(inode, operation)
    _set_mode(inode, operation)
    _set_times(inode, operation, transaction.now_ns)
    if _changes(operation):
        inode.ctime_ns = transaction.now_ns
        transaction.changed(inode)
    return inode.attributes()


def commit_write(transaction: Transaction, operation: CommitWrite) -> Done:
    """Written data becomes part of the file."""
    inode = transaction.inode(operation.inode)
    check_regular(inode)
    if operation.end_bytes < 0 or len(operation.cuts) % 2 or len(operation.written) % 2:
        raise refusal(errno.EINVAL, f"commit of {operation.end_bytes} bytes to {inode.number}")
    if operation.end_bytes > FILE_MAX_BYTES:
        raise refusal(errno.EFBIG, f"commit of {operation.end_bytes} bytes to {inode.number}")
    _check_time(operation.mtime_ns)
    chunks.finish_cuts(transaction, inode, operation.cuts)
    chunks.note_written(transaction, inode, operation.written)
    inode.size_bytes = max(inode.size_bytes, operation.end_bytes)
    inode.data_version += 1
    inode.mtime_ns = transaction.now_ns if operation.mtime_ns is None else operation.mtime_ns
    inode.ctime_ns = transaction.now_ns
    _lose_privileges(inode, operation.caller)
    transaction.changed(inode)
    return Done()


# -- checks


def _changes(operation: SetAttributes) -> bool:
    given = (
        operation.mode,
        operation.uid,
        operation.gid,
        operation.size_bytes,
        operation.atime_ns,
        operation.mtime_ns,
    )
    return operation.atime_now or operation.mtime_now or any(v is not None for v in given)


def _check_ranges(operation: SetAttributes) -> None:
    for owner in (operation.uid, operation.gid):
        if owner is not None and not 0 <= owner < ID_END:
            raise refusal(errno.EINVAL, f"owner {owner}")
    _check_time(operation.atime_ns)
    _check_time(operation.mtime_ns)
    if operation.size_bytes is not None and operation.size_bytes < 0:
        raise refusal(errno.EINVAL, f"size {operation.size_bytes}")


def _check_time(time_ns: int | None) -> None:
    if time_ns is not None and not TIME_MIN_NS <= time_ns <= TIME_MAX_NS:
        raise refusal(errno.EINVAL, f"time {time_ns}")


def _check_mode(inode: Inode, operation: SetAttributes) -> None:
    if operation.mode is None:
        return
    if stat.S_ISLNK(inode.mode):
        raise refusal(errno.EOPNOTSUPP, f"chmod of symlink {inode.number}")
    if not owns(inode, operation.caller):
        raise refusal(errno.EPERM, f"chmod of inode {inode.number}")


def _check_size(inode: Inode, operation: SetAttributes) -> None:
    size = operation.size_bytes
    if size is None:
        return
    check_regular(inode)
    if not operation.through_handle and not may(inode, operation.caller, WRITE):
        raise refusal(errno.EACCES, f"truncate of inode {inode.number}")
    if size > FILE_MAX_BYTES:
        raise refusal(errno.EFBIG, f"inode {inode.number}, size {size}")


def _check_owner(inode: Inode, operation: SetAttributes) -> None:
    """Owners may keep themselves as owner and give the file to a group of theirs."""
    caller, uid, gid = operation.caller, operation.uid, operation.gid
    if caller.uid == 0 or (uid is None and gid is None):
        return
    allowed = caller.uid == inode.uid and uid in (None, inode.uid)
    if allowed and gid is not None:
        allowed = gid == inode.gid or in_group(caller, gid)
    if not allowed:
        raise refusal(errno.EPERM, f"chown of inode {inode.number}")


def _check_times(inode: Inode, operation: SetAttributes) -> None:
    """Any time: the owner. The present time, for both: whoever may write, too."""
    if owns(inode, operation.caller):
        return
    if operation.atime_ns is not None or operation.mtime_ns is not None:
        raise refusal(errno.EPERM, f"times of inode {inode.number}")
    if operation.size_bytes is not None:
        return  # a truncate brings its own mtime
    if operation.atime_now != operation.mtime_now:
        raise refusal(errno.EPERM, f"times of inode {inode.number}")
    if operation.atime_now and not may(inode, operation.caller, WRITE):
        raise refusal(errno.EACCES, f"times of inode {inode.number}")


# -- changes


def _set_size(transaction: Transaction, inode: Inode, size: int, operation: SetAttributes) -> None:
    if operation.grow_only and size <= inode.size_bytes:
        return
    if size < inode.size_bytes:
        chunks.truncate(transaction, inode, size)
    elif size > inode.size_bytes and not operation.keep_tail:
        chunks.clear_beyond_end(transaction, inode)
    if size != inode.size_bytes:
        inode.data_version += 1
    inode.size_bytes = size
    inode.mtime_ns = transaction.now_ns
    _lose_privileges(inode, operation.caller)


def _lose_privileges(inode: Inode, caller: Credentials) -> None:
    """A change of contents by anyone but uid 0 ends setuid and setgid."""
    if caller.uid != 0:
        inode.mode &= ~bits_lost_by_change(inode, caller)


def _set_owner(inode: Inode, operation: SetAttributes) -> None:
    if operation.uid is None and operation.gid is None:
        return
    if not stat.S_ISDIR(inode.mode):
        inode.mode &= ~bits_lost_by_change(inode, operation.caller)
    inode.uid = inode.uid if operation.uid is None else operation.uid
    inode.gid = inode.gid if operation.gid is None else operation.gid


def _set_mode(inode: Inode, operation: SetAttributes) -> None:
    if operation.mode is None:
        return
    mode = operation.mode & 0o7777
    if operation.caller.uid != 0 and not in_group(operation.caller, inode.gid):
        mode &= ~stat.S_ISGID
    inode.mode = stat.S_IFMT(inode.mode) | mode


def _set_times(inode: Inode, operation: SetAttributes, now_ns: int) -> None:
    if operation.atime_ns is not None:
        inode.atime_ns = operation.atime_ns
    elif operation.atime_now:
        inode.atime_ns = now_ns
    if operation.mtime_ns is not None:
        inode.mtime_ns = operation.mtime_ns
    elif operation.mtime_now:
        inode.mtime_ns = now_ns
