"""What belongs to an inode beside names: extended attributes, symlink targets, chunks, trims.

Each part takes the inode (None where there is none) and its records of one table, and compares the
records with the inode's own counts and with the tables that hold the inverse.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dfs.layout import CHUNK_BYTES
from master import tables as names
from master.check import findings
from master.check.findings import Event, Found, Kind, Unreadable, decoded
from master.commands import AdjustInode, MendRecords
from master.state import chunkmap, records
from master.state.records import Chunk, Inode, key, key2, key_number
from master.tables import Tables

Record = tuple[bytes, bytes]


def check_xattrs(number: int, inode: Inode | None, rows: Iterator[Record]) -> Iterator[Event]:
    """Attributes belong to an inode, which knows how many bytes they are."""
    names_bytes, values_bytes = 0, 0
    for name, value in rows:
        yield 1
        if inode is None:
            text = f"attribute {name!r} belongs to inode {number}, which is not there"
            yield _stray(Kind.STRAY_XATTR, text, number, names.XATTRS, key(number) + name, value)
            continue
        try:
            values_bytes += len(decoded(records.decode_blob, value))
        except Unreadable as why:
            yield findings.unreadable(names.XATTRS, key(number) + name, why, number)
        names_bytes += len(name) + 1
    if inode is None:
        return
    lack = (names_bytes - inode.xattr_names_bytes, values_bytes - inode.xattr_values_bytes)
    if lack != (0, 0):
        text = f"the attributes of inode {number} have {names_bytes} and {values_bytes} bytes"
        mend = AdjustInode(number, xattr_names_bytes=lack[0], xattr_values_bytes=lack[1])
        yield Found(Kind.XATTR_SIZES, text, inode=number, mend=mend)


def check_target(number: int, inode: Inode | None, rows: Iterator[Record]) -> Iterator[Event]:
    """Exactly the symlinks have a target, as long as their size."""
    is_link = inode is not None and stat.S_ISLNK(inode.mode)
    found = 0
    for rest, value in rows:
        yield 1
        found += 1
        if inode is None or not is_link:
            text = f"a symlink's target belongs to inode {number}, which is no symlink"
            place = key(number) + rest
            yield _stray(Kind.STRAY_TARGET, text, number, names.SYMLINKS, place, value)
            continue
        try:
            length = len(decoded(records.decode_blob, value))
        except Unreadable as why:
            yield findings.unreadable(names.SYMLINKS, key(number), why, number)
            continue
        if length != inode.size_bytes:
            text = f"symlink {number} has {inode.size_bytes} bytes, its target {length}"
            mend = AdjustInode(number, size_bytes=length - inode.size_bytes)
            yield Found(Kind.TARGET_SIZE, text, inode=number, mend=mend)
    if is_link and not found:
        yield Found(Kind.NO_TARGET, f"symlink {number} has no target", inode=number)


def _stray(kind: Kind, text: str, inode: int, table: str, key_bytes: bytes, value: bytes) -> Found:
    """A record that belongs to nobody: kept in the report, then dropped."""
    change = findings.drop(table, key_bytes, value)
    return Found(kind, text, inode=inode, mend=MendRecords((change,)), saved=findings.saved(change))


@dataclass(slots=True)
class Chunks:
    """The check of all chunk records, fed file by file. `next_handle` is the state's."""

    tables: Tables
    next_handle: int
    count: int = 0
    top_handle: int = 0
    sets: Counter[bytes] = field(default_factory=Counter)

    def check(self, number: int, inode: Inode | None, rows: Iterator[Record]) -> Iterator[Event]:
        """The chunks of one file."""
        found = 0
        for index_key, value in rows:
            yield 1
            found += 1
            index = key_number(index_key)
            try:
                chunk = decoded(Chunk.decode, value)
            except Unreadable as why:
                yield findings.unreadable(names.CHUNKS, key2(number, index), why, number)
                continue
            self._note(chunk)
            if inode is None:
                text = f"chunk {chunk.handle:x} is chunk {index} of inode {number}: not there"
                yield Found(Kind.STRAY_CHUNK, text, inode=number, handle=chunk.handle)
                continue
            yield from self._check(inode, index, chunk)
        self.count += found
        if inode is not None and inode.chunks != found:
            text = f"inode {number} has {found} chunks, its record says {inode.chunks}"
            mend = AdjustInode(number, chunks=found - inode.chunks)
            yield Found(Kind.CHUNK_COUNT, text, inode=number, mend=mend)

    def count_only(self, rows: Iterator[Record]) -> Iterator[Event]:
        """Chunks of an inode that cannot be read."""
        for _, value in rows:
            yield 1
            self.count += 1
            try:
                self._note(decoded(Chunk.decode, value))
            except Unreadable:
                continue  # the inode itself is told of

    def _note(self, chunk: Chunk) -> None:
        self.top_handle = max(self.top_handle, chunk.handle)
        self.sets[records.replica_set_key(chunk.wanted, chunk.servers)] += 1

    def _check(self, inode: Inode, index: int, chunk: Chunk) -> Iterator[Found]:
        about = f"chunk {chunk.handle:x} (chunk {index} of inode {inode.number})"
        problem = _impossible(inode, index, chunk)
        if problem:
            yield _of_chunk(Kind.BAD_CHUNK, f"{about} {problem}", inode, index, chunk)
        yield from self._check_handle(about, inode, index, chunk)
        for server in chunk.servers:
            noted = self.tables.get(names.DELETIONS, key2(server, chunk.handle))
            if noted is not None:
                text = f"{about}: chunkserver {server} is to delete its replica"
                change = findings.drop(names.DELETIONS, key2(server, chunk.handle), noted)
                mend = MendRecords((change,))
                yield _of_chunk(Kind.DOOMED_REPLICA, text, inode, index, chunk, mend, server)

    def _check_handle(self, about: str, inode: Inode, index: int, chunk: Chunk) -> Iterator[Found]:
        due = records.encode_handle(inode.number, index)
        stored = self.tables.get(names.HANDLES, key(chunk.handle))
        if stored == due:
            return
        if stored is not None and self._leads_to_chunk(chunk.handle, stored):
            text = f"{about} has the handle of another chunk"
            yield _of_chunk(Kind.CHUNK_HANDLE, text, inode, index, chunk)
            return
        change = findings.put(names.HANDLES, key(chunk.handle), stored, due)
        text = f"{about} is not found by its handle: servers would delete its replicas"
        yield _of_chunk(Kind.CHUNK_HANDLE, text, inode, index, chunk, MendRecords((change,)))

    def _leads_to_chunk(self, handle: int, stored: bytes) -> bool:
        """Whether the record of `handles` leads to a chunk that has the handle."""
        try:
            place = key2(*decoded(records.decode_handle, stored))
            value = self.tables.get(names.CHUNKS, place)
            return value is not None and decoded(Chunk.decode, value).handle == handle
        except Unreadable:
            return False

    def check_handles(self) -> Iterator[Event]:
        """Every handle leads to the chunk that has it."""
        for handle_key, value in self.tables.scan(names.HANDLES):
            yield 1
            handle = key_number(handle_key)
            self.top_handle = max(self.top_handle, handle)
            if self._leads_to_chunk(handle, value):
                continue
            change = findings.drop(names.HANDLES, handle_key, value)
            text = f"handle {handle:x} leads to no chunk that has it"
            saved = findings.saved(change)
            mend = MendRecords((change,))
            yield Found(Kind.STRAY_HANDLE, text, handle=handle, mend=mend, saved=saved)


