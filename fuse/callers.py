"""On whose behalf an operation runs.

The kernel tells a request's user and group, not the supplementary groups: those cost a look into
/proc. The kernel has checked permissions already (`default_permissions`), and the master checks
again what it must; so the groups are fetched where they change the outcome, and otherwise only
when the master refused without them.
"""

from __future__ import annotations

import errno
import stat

import pyfuse3

from dfs.errors import Code, Failure
from dfs.messages.common import Credentials


def caller_of(ctx: pyfuse3.RequestContext) -> Credentials:
    """The caller without its supplementary groups."""
    return Credentials(ctx.uid, ctx.gid)


def full_caller_of(ctx: pyfuse3.RequestContext) -> Credentials:
    """The caller with its supplementary groups; without, when the process cannot be asked."""
    try:
        groups = pyfuse3.get_sup_groups(ctx.pid)
    except (FileNotFoundError, ProcessLookupError):
        # Gone already, or (pid 0) in a pid namespace that this process does not see.
        return caller_of(ctx)
    return Credentials(ctx.uid, ctx.gid, tuple(sorted(groups)))


def needs_groups(ctx: pyfuse3.RequestContext, mode: int | None, gid: int | None) -> bool:
    """Whether the groups change what the operation does, beyond permitting it.

    A new group must be one of the caller's; the setgid bit survives only for a group of theirs.
    """
    return ctx.uid != 0 and (gid is not None or bool((mode or 0) & stat.S_ISGID))


def is_refusal(failure: Failure) -> bool:
    """Whether the master found the caller not permitted."""
    return failure.code is Code.ERRNO and failure.errno in (errno.EACCES, errno.EPERM)


def groups_may_help(ctx: pyfuse3.RequestContext, caller: Credentials, failure: Failure) -> bool:
    """Whether this refusal may have been for want of the groups."""
    return is_refusal(failure) and ctx.uid != 0 and not caller.groups
