"""The key-value store over LMDB: one data file (and LMDB's `-lock` beside it), one named database
per table.

Reads share one read transaction, which the first read after a write renews, so that a read costs
a B-tree descent and nothing else. `write` opens and commits its whole transaction in the thread
that calls it; reads in the event loop go on meanwhile on the older state.

Damage. LMDB trusts its file, which has no checksums: a truncated one would end the process by
SIGBUS at some later read, a bad page by an assertion. So before opening, the meta pages are parsed
here and compared with the file's size. LMDB itself leaves a file shorter than its meta page says
when the pages at the end were allocated and freed in one transaction; a short file is therefore
walked by LMDB's offline verifier, which tells the two apart. `verify_file` has it walk any file.
Keys are 1 to 511 bytes, LMDB's own limits; the simulated store has the same.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import lmdb
import lmdb.verify

from dfs.errors import Code, Failure
from dfs.runtime.disk import WriteBatch

LOCK_SUFFIX = "-lock"  # LMDB's own name for its reader table
_MAGIC = 0xBEEFC0DE
_PAGE_HEADER_BYTES = 16  # of LMDB 0.9 files; 1.0 has 24
_META = struct.Struct("=IIQQ48s48sQQ")  # magic, version, address, map size, dbs, last page, txn
_PAGE_SIZE = struct.Struct("=I")  # the free database's md_pad holds the page size
_FILE_MODE = 0o600
_FULL_BELOW_BYTES = 1 << 20  # what a full disk may still have left


class RealKeyValue:
    """One open LMDB environment."""

    def __init__(
        self, path: str, tables: Sequence[str], map_size_bytes: int, settle: Callable[[], None]
    ) -> None:
        self._path = path
        self._names = tuple(tables)
        self._map_size_bytes = map_size_bytes
        self._settle = settle
        self._guard = threading.Lock()  # between reads in the loop and `replace_with` in a thread
        self._renew = True
        self._reader: lmdb.Transaction[bytes] | None = None
        self._open()

    def _open(self) -> None:
        fresh = not os.path.exists(self._path)
        if not fresh:
            check_file(self._path)
        try:
            self._environment = lmdb.open(
                self._path,
                map_size=self._map_size_bytes,
                subdir=False,
                max_dbs=len(self._names),
                mode=_FILE_MODE,
                max_spare_txns=1,
            )
            self._tables = {n: self._environment.open_db(n.encode()) for n in self._names}
        except lmdb.Error as error:
            _raise(error, self._path)
        if fresh:
            _sync_directory_of(self._path)

    def get(self, table: str, key: bytes) -> bytes | None:
        with self._guard:
            reader = self._reader
            if self._renew or reader is None:
                reader = self._renewed()
            try:
                return reader.get(key, db=self._tables[table])
            except lmdb.Error as error:
                _raise(error, self._path)

    def _renewed(self) -> lmdb.Transaction[bytes]:
        """The read transaction on the newest state. Called with the guard held."""
        self._renew = False  # first: a write that ends from here on sets it again
        if self._reader is not None:
            self._reader.abort()
            self._reader = None
        try:
            self._reader = self._environment.begin()
        except lmdb.Error as error:
            _raise(error, self._path)
        return self._reader

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        with self._guard:
            reader = self._reader
            if self._renew or reader is None:
                reader = self._renewed()
            cursor = reader.cursor(db=self._tables[table])
        try:
            if not (cursor.set_range(start) if start else cursor.first()):
                return
            for key, value in cursor:
                if end is not None and key >= end:
                    return
                yield key, value
                if self._reader is not reader:
                    raise RuntimeError(f"{self._path}: table {table!r} was written while scanned")
        except lmdb.Error as error:
            _raise(error, self._path)
        finally:
            cursor.close()

    def write(self, batch: WriteBatch) -> None:
        self._settle()
        try:
            with self._environment.begin(write=True) as transaction:
                for table, changes in batch.tables.items():
                    self._apply(transaction, table, changes)
        except lmdb.Error as error:
            _raise(error, self._path)
        self._renew = True

    def _apply(
        self,
        transaction: lmdb.Transaction[bytes],
        table: str,
        changes: dict[bytes, bytes | None],
    ) -> None:
        handle = self._tables[table]
        for key in sorted(changes):  # neighbours in the tree are neighbours in time
            value = changes[key]
            if value is None:
                transaction.delete(key, db=handle)
            else:
                transaction.put(key, value, db=handle)

    def copy_to(self, path: str) -> None:
        if os.path.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        try:
            self._environment.copy(path, compact=True)
        except lmdb.Error as error:
            _raise(error, path)
        self._settle()
        _sync_file(path)
        _sync_directory_of(path)

    def replace_with(self, path: str) -> None:
        check_file(path)
        self._settle()
        _sync_file(path)
        with self._guard:
            os.rename(path, self._path)  # the open environment keeps the old file meanwhile
            _sync_directory_of(self._path)
            self._close()
            # The reader table of the old file says nothing about the new one.
            if os.path.exists(self._path + LOCK_SUFFIX):
                os.unlink(self._path + LOCK_SUFFIX)
            self._open()
            self._renew = True

    def used_bytes(self) -> int:
        """Bytes of pages in use or free for reuse: what the file has grown to."""
        try:
            page_bytes = self._environment.stat()["psize"]
            return (self._environment.info()["last_pgno"] + 1) * page_bytes
        except lmdb.Error as error:
            _raise(error, self._path)

    def close(self) -> None:
        with self._guard:
            self._close()

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.abort()
            self._reader = None
        self._environment.close()


@dataclass(frozen=True, slots=True)
class _MetaPage:
    last_page: int
    transaction: int
    page_bytes: int


def check_file(path: str) -> None:
    """See that LMDB can open the file and read it without running off its end.

    An empty file counts as a new store. Raises Failure(DISK), or OSError when it cannot be read.
    """
    with open(path, "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes == 0:
            return
        first = _read_meta(file.read(_PAGE_HEADER_BYTES + _META.size), path)
        file.seek(first.page_bytes)
        second = _read_meta(file.read(_PAGE_HEADER_BYTES + _META.size), path)
    newest = max(first, second, key=lambda meta: meta.transaction)
    if (newest.last_page + 1) * newest.page_bytes > size_bytes:
        _verify(path, size_bytes)


def _read_meta(page: bytes, path: str) -> _MetaPage:
    if len(page) < _PAGE_HEADER_BYTES + _META.size:
        raise Failure(Code.DISK, f"the store {path} is truncated within its meta pages")
    magic, _, _, _, free, _, last_page, transaction = _META.unpack_from(page, _PAGE_HEADER_BYTES)
    (page_bytes,) = _PAGE_SIZE.unpack_from(free, 0)
    if magic != _MAGIC or not 256 <= page_bytes <= 1 << 16:
        raise Failure(Code.DISK, f"{path} is not a store of this program, or its head is damaged")
    return _MetaPage(last_page, transaction, page_bytes)


def verify_file(path: str) -> None:
    """Walk every page of a file that nobody has open, about 50 MB/s. Raises Failure(DISK), OSError.

    LMDB keeps no checksums, and ends the process by an assertion when it meets a page that is not
    what it should be; so a file that may be damaged is walked before it is opened.
    """
    check_file(path)
    size_bytes = os.path.getsize(path)
    if size_bytes:
        _verify(path, size_bytes)


def _verify(path: str, size_bytes: int) -> None:
    try:
        problems = lmdb.verify.verify(path, subdir=False)  # type: ignore[no-untyped-call]
    except lmdb.verify.VerifyError as error:
        problems = [str(error)]
    if problems:
        raise Failure(
            Code.DISK,
            f"the store {path} of {size_bytes} bytes is truncated or damaged: {problems[0]}",
        )


def _is_full(path: str) -> bool:
    status = os.statvfs(os.path.dirname(path) or ".")
    return status.f_bavail * status.f_frsize < _FULL_BELOW_BYTES


def _sync_file(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fchmod(fd, _FILE_MODE)
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_directory_of(path: str) -> None:
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _raise(error: lmdb.Error, path: str) -> NoReturn:
    """What LMDB reports, in this system's terms: OSError for the system's, Failure for damage."""
    if isinstance(error, lmdb.BadValsizeError):
        raise ValueError(f"{path}: keys are 1 to 511 bytes") from error
    if isinstance(error, lmdb.MapFullError):
        raise OSError(errno.ENOSPC, f"the store {path} has reached its map size") from error
    if error.code == 0:  # not LMDB's but the binding's own: used after `close`
        raise OSError(errno.EBADF, "the store is closed", path) from error
    if error.code == errno.EIO and _is_full(path):
        # LMDB takes the short write that a disk answers when it becomes full for an I/O error.
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for the store", path) from error
    if error.code > 0:
        raise OSError(error.code, f"{os.strerror(error.code)} in the store", path) from error
    raise Failure(Code.DISK, f"the store {path} is damaged: {error}") from error
