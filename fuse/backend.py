"""What a mount asks of the client library, as protocols.

`dfs.client.Client` and `dfs.client.OpenFile` satisfy them; so does a file system in memory, with
which the handlers are tested without a cluster. Every method may raise `dfs.errors.Failure`.
"""

from __future__ import annotations

from typing import Protocol

from dfs.messages.common import Attributes, Credentials
from dfs.messages.metadata import Answer, DirectoryPage, FsInfo
from dfs.messages.operations import Create, Operation, SetAttributes
from dfs.runtime import Buffer


class BackendFile(Protocol):
    """One open handle. All handles of one inode see each other's unflushed data."""

    @property
    def inode(self) -> int: ...

    @property
    def attributes(self) -> Attributes:
        """As they were when it was opened, unflushed data of this client included."""
        ...

    @property
    def unchanged(self) -> bool:
        """Whether the contents are those this client last knew: cached pages may be kept."""
        ...

    async def read(self, offset: int, length_bytes: int) -> bytes | memoryview:
        """Short only at the end of the file."""
        ...

    async def write(self, offset: int, data: Buffer) -> None: ...

    async def flush(self) -> None:
        """All data on all replicas, the size known to the master."""
        ...

    async def sync(self) -> None:
        """Flush, and durable everywhere."""
        ...

    async def close(self) -> None:
        """Flush and drop the handle, which is gone even when the flush fails."""
        ...


class Backend(Protocol):
    """A file system by inode numbers."""

    async def lookup(self, parent: int, name: bytes) -> Attributes: ...

    async def attributes(self, inode: int) -> Attributes:
        """As they are now, unflushed data of this client included."""
        ...

    async def read_directory(self, inode: int, after_cookie: int, limit: int) -> DirectoryPage:
        """Entries with their attributes as they are now, unflushed data included."""
        ...

    async def read_link(self, inode: int) -> bytes: ...

    async def get_xattr(self, inode: int, name: bytes, caller: Credentials) -> bytes: ...

    async def list_xattrs(self, inode: int, caller: Credentials) -> tuple[bytes, ...]: ...

    async def stat_fs(self) -> FsInfo: ...

    async def perform(self, operation: Operation) -> Answer: ...

    async def set_attributes(self, operation: SetAttributes) -> Attributes: ...

    async def open_file(self, inode: int, caller: Credentials, *, write: bool) -> BackendFile: ...

    async def create_file(self, operation: Create) -> BackendFile: ...

    def is_open(self, inode: int) -> bool: ...

    async def sync_all(self) -> None:
        """All that was written through this client, durable everywhere."""
        ...
