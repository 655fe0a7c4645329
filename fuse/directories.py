"""Reading directories, however large, in pieces of what the kernel asks.

The kernel asks with an offset, which is the cookie of the last entry it took (0: from the start),
and a buffer. Each request fetches from the master just about as many entries as fit, so a listing
of n entries costs n, seekdir and telldir work, and rewinddir sees what has changed.

Nothing is kept from one request to the next, on purpose: the answer carries attributes, and the
kernel takes an answer's attributes as current at the time of its *request*. Entries fetched earlier
could give a file that was written meanwhile its old size, and the kernel would cut its pages off.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyfuse3

from dfs.messages.metadata import DirectoryEntry
from fuse.backend import Backend
from fuse.entries import entry_of

# Entries fetched for the first request of an open directory: as many as fit the 32 KiB in which
# glibc asks (152 bytes each, and the name). How many really fit is seen then: older kernels take
# no more than a page, newer ones up to 1 MiB, and pyfuse3 does not tell.
FIRST_LIMIT = 192
MAX_LIMIT = 2048
SPARE = 8  # fetched beyond what fitted last time, since names differ in length


class Directory:
    """An open directory. Requests of one open directory come one at a time."""

    def __init__(self, backend: Backend, inode: int) -> None:
        self._backend = backend
        self._inode = inode
        self._limit = FIRST_LIMIT
        self._end: int | None = None  # the cookie after which nothing followed just now

    async def read(self, after_cookie: int, token: pyfuse3.ReaddirToken) -> None:
        """Answer one request for entries after a cookie."""
        ended, self._end = self._end, None
        if after_cookie and after_cookie == ended:
            return  # saves the request that would only confirm the end
        page = await self._backend.read_directory(self._inode, after_cookie, self._limit)
        taken = _reply(token, page.entries)
        if taken < len(page.entries):
            self._limit = taken + SPARE
        elif not page.complete:
            self._limit = min(2 * self._limit, MAX_LIMIT)
        elif page.entries:
            self._end = page.entries[-1].cookie


def _reply(token: pyfuse3.ReaddirToken, entries: Sequence[DirectoryEntry]) -> int:
    """Hand the kernel entries until its buffer is full; how many it took."""
    for taken, entry in enumerate(entries):
        name = pyfuse3.FileNameT(entry.name)
        if not pyfuse3.readdir_reply(token, name, entry_of(entry.attributes), entry.cookie):
            return taken
    return len(entries)
