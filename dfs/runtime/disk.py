"""The disk seam: the few operations a durable store needs.

Every call here blocks; production code runs whatever may wait for the disk through
`Env.run_blocking`. Errors are `OSError` with the errno of the system call. Durability: nothing
survives power loss before `File.datasync` (contents), `Disk.sync_directory` (names) or
`KeyValue.write` returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dfs.runtime.network import Buffer


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """What `statvfs` says of a file system, in bytes."""

    total_bytes: int
    free_bytes: int


class File(Protocol):
    """One open file."""

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        """Read until the buffer is full or the file ends; bytes read."""
        ...

    def pread_cached(self, buffer: memoryview, offset: int) -> int | None:
        """Like `pread_into`, but None when it would have to wait for the disk."""
        ...

    def pwrite(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all the buffers one after the other from `offset` on; holes read as zeros."""
        ...

    def datasync(self) -> None:
        """Make contents and length durable."""
        ...

    def truncate(self, length_bytes: int) -> None: ...

    def punch(self, offset: int, length_bytes: int) -> None:
        """Free that range; it reads as zeros; the length stays."""
        ...

    def forget(self, offset: int, length_bytes: int) -> None:
        """Drop the range from the page cache, as far as it is synced: a hint, never an error.

        The next read then sees what is on the disk.
        """
        ...

    def size(self) -> int: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class WriteBatch:
    """Changes to a key-value store: table -> key -> new value, or None to delete the key."""

    tables: dict[str, dict[bytes, bytes | None]] = field(default_factory=dict)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.tables.setdefault(table, {})[key] = value

    def delete(self, table: str, key: bytes) -> None:
        self.tables.setdefault(table, {})[key] = None


class KeyValue(Protocol):
    """An ordered key-value store of a few tables, with one atomic and durable write operation.

    Reads see the last completed `write`, from the thread of the event loop. One `write`, `copy_to`
    or `replace_with` runs at a time, in any one thread.
    """

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < end in key order. Do not write or await while it is open."""
        ...

    def write(self, batch: WriteBatch) -> None:
        """Apply the batch as one transaction; durable when it returns."""
        ...

    def copy_to(self, path: str) -> None:
        """Write a consistent, compact, synced copy to a new file; runs beside reads and writes."""
        ...

    def replace_with(self, path: str) -> None:
        """Atomically become the store in that file (made by `copy_to`), which is consumed."""
        ...

    def used_bytes(self) -> int: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """Files by path."""

    def boot(self) -> int:
        """A number above 0 for this run of the machine.

        What was written under another one and not synced may be lost: the page cache was.
        """
        ...

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        """Open a file; `create` makes it when missing (with `write`). Raises OSError."""
        ...

    def read_file(self, path: str) -> bytes: ...

    def write_file(self, path: str, data: bytes) -> None:
        """Replace the whole file atomically and durably (temporary file, sync, rename, sync)."""
        ...

    def rename(self, old: str, new: str) -> None: ...

    def unlink(self, path: str) -> None: ...

    def make_directory(self, path: str) -> None:
        """With its parents; no error when it is there already."""
        ...

    def list_directory(self, path: str) -> list[str]:
        """Names, sorted."""
        ...

    def exists(self, path: str) -> bool: ...

    def sync_directory(self, path: str) -> None: ...

    def space(self, path: str) -> DiskSpace: ...

    def lock(self, path: str) -> None:
        """Hold this lock file for the life of the process; OSError EAGAIN when another has it."""
        ...

    def open_key_value(self, path: str, tables: Sequence[str], map_size_bytes: int) -> KeyValue:
        """Open or create the store in one file. Raises `dfs.errors.Failure` DISK when damaged.

        That finds what would keep it from being opened; `verify_key_value` finds the rest.
        """
        ...

    def verify_key_value(self, path: str) -> None:
        """Read the whole structure of a store that nobody has open. Raises Failure DISK."""
        ...
