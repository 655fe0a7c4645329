"""Attributes and file system figures in the form the kernel takes them, and its wishes in ours.

Until leases exist every timeout is 0: the kernel asks again each time, so that two mounts agree.
The FUSE inode number is the inode number of the file system. Inode numbers are never used twice,
hence one generation number for all.
"""

from __future__ import annotations

import stat

import pyfuse3

from dfs.layout import NAME_MAX_BYTES
from dfs.messages.common import Attributes
from dfs.messages.metadata import FsInfo
from dfs.messages.operations import SetAttributes
from fuse import callers

CACHE_TIMEOUT_S = 0
GENERATION = 0
SECTOR_BYTES = 512  # the unit of st_blocks, whatever st_blksize says
# What programs take as their buffer (stdio, Python, cp): large enough that a request of the kernel
# is worth its price, small enough that a program which seeks and reads a little wastes little.
PREFERRED_IO_BYTES = 128 << 10
FRAGMENT_BYTES = 4096  # the unit in which `df` and statvfs count


def entry_of(attributes: Attributes) -> pyfuse3.EntryAttributes:
    """The kernel's form of an inode's attributes."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(attributes.inode)
    entry.generation = GENERATION
    entry.entry_timeout = CACHE_TIMEOUT_S
    entry.attr_timeout = CACHE_TIMEOUT_S
    entry.st_mode = pyfuse3.ModeT(attributes.mode)
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.rdev
    entry.st_size = attributes.size_bytes
    entry.st_blksize = PREFERRED_IO_BYTES
    entry.st_blocks = -(-attributes.allocated_bytes // SECTOR_BYTES)
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    return entry


def statvfs_of(info: FsInfo) -> pyfuse3.StatvfsData:
    """The figures of `df` and `df -i`."""
    figures = pyfuse3.StatvfsData()
    figures.f_bsize = PREFERRED_IO_BYTES
    figures.f_frsize = FRAGMENT_BYTES
    figures.f_blocks = info.total_bytes // FRAGMENT_BYTES
    figures.f_bfree = figures.f_bavail = info.free_bytes // FRAGMENT_BYTES
    # Inodes are bounded by nothing but space: as many files as there are fragments left.
    figures.f_ffree = figures.f_favail = figures.f_bfree
    figures.f_files = info.inodes_used + figures.f_ffree
    figures.f_namemax = NAME_MAX_BYTES
    return figures


def changes_of(
    inode: int,
    attr: pyfuse3.EntryAttributes,
    fields: pyfuse3.SetattrFields,
    *,
    through_handle: bool,
    ctx: pyfuse3.RequestContext,
) -> SetAttributes:
    """What the kernel wants changed by a setattr."""
    # Along with a size the kernel sends what the master does by itself: times as of now, and a mode
    # without its set-id bits.
    only_size = fields.update_size
    mode = stat.S_IMODE(attr.st_mode) if fields.update_mode and not only_size else None
    gid = attr.st_gid if fields.update_gid else None
    full = callers.needs_groups(ctx, mode, gid)
    return SetAttributes(
        inode,
        callers.full_caller_of(ctx) if full else callers.caller_of(ctx),
        mode=mode,
        uid=attr.st_uid if fields.update_uid else None,
        gid=gid,
        size_bytes=attr.st_size if fields.update_size else None,
        atime_ns=attr.st_atime_ns if fields.update_atime and not only_size else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime and not only_size else None,
        through_handle=through_handle,
    )
