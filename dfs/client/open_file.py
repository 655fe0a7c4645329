"""One open handle of a file. What it shares with the inode's other handles is `FileState`.

Owns what is the handle's own: how far it has reported write errors (the rules are those of
`dfs.client.write_errors`), and where its reader is.
"""

from __future__ import annotations

import errno

from dfs.client.file_state import FileState
from dfs.client.read_ahead import ReadAhead
from dfs.client.write_errors import ErrorCursor
from dfs.errors import os_failure
from dfs.messages.common import Attributes, Credentials
from dfs.runtime.network import Buffer


class OpenFile:
    """An open file. Errors of every method: Failure, its errno fit for the application.

    `attributes` are those at open; `unchanged` tells that the file's data is the same as when
    this client last knew it, so that pages kept from then are good.
    """

    def __init__(
        self,
        state: FileState,
        attributes: Attributes,
        caller: Credentials,
        *,
        unchanged: bool,
        write: bool,
    ) -> None:
        self.attributes = attributes
        self.unchanged = unchanged
        self._state = state
        self._caller = caller
        self._write = write
        self._errors = ErrorCursor(state.errors)
        self._read_ahead = ReadAhead(state.limits)
        self._closed = False

    @property
    def inode(self) -> int:
        return self._state.inode

    async def read(self, offset: int, length_bytes: int) -> bytes | memoryview:
        """Bytes from `offset` on, fewer than asked only where the file ends.

        Sees every write that returned on any handle of this client. A memoryview answered may
        be of a cached buffer: it is not to be written to.
        """
        self._must_be_usable()
        return await self._state.read(self._read_ahead, offset, length_bytes)

    async def write(self, offset: int, data: Buffer) -> None:
        """Take the data; it goes out behind the caller's back. Waits while buffers are full.

        Raises an earlier write's error, once; the data is then not taken. EBADF when the handle
        was opened for reading only.
        """
        self._must_be_usable()
        if not self._write:
            raise os_failure(errno.EBADF, f"inode {self.inode} is open for reading only")
        self._errors.before_write()
        await self._state.write(offset, data, self._caller)

    async def flush(self) -> None:
        """Return when all data is on all replicas and the size committed at the master."""
        self._must_be_usable()
        await self._state.flush()
        if self._write:
            self._errors.after_flush()

    async def sync(self) -> None:
        """As `flush`, and durable on every replica and at a majority of the masters.

        Covers all of the file that this client knows of, whoever wrote it, and reports errors
        also through a handle opened for reading only.
        """
        self._must_be_usable()
        await self._state.sync()
        self._errors.after_sync()

    async def close(self) -> None:
        """Flush, then let go of the handle, also when the flush fails or is cancelled."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._write and self._state.lost is None:
                await self._state.flush()
            if self._write:
                self._errors.at_close()
        finally:
            self._state.release()

    def _must_be_usable(self) -> None:
        if self._closed:
            raise os_failure(errno.EBADF, f"inode {self.inode}: the handle is closed")
        self._state.must_not_be_lost()
