"""The key-value store in memory: sorted dictionaries that survive crashes.

`write` is atomic and durable at one instant, `Media.sync`, where crashes can be aimed.

A copy made by `copy_to` is an ordinary file, so that it can be sent elsewhere and can be damaged:
magic `DFSSIMKV`, version (1 byte), xxh3_64 of the rest (8 bytes, big-endian), msgpack of
{table: [[key, value], ...]}.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgpack
import xxhash
from sortedcontainers import SortedDict

from dfs.errors import Code, Failure
from dfs.runtime.disk import WriteBatch
from dfs.runtime.sim.env import SimEnv

if TYPE_CHECKING:
    from dfs.runtime.sim.disk import Media

KEY_MAX_BYTES = 511  # LMDB's
_MAGIC = b"DFSSIMKV\x01"
_PER_PAIR_BYTES = 16  # about what LMDB takes per pair beside key and value


class Store:
    """What is on the disk."""

    def __init__(self) -> None:
        self.damaged = False
        self.generation = 0  # counts writes, to catch a scan that one interrupts
        self.tables: dict[str, SortedDict[bytes, bytes]] = {}
        self._bytes = 0

    def used_bytes(self) -> int:
        return self._bytes

    def make_tables(self, names: Sequence[str]) -> None:
        for name in names:
            self.tables.setdefault(name, SortedDict())

    def apply(self, batch: WriteBatch) -> None:
        self.generation += 1
        for name, changes in batch.tables.items():
            table = self.tables[name]
            for key, value in changes.items():
                old = table.pop(key, None)
                if old is not None:
                    self._bytes -= _PER_PAIR_BYTES + len(key) + len(old)
                if value is not None:
                    table[key] = bytes(value)
                    self._bytes += _PER_PAIR_BYTES + len(key) + len(value)

    def become(self, other: Store) -> None:
        self.generation += 1
        self.tables = other.tables
        self._bytes = other._bytes

    def to_bytes(self) -> bytes:
        content = {name: list(table.items()) for name, table in self.tables.items()}
        body: bytes = msgpack.packb(content)
        return _MAGIC + xxhash.xxh3_64_digest(body) + body

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> Store:
        """Raises Failure(DISK)."""
        start = len(_MAGIC) + 8
        if data[: len(_MAGIC)] != _MAGIC:
            raise Failure(Code.DISK, f"{path} is not a store of this program")
        if xxhash.xxh3_64_digest(data[start:]) != data[len(_MAGIC) : start]:
            raise Failure(Code.DISK, f"the store {path} is truncated or damaged")
        made = cls()
        for name, pairs in msgpack.unpackb(data[start:]).items():
            made.tables[name] = SortedDict()
            made.apply(WriteBatch({name: dict(pairs)}))
        return made


class SimKeyValue:
    """One incarnation's open store."""

    def __init__(
        self, media: Media, env: SimEnv, path: str, store: Store, map_size_bytes: int
    ) -> None:
        self._media = media
        self._env = env
        self._path = path
        self._store = store
        self._map_size_bytes = map_size_bytes
        self._open = True

    def get(self, table: str, key: bytes) -> bytes | None:
        self._check("read")
        if not key:
            raise ValueError(f"{self._path}: keys are 1 to {KEY_MAX_BYTES} bytes")
        value: bytes | None = self._store.tables[table].get(key)
        return value

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        self._check("read")
        pairs = self._store.tables[table]
        generation = self._store.generation
        for key in pairs.irange(start, end, inclusive=(True, False)):
            yield key, pairs[key]
            if self._store.generation != generation:
                raise RuntimeError(f"{self._path}: table {table!r} was written while scanned")

    def write(self, batch: WriteBatch) -> None:
        self._check("write")
        self._check_batch(batch)
        self._media.count(self._env, f"write of {self._path}")
        self._media.sync(self._env, self._path, lambda: self._store.apply(batch))

    def _check_batch(self, batch: WriteBatch) -> None:
        wanted_bytes = 0
        for name, changes in batch.tables.items():
            if name not in self._store.tables:
                raise KeyError(name)
            for key, value in changes.items():
                if not 1 <= len(key) <= KEY_MAX_BYTES:
                    raise ValueError(f"{self._path}: keys are 1 to {KEY_MAX_BYTES} bytes")
                wanted_bytes += len(key) + len(value or b"")
        self._media.reserve(self._path, wanted_bytes)
        if self._store.used_bytes() + wanted_bytes > self._map_size_bytes:
            raise OSError(errno.ENOSPC, f"the store {self._path} has reached its map size")

    def copy_to(self, path: str) -> None:
        self._check("read")
        if self._env.disk.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        file = self._env.disk.open(path, write=True, create=True)
        file.pwrite([self._store.to_bytes()], 0)
        file.datasync()
        file.close()
        self._env.disk.sync_directory(posixpath.dirname(path))

    def replace_with(self, path: str) -> None:
        self._check("write")
        copy = self._media.inode(posixpath.normpath(posixpath.join("/", path))).store
        other = copy or Store.from_bytes(self._env.disk.read_file(path), path)
        other.make_tables(list(self._store.tables))

        def become() -> None:
            self._store.become(other)
            self._media.unlink(posixpath.normpath(posixpath.join("/", path)))
            self._media.sync_names(posixpath.dirname(self._path))

        self._media.count(self._env, f"exchange of {self._path}")
        self._media.sync(self._env, self._path, become)

    def used_bytes(self) -> int:
        self._check("stat")
        return self._store.used_bytes()

    def close(self) -> None:
        self._open = False

    def _check(self, operation: str) -> None:
        self._env.check_alive()
        if not self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._path)
        self._media.check(self._path, operation)
