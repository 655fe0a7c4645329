"""What the state machine says when it refuses.

The sentences are part of stored answers, hence of the replicated state: they must not depend on
the C library or the locale of a master, so `os.strerror` is not for here.
"""

from __future__ import annotations

import errno
import stat

from dfs.errors import Code, Failure
from dfs.messages.common import Refused
from master.state.records import Inode

_REASONS = {
    errno.E2BIG: "value too large",
    errno.EACCES: "permission denied",
    errno.EBUSY: "busy",
    errno.EEXIST: "exists already",
    errno.EFBIG: "file too large",
    errno.EINVAL: "invalid argument",
    errno.EISDIR: "is a directory",
    errno.EMLINK: "too many links",
    errno.ENAMETOOLONG: "name too long",
    errno.ENODATA: "no such attribute",
    errno.ENOENT: "no such file or directory",
    errno.ENOSPC: "no space left",
    errno.ENOTDIR: "not a directory",
    errno.ENOTEMPTY: "directory not empty",
    errno.EOPNOTSUPP: "not supported",
    errno.EPERM: "operation not permitted",
    errno.ERANGE: "name out of range",
}


def refusal(error_number: int, about: str) -> Failure:
    """A file system error about something: `refusal(ENOENT, "name b'x' in inode 7")`."""
    return Failure(Code.ERRNO, f"{about}: {_REASONS[error_number]}", errno=error_number)


def as_answer(failure: Failure) -> Refused:
    """The answer that carries the failure."""
    return Refused(int(failure.code), failure.errno, failure.message, failure.detail)


def check_regular(inode: Inode) -> None:
    """Raises EISDIR, or EINVAL for what else is no regular file."""
    if stat.S_ISREG(inode.mode):
        return
    number = errno.EISDIR if stat.S_ISDIR(inode.mode) else errno.EINVAL
    raise refusal(number, f"inode {inode.number}")