def _impossible(inode: Inode, index: int, chunk: Chunk) -> str:
    """What no operation brings about, "" for nothing."""
    if not stat.S_ISREG(inode.mode):
        return "belongs to what is no regular file"
    if not chunk.servers:
        return "has no replicas"
    if len(frozenset(chunk.servers)) != len(chunk.servers):
        return f"has two replicas on one server: {chunk.servers}"
    if index >= chunkmap.INDEX_END:
        return "lies beyond the largest file"
    if chunk.epoch > inode.trim_epoch:
        return f"is of trim epoch {chunk.epoch}, its file of {inode.trim_epoch}"
    if chunk.cut_bytes is not None and not 0 <= chunk.cut_bytes <= CHUNK_BYTES:
        return f"is to be cut to {chunk.cut_bytes} bytes"
    return ""


def _of_chunk(
    kind: Kind,
    text: str,
    inode: Inode,
    index: int,
    chunk: Chunk,
    mend: MendRecords | None = None,
    server: int = 0,
) -> Found:
    return Found(
        kind,
        text,
        inode=inode.number,
        offset=index * CHUNK_BYTES,
        length_bytes=CHUNK_BYTES,
        handle=chunk.handle,
        server=server,
        mend=mend,
    )


def check_trims(
    number: int,
    inode: Inode | None,
    rows: Iterator[Record],
    noted: Mapping[tuple[int, int], object],
) -> Iterator[Event]:
    """Every trim (inode, epoch) is `noted` among the orphans."""
    found = 0
    for epoch_key, value in rows:
        yield 1
        found += 1
        epoch = key_number(epoch_key)
        if (number, epoch) in noted:
            continue
        yield _unnoted_trim(number, epoch, value)
    if inode is not None and inode.trims != found:
        text = f"inode {number} has {found} trims, its record says {inode.trims}"
        mend = AdjustInode(number, trims=found - inode.trims)
        yield Found(Kind.TRIM_COUNT, text, inode=number, mend=mend)


def _unnoted_trim(number: int, epoch: int, value: bytes) -> Found:
    text = f"trim {epoch} of inode {number} is noted nowhere: what it cut off is never freed"
    try:
        first = decoded(records.decode_number, value)
    except Unreadable as why:
        return findings.unreadable(names.TRIMS, key2(number, epoch), why, number)
    orphan = records.Orphan(records.OrphanKind.TRIM, number, epoch, first)
    mend = MendRecords((), orphans=(orphan.encode(),))
    return Found(Kind.UNNOTED_TRIM, text, inode=number, mend=mend)
