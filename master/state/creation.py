"""Operations that add a name: create, mknod, mkdir, symlink, link.

The order of the checks is that of Linux (filename_create, may_create), because programs see which
error wins: the parent's search permission, EEXIST, a removed parent, its write permission.
"""

from __future__ import annotations

import errno
import stat

from dfs.layout import LINK_MAX, SYMLINK_MAX_BYTES
from dfs.messages.common import Attributes, Credentials
from dfs.messages.operations import Create, MakeDirectory, MakeLink, MakeNode, MakeSymlink
from dfs.permissions import in_group
from master import tables as names
from master.state import records
from master.state.directories import DOTS, add_entry, check_may_add, enter, find_entry
from master.state.records import Inode, key
from master.state.refusals import refusal
from master.state.transaction import Transaction

PERMISSION_BITS = 0o7777
RDEV_END = 2**32  # as wide as the kernel's dev_t
_NODE_KINDS = (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


def create(transaction: Transaction, operation: Create) -> Attributes:
    """open(O_CREAT)."""
    caller, name = operation.caller, operation.name
    parent = enter(transaction, operation.parent, caller)
    if name in DOTS:
        raise refusal(errno.EEXIST if operation.exclusive else errno.EISDIR, f"name {name!r}")
    entry = find_entry(transaction, parent, name)
    if entry is None:
        mode = stat.S_IFREG | operation.mode & PERMISSION_BITS
        return _make(transaction, parent, name, mode, caller).attributes()
    if operation.exclusive:
        raise refusal(errno.EEXIST, f"name {name!r} in directory {parent.number}")
    inode = transaction.inode(entry.inode)
    if stat.S_ISDIR(inode.mode):
        raise refusal(errno.EISDIR, f"name {name!r} in directory {parent.number}")
    return inode.attributes()


def make_node(transaction: Transaction, operation: MakeNode) -> Attributes:
    """mknod(2)."""
    kind = stat.S_IFMT(operation.mode & 0xFFFF) or stat.S_IFREG
    if kind == stat.S_IFDIR:
        raise refusal(errno.EPERM, "mknod of a directory")
    device = kind in _DEVICES
    if kind not in _NODE_KINDS or (device and not 0 <= operation.rdev < RDEV_END):
        raise refusal(errno.EINVAL, f"mknod with mode {operation.mode:#o}, rdev {operation.rdev}")
    parent = _vacant(transaction, operation.parent, operation.name, operation.caller)
    if device and operation.caller.uid != 0:
        raise refusal(errno.EPERM, "mknod of a device")
    mode = kind | operation.mode & PERMISSION_BITS
    rdev = operation.rdev if device else 0
    return _make(
        transaction, parent, operation.name, mode, operation.caller, rdev=rdev
    ).attributes()


def make_directory(transaction: Transaction, operation: MakeDirectory) -> Attributes:
    """mkdir(2). Of the mode, setuid and setgid are ignored, as Linux does."""
    parent = _vacant(transaction, operation.parent, operation.name, operation.caller)
    if parent.nlink >= LINK_MAX:
        raise refusal(errno.EMLINK, f"directory {parent.number}")
    mode = stat.S_IFDIR | operation.mode & 0o1777
    inode = _make(transaction, parent, operation.name, mode, operation.caller)
    inode.nlink = 2
    inode.parent = parent.number
    inode.next_cookie = records.FIRST_COOKIE
    inode.size_bytes = records.DIRECTORY_SIZE_BYTES
    parent.nlink += 1
    return inode.attributes()


def make_symlink(transaction: Transaction, operation: MakeSymlink) -> Attributes:
    """symlink(2)."""
    target = operation.target
    if not target:
        raise refusal(errno.ENOENT, "symlink to the empty path")
    if len(target) > SYMLINK_MAX_BYTES:
        raise refusal(errno.ENAMETOOLONG, f"symlink target of {len(target)} bytes")
    if b"\0" in target:
        raise refusal(errno.EINVAL, f"symlink target {target!r}")
    parent = _vacant(transaction, operation.parent, operation.name, operation.caller)
    inode = _make(transaction, parent, operation.name, stat.S_IFLNK | 0o777, operation.caller)
    inode.size_bytes = len(target)
    transaction.tables.put(names.SYMLINKS, key(inode.number), records.encode_blob(target))
    return inode.attributes()


def make_link(transaction: Transaction, operation: MakeLink) -> Attributes:
    """link(2)."""
    inode = transaction.inode(operation.inode)
    parent = _vacant(transaction, operation.parent, operation.name, operation.caller)
    if stat.S_ISDIR(inode.mode):
        raise refusal(errno.EPERM, f"link to directory {inode.number}")
    if inode.nlink == 0:
        raise refusal(errno.ENOENT, f"inode {inode.number} was unlinked")
    if inode.nlink >= LINK_MAX:
        raise refusal(errno.EMLINK, f"inode {inode.number}")
    add_entry(transaction, parent, operation.name, inode)
    inode.nlink += 1
    inode.ctime_ns = transaction.now_ns
    transaction.changed(inode)
    return inode.attributes()


def _vacant(transaction: Transaction, number: int, name: bytes, caller: Credentials) -> Inode:
    """The directory, to which the caller may add the name, which is not there yet."""
    parent = enter(transaction, number, caller)
    if name in DOTS or find_entry(transaction, parent, name) is not None:
        raise refusal(errno.EEXIST, f"name {name!r} in directory {number}")
    check_may_add(parent, caller)
    return parent


def _make(
    transaction: Transaction,
    parent: Inode,
    name: bytes,
    mode: int,
    caller: Credentials,
    *,
    rdev: int = 0,
) -> Inode:
    """A new inode under that name, with one link. Raises as `check_may_add`, or EINVAL."""
    check_may_add(parent, caller)
    if not (0 <= caller.uid < records.ID_END and 0 <= caller.gid < records.ID_END):
        raise refusal(errno.EINVAL, f"owner {caller.uid}:{caller.gid}")
    gid = parent.gid if parent.mode & stat.S_ISGID else caller.gid
    mode = _inherited_mode(parent, mode, caller)
    inode = transaction.new_inode(mode, caller.uid, gid, rdev)
    inode.nlink = 1
    add_entry(transaction, parent, name, inode)
    return inode


def _inherited_mode(parent: Inode, mode: int, caller: Credentials) -> int:
    """What a setgid directory does to a new mode: subdirectories take the bit, and an executable
    cannot be made setgid to a group that is not the caller's."""
    if not parent.mode & stat.S_ISGID:
        return mode
    if stat.S_ISDIR(mode):
        return mode | stat.S_ISGID
    privileged = caller.uid == 0 or in_group(caller, parent.gid)
    if mode & stat.S_ISGID and mode & stat.S_IXGRP and not privileged:
        return mode & ~stat.S_ISGID
    return mode
