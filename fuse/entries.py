"""Attributes and file system figures in the form the kernel takes them.

Until leases exist every timeout is 0: the kernel asks again each time, so that two mounts agree.
The FUSE inode number is the inode number of the file system. Inode numbers are never used twice,
hence one generation number for all.
"""

from __future__ import annotations

import pyfuse3

from dfs.layout import NAME_MAX_BYTES
from dfs.messages.common import Attributes
from dfs.messages.metadata import FsInfo

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
