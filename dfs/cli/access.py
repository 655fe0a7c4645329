"""The user that the command line acts for, and what that user may read and search.

The master enforces permissions on every change. Reads it answers to whoever holds the cluster's
key; a mount leaves their checks to the kernel, and the command line makes them here, so that
`dfs cat` shows a user what `cat` would.
"""

from __future__ import annotations

import errno
import os

from dfs.cli import output
from dfs.errors import os_failure
from dfs.messages.common import Attributes, Credentials
from dfs.permissions import may


def acting_user() -> Credentials:
    """The user this process runs as."""
    return Credentials(os.getuid(), os.getgid(), tuple(os.getgroups()))


def current_umask() -> int:
    """The umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def require(attributes: Attributes, caller: Credentials, want: int, path: bytes) -> None:
    """Raise Failure EACCES naming the path unless the caller has the permissions."""
    if not may(attributes, caller, want):
        raise os_failure(errno.EACCES, output.quoted(path))
