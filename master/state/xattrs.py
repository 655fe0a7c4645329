"""Extended attributes: who may see and change which, and the operations that change them.

Namespaces as in xattr(7): user (regular files and directories, by the file's mode), trusted
(uid 0 alone, invisible to others), security (seen by all, changed by uid 0). Bounds: a name of 255
bytes, a value of 64 KiB, and per inode 64 KiB of names (what listxattr(2) can return) and 1 MiB of
values; beyond these last two ENOSPC.
"""

from __future__ import annotations

import errno
import stat

from dfs.layout import XATTR_NAME_MAX_BYTES, XATTR_VALUE_MAX_BYTES
from dfs.messages.common import Credentials, Done
from dfs.messages.operations import RemoveXattr, SetXattr, XattrFlags
from dfs.permissions import READ, WRITE, may, owns
from master import tables as names
from master.state import records
from master.state.records import Inode, key
from master.state.refusals import refusal
from master.state.transaction import Transaction
from master.tables import Tables

NAMES_MAX_BYTES = 64 * 1024
VALUES_MAX_BYTES = 1024 * 1024
USER, TRUSTED, SECURITY = b"user.", b"trusted.", b"security."
_BEYOND_MODE = (TRUSTED, SECURITY, b"system.")
_KNOWN_FLAGS = int(XattrFlags.CREATE | XattrFlags.REPLACE)  # of an int, ~ is the complement


def set_xattr(transaction: Transaction, operation: SetXattr) -> Done:
    """setxattr(2)."""
    name, value, flags = operation.name, operation.value, operation.flags
    if flags & ~_KNOWN_FLAGS:
        raise refusal(errno.EINVAL, f"setxattr flags {flags}")
    check_name_length(name)
    if len(value) > XATTR_VALUE_MAX_BYTES:
        raise refusal(errno.E2BIG, f"attribute {name!r} of {len(value)} bytes")
    inode = transaction.inode(operation.inode)
    check_may_write(inode, name, operation.caller)
    old = find(transaction.tables, inode, name)
    if old is not None and flags & XattrFlags.CREATE:
        raise refusal(errno.EEXIST, f"attribute {name!r} of inode {inode.number}")
    if old is None and flags & XattrFlags.REPLACE:
        raise refusal(errno.ENODATA, f"attribute {name!r} of inode {inode.number}")
    if old == value:
        return Done()  # no change, so no ctime either, as on ext4
    names_bytes, values_bytes = _sizes_after(inode, name, old, value)
    if names_bytes > NAMES_MAX_BYTES or values_bytes > VALUES_MAX_BYTES:
        raise refusal(errno.ENOSPC, f"attributes of inode {inode.number}")
    transaction.tables.put(names.XATTRS, key(inode.number) + name, records.encode_blob(value))
    _account(transaction, inode, names_bytes, values_bytes)
    return Done()


def remove_xattr(transaction: Transaction, operation: RemoveXattr) -> Done:
    """removexattr(2)."""
    name = operation.name
    check_name_length(name)
    inode = transaction.inode(operation.inode)
    check_may_write(inode, name, operation.caller)
    old = find(transaction.tables, inode, name)
    if old is None:
        raise refusal(errno.ENODATA, f"attribute {name!r} of inode {inode.number}")
    transaction.tables.delete(names.XATTRS, key(inode.number) + name)
    _account(transaction, inode, *_sizes_after(inode, name, old, None))
    return Done()


def _sizes_after(
    inode: Inode, name: bytes, old: bytes | None, new: bytes | None
) -> tuple[int, int]:
    """(bytes of names, bytes of values) once the attribute has changed from `old` to `new`."""
    names_bytes = inode.xattr_names_bytes + (len(name) + 1) * ((old is None) - (new is None))
    values_bytes = inode.xattr_values_bytes + len(new or b"") - len(old or b"")
    return names_bytes, values_bytes


def _account(transaction: Transaction, inode: Inode, names_bytes: int, values_bytes: int) -> None:
    inode.xattr_names_bytes, inode.xattr_values_bytes = names_bytes, values_bytes
    inode.ctime_ns = transaction.now_ns
    transaction.changed(inode)


def drop_some(transaction: Transaction, inode: Inode, limit: int) -> int:
    """Drop up to `limit` attributes of an orphan; how many it were."""
    if not inode.xattr_names_bytes or not limit:
        return 0
    found = []
    for name_key, value in transaction.tables.scan(names.XATTRS, *records.range_of(inode.number)):
        found.append((name_key, records.decode_blob(value)))
        if len(found) == limit:
            break
    for name_key, old in found:
        transaction.tables.delete(names.XATTRS, name_key)
        _account(transaction, inode, *_sizes_after(inode, name_key[8:], old, None))
    return len(found)


# -- shared with the queries


def check_name_length(name: bytes) -> None:
    """Raises ERANGE, as the system calls do."""
    if not 0 < len(name) <= XATTR_NAME_MAX_BYTES or b"\0" in name:
        raise refusal(errno.ERANGE, f"attribute name of {len(name)} bytes")


def find(tables: Tables, inode: Inode, name: bytes) -> bytes | None:
    """The value, or None."""
    if not inode.xattr_names_bytes:
        return None
    stored = tables.get(names.XATTRS, key(inode.number) + name)
    return None if stored is None else records.decode_blob(stored)


def check_may_write(inode: Inode, name: bytes, caller: Credentials) -> None:
    """Raises EPERM, EACCES, EOPNOTSUPP, EINVAL."""
    if name.startswith((TRUSTED, SECURITY)) and caller.uid != 0:
        raise refusal(errno.EPERM, f"attribute {name!r}")
    if name.startswith(USER):
        sticky = stat.S_ISDIR(inode.mode) and inode.mode & stat.S_ISVTX
        if not _takes_user(inode) or (sticky and not owns(inode, caller)):
            raise refusal(errno.EPERM, f"attribute {name!r} of inode {inode.number}")
    _check_access(inode, name, caller, WRITE)


def check_may_read(inode: Inode, name: bytes, caller: Credentials) -> None:
    """Raises ENODATA, EACCES, EOPNOTSUPP, EINVAL."""
    if not is_visible(name, caller) or (name.startswith(USER) and not _takes_user(inode)):
        raise refusal(errno.ENODATA, f"attribute {name!r} of inode {inode.number}")
    _check_access(inode, name, caller, READ)


def _takes_user(inode: Inode) -> bool:
    """Whether the inode is of a kind that has attributes of the user namespace."""
    return stat.S_ISREG(inode.mode) or stat.S_ISDIR(inode.mode)


def _check_access(inode: Inode, name: bytes, caller: Credentials, want: int) -> None:
    """The file's mode guards all but the system's own namespaces; then the name must be one."""
    if not name.startswith(_BEYOND_MODE) and not may(inode, caller, want):
        raise refusal(errno.EACCES, f"attribute {name!r} of inode {inode.number}")
    _check_namespace(name)


def is_visible(name: bytes, caller: Credentials) -> bool:
    """Whether the caller may know of the attribute at all."""
    return caller.uid == 0 or not name.startswith(TRUSTED)


def _check_namespace(name: bytes) -> None:
    """A known prefix, and something behind it."""
    for prefix in (USER, TRUSTED, SECURITY):
        if name == prefix:
            raise refusal(errno.EINVAL, f"attribute {name!r}")
        if name.startswith(prefix):
            return
    raise refusal(errno.EOPNOTSUPP, f"attribute {name!r}")
