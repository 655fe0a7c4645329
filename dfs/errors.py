"""The errors that travel: between functions, over RPC and up to the user.

An error is a code (what a program acts on), an errno (what an application behind the mount sees)
and a sentence (what a person reads). `Failure` is the one exception class for all of them, so
that a remote error and a local one are handled by the same `except`. Programming errors are not
here: they stay ordinary Python exceptions and end the task or the process that made them.
"""

from __future__ import annotations

import enum
import errno as errnos
import os


class Code(enum.IntEnum):
    """What went wrong, for programs. Wire values: never renumber, only add."""

    ERRNO = 1  # a file system error: the errno says it all (ENOENT, EEXIST, ...)
    NOT_LEADER = 2  # ask another master; `detail` is the leader's address or ""
    OUTCOME_UNKNOWN = 3  # may or may not have been applied: retry under the same sequence number
    UNAVAILABLE = 4  # the peer is alive but cannot serve this now; retry
    CONNECTION_LOST = 5  # the connection ended before an answer came
    TIMEOUT = 6  # no answer within the deadline
    OVERLOADED = 7  # a bound (C9) was reached; retry with backoff
    BAD_MESSAGE = 8  # the peer sent what this side cannot accept
    UNAUTHENTICATED = 9  # the peer could not prove the cluster key
    NO_SESSION = 10  # the session is not known, or has expired
    STALE_VERSION = 11  # the chunk's version or generation is not the replica's: refetch the map
    NO_REPLICA = 12  # this server has no replica of the chunk
    CORRUPT = 13  # a checksum did not match
    CHAIN_BROKEN = 14  # a later link of the write chain failed; `detail` is its address
    DISK = 15  # the disk under a replica refused; the errno says why (EIO, ENOSPC, EROFS)
    CONFIG = 16  # a configuration file or argument is wrong


RETRYABLE = frozenset(
    {
        Code.NOT_LEADER,
        Code.OUTCOME_UNKNOWN,
        Code.UNAVAILABLE,
        Code.CONNECTION_LOST,
        Code.TIMEOUT,
        Code.OVERLOADED,
    }
)

_DEFAULT_ERRNO = {
    Code.TIMEOUT: errnos.ETIMEDOUT,
    Code.BAD_MESSAGE: errnos.EPROTO,
    Code.UNAUTHENTICATED: errnos.EACCES,
    Code.NO_SESSION: errnos.ESTALE,
    Code.CONFIG: errnos.EINVAL,
}


class Failure(Exception):
    """Any error that this system reports.

    `code` is what programs act on, `errno` what an application sees (EIO unless told otherwise),
    `message` one sentence naming the path, chunk or node concerned, `detail` a machine-readable
    extra whose meaning the code gives.
    """

    def __init__(self, code: Code, message: str, *, errno: int = 0, detail: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.errno = errno or _DEFAULT_ERRNO.get(code, errnos.EIO)
        self.detail = detail

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, without anything else being done."""
        return self.code in RETRYABLE

    def __repr__(self) -> str:
        return f"Failure({self.code.name}, {self.errno}, {self.message!r}, {self.detail!r})"


def os_failure(errno: int, about: str = "") -> Failure:
    """A file system error: `os_failure(ENOENT, "name b'x' in inode 7")`."""
    text = os.strerror(errno)
    return Failure(Code.ERRNO, f"{about}: {text}" if about else text, errno=errno)


def first_failure(group: BaseExceptionGroup[Failure]) -> Failure:
    """The first of the failures that concurrent tasks raised together."""
    inner = group.exceptions[0]
    return first_failure(inner) if isinstance(inner, BaseExceptionGroup) else inner
