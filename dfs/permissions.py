"""Who may do what: the rules of `access(2)` as pure functions, for master and client alike.

uid 0 stands for all capabilities of Linux (CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_CHOWN, CAP_FSETID,
CAP_MKNOD, CAP_SYS_ADMIN). Leaves to `master.state` what each operation asks.
"""

from __future__ import annotations

import stat
from typing import Protocol

from dfs.messages.common import Credentials

READ, WRITE, EXECUTE = 4, 2, 1  # as in access(2); EXECUTE of a directory is searching it


class Owned(Protocol):
    """Whatever has an owner and a mode: `Attributes`, or the master's inode record."""

    @property
    def mode(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...


def may(subject: Owned, caller: Credentials, want: int) -> bool:
    """Whether the caller has all of `want` (READ | WRITE | EXECUTE).

    Exactly one class of bits counts: an owner whom the owner's bits refuse is refused, even if
    the others' bits would allow it. uid 0 is refused only to execute a file nobody may execute.
    """
    mode = subject.mode
    if caller.uid == 0:
        return not want & EXECUTE or stat.S_ISDIR(mode) or bool(mode & 0o111)
    if caller.uid == subject.uid:
        mode >>= 6
    elif in_group(caller, subject.gid):
        mode >>= 3
    return mode & want == want


def in_group(caller: Credentials, gid: int) -> bool:
    """Whether the group is the caller's own or one of its supplementary groups."""
    return caller.gid == gid or gid in caller.groups


def owns(subject: Owned, caller: Credentials) -> bool:
    """Whether the caller may do what is the owner's to do (chmod, setting times)."""
    return caller.uid in (0, subject.uid)


def sticky_forbids(directory: Owned, victim: Owned, caller: Credentials) -> bool:
    """Whether the directory's sticky bit keeps the caller from removing or renaming the victim."""
    if not directory.mode & stat.S_ISVTX or caller.uid == 0:
        return False
    return caller.uid not in (victim.uid, directory.uid)


def bits_lost_by_change(subject: Owned, caller: Credentials) -> int:
    """The mode bits that a change of owner takes away (and, but for uid 0, a write or truncate).

    setuid always; setgid when the group may execute or the caller is not in the group. A setgid
    bit without group execution otherwise stays, as Linux has it.
    """
    lost = subject.mode & stat.S_ISUID
    if subject.mode & stat.S_ISGID and (
        subject.mode & stat.S_IXGRP or not (caller.uid == 0 or in_group(caller, subject.gid))
    ):
        lost |= stat.S_ISGID
    return lost
