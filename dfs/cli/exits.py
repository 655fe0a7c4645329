"""The exit codes of `dfs`, all of them.

0    done
1    it failed, one line on standard error says why; or, of a command that checks, all is not well
2    the command line or a configuration file is wrong, or asks for what cannot be (an id that is
     not there, a server that still holds data); nothing was done
3    the cluster, or the part of it that was needed, could not be reached
4    partly done: some of several files or steps failed, a line for each
5    `dfs fsck`: everything is readable, but copies lack, or something lies about that is not wanted
6    `dfs fsck`: the metadata contradict themselves
7    `dfs fsck`: something cannot be read: copies are missing, damaged, or out of reach
130  interrupted with Ctrl-C
141  the reader of standard output went away (as in `dfs ls | head`)
"""

from __future__ import annotations

import enum

from dfs.errors import Code, Failure


class Exit(enum.IntEnum):
    OK = 0
    FAILURE = 1
    USAGE = 2
    UNREACHABLE = 3
    PARTIAL = 4
    DEGRADED = 5
    INCONSISTENT = 6
    UNREADABLE = 7
    INTERRUPTED = 130
    PIPE = 141


_OF_CODE = {
    Code.CONFIG: Exit.USAGE,
    Code.NOT_LEADER: Exit.UNREACHABLE,
    Code.UNAVAILABLE: Exit.UNREACHABLE,
    Code.CONNECTION_LOST: Exit.UNREACHABLE,
    Code.TIMEOUT: Exit.UNREACHABLE,
    Code.UNAUTHENTICATED: Exit.UNREACHABLE,
}


def exit_for(failure: Failure) -> Exit:
    """The exit code of a command that ended with this failure."""
    return _OF_CODE.get(failure.code, Exit.FAILURE)
