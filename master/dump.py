"""A dump of the metadata: the whole replicated state at one applied index, in one file.

A dump is for people and for programs to come: it depends neither on LMDB nor on how a master keeps
its log. What reads one verifies everything before it believes anything.

Format version 1; integers are big-endian. The file is

    offset  length
         0       8  magic "DFSMDUMP"
         8       2  format version (1)
        10       -  frames, the last of which is the end frame; nothing follows it

A frame is

         0       1  kind: 1 header, 2 records, 3 end
         1       4  length of the body
         5       8  xxh3_64 of: the kind (1 byte), the frame's number from 0 (8 bytes), the body
        13       -  body

    header   once, first. msgpack map: "cluster" (its name), "master" (the id of who made it),
             "applied" and "term" (index of the last entry applied, and its term), "time_ns" (when,
             since 1970 UTC), "state_format" (`master.state.records.FORMAT`), "tables" (names, in
             the order of the digest), "members" ([[id, address], ...], the masters), "lineage"
             (`master.raft.formats`), "program" (version of dfs)
    records  zlib of: the table's number in "tables" (1 byte), then whole records of that table, as
             in `master.state.digest`. Tables come in order, and keys rise within each
    end      once, last. msgpack map: "records" (how many, by table, in order), "bytes" (of all
             keys and values), "digest" (hex; the digest of the whole state over "tables")

Keys and values are those of `master.state.records`, which carry formats of their own. Readers
ignore keys of the maps that they do not know, and refuse versions, kinds and tables that they do
not: so a later version may add to the maps freely, and must raise the version for anything else.

Memory: one frame at a time, on either side.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import xxhash

from dfs.errors import Code, Failure
from dfs.runtime.disk import File
from master.state import digest
from master.state.digest import Pair, StateDigest
from master.state.records import FORMAT as STATE_FORMAT
from master.tables import STATE_TABLES, Tables

MAGIC = b"DFSMDUMP"
VERSION = 1
FRAME_MAX_BYTES = 64 << 20  # a longer one is damage; a writer's frames are far shorter

_HEADER, _RECORDS, _END = 1, 2, 3
_PREFIX = struct.Struct(">8sH")
_FRAME = struct.Struct(">BIQ")
_PLACE = struct.Struct(">BQ")
_COMPRESSION = 1  # zlib's fastest: names and inodes still shrink to about a quarter


@dataclass(frozen=True, slots=True)
class Header:
    """What a dump is of."""

    cluster: str
    master: int
    applied: int
    term: int
    time_ns: int
    state_format: int = STATE_FORMAT
    tables: tuple[str, ...] = STATE_TABLES
    members: tuple[tuple[int, str], ...] = ()
    lineage: int = 0
    program: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """What a dump should have held: checked against what was read."""

    records: tuple[int, ...]
    bytes: int
    digest: str


# -- writing


def frames(header: Header, tables: Tables, frame_bytes: int) -> Iterator[bytes]:
    """The file, a piece at a time, of about `frame_bytes` before compression."""
    yield _PREFIX.pack(MAGIC, VERSION) + _frame(_HEADER, 0, _packed(header))
    state, total_bytes, counts, number = StateDigest(), 0, [0] * len(header.tables), 1
    for at, table in enumerate(header.tables):
        state.table(table)
        for count, content_bytes, packed in _portions(tables, table, frame_bytes):
            state.records(packed)
            counts[at] += count
            total_bytes += content_bytes
            body = zlib.compress(bytes([at]) + packed, _COMPRESSION)
            yield _frame(_RECORDS, number, body)
            number += 1
    yield _frame(_END, number, _packed(End(tuple(counts), total_bytes, state.hex())))


def _portions(tables: Tables, table: str, frame_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """(how many, bytes of keys and values, packed) of some records in turn."""
    packed, count, content_bytes = bytearray(), 0, 0
    for key, value in tables.scan(table):
        packed += digest.pack(key, value)
        count += 1
        content_bytes += len(key) + len(value)
        if len(packed) >= frame_bytes:
            yield count, content_bytes, bytes(packed)
            packed, count, content_bytes = bytearray(), 0, 0
    if count:
        yield count, content_bytes, bytes(packed)


def _packed(value: Header | End) -> bytes:
    return bytes(msgpack.packb(dataclasses.asdict(value)))


def _frame(kind: int, number: int, body: bytes) -> bytes:
    return _FRAME.pack(kind, len(body), _checksum(kind, number, body)) + body


def _checksum(kind: int, number: int, body: bytes) -> int:
    return xxhash.xxh3_64_intdigest(_PLACE.pack(kind, number) + body)


# -- reading


class Reader:
    """Reads a dump from its beginning to its end, and believes nothing.

    `read(n)` gives the next n bytes, fewer only at the end. Every method raises Failure: CORRUPT
    for what is damaged or cut short, CONFIG for what is no dump or made by a newer program.
    """

    def __init__(self, read: Callable[[int], bytes], about: str) -> None:
        self._read, self._about = read, about
        self._at = self._number = 0
        self.end: End | None = None  # known, and found true, once `batches` has ended
        self._check_prefix()
        kind, body = self._next_frame()
        if kind != _HEADER:
            raise self._damaged("the header is missing")
        self.header = self._header(body)

    def batches(self) -> Iterator[tuple[str, list[Pair]]]:
        """Some records of one table in turn. What was given is true only when this ends well."""
        names, state = self.header.tables, StateDigest()
        counts, total_bytes, at = [0] * len(names), 0, -1
        kind, body = self._next_frame()
        while kind == _RECORDS:
            table, packed, pairs = self._records(body)
            if table < max(at, 0):
                raise self._damaged("tables are out of order")
            for name in names[at + 1 : table + 1]:
                state.table(name)
            at = table
            state.records(packed)
            counts[table] += len(pairs)
            total_bytes += sum(len(key) + len(value) for key, value in pairs)
            yield names[table], pairs
            kind, body = self._next_frame()
        for name in names[at + 1 :]:
            state.table(name)
        self._finish(kind, body, End(tuple(counts), total_bytes, state.hex()))

    def _check_prefix(self) -> None:
        prefix = self._take(_PREFIX.size)
        magic, version = _PREFIX.unpack(prefix)
        if magic != MAGIC:
            raise Failure(Code.CONFIG, f"{self._about} is no dump of dfs metadata")
        if version != VERSION:
            text = f"{self._about} is a dump of format {version}, this program knows {VERSION}"
            raise Failure(Code.CONFIG, text)

    def _take(self, length_bytes: int) -> bytes:
        data = self._read(length_bytes)
        if len(data) < length_bytes:
            raise self._damaged("it is cut short")
        self._at += length_bytes
        return data

    def _next_frame(self) -> tuple[int, bytes]:
        kind, length, due = _FRAME.unpack(self._take(_FRAME.size))
        if length > FRAME_MAX_BYTES:
            raise self._damaged(f"a frame claims {length} bytes")
        body = self._take(length)
        if _checksum(kind, self._number, body) != due:
            raise self._damaged(f"frame {self._number} does not match its checksum")
        self._number += 1
        return kind, body

    def _header(self, body: bytes) -> Header:
        header: Header = self._unpacked(Header, body)
        unknown = [name for name in header.tables if name not in STATE_TABLES]
        if unknown or header.state_format > STATE_FORMAT:
            what = f"table {unknown[0]!r}" if unknown else f"state format {header.state_format}"
            text = f"{self._about} was made by a newer dfs ({header.program}): it has {what}"
            raise Failure(Code.CONFIG, text)
        members = tuple((int(id), str(address)) for id, address in header.members)
        return dataclasses.replace(header, tables=tuple(header.tables), members=members)

    def _unpacked(self, cls: type[Any], body: bytes) -> Any:
        try:
            fields = {f.name for f in dataclasses.fields(cls)}
            return cls(**{k: v for k, v in msgpack.unpackb(body).items() if k in fields})
        except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
            raise self._damaged(f"its {cls.__name__.lower()} cannot be read: {error}") from None

    def _records(self, body: bytes) -> tuple[int, bytes, list[Pair]]:
        """(number of the table, packed records, records)."""
        try:
            inflater = zlib.decompressobj()
            content = inflater.decompress(body, FRAME_MAX_BYTES)
            if not inflater.eof or not content or content[0] >= len(self.header.tables):
                raise ValueError("no records of a known table")
            packed = content[1:]
            return content[0], packed, list(digest.unpack(packed))
        except (zlib.error, ValueError) as error:
            raise self._damaged(str(error)) from None

    def _finish(self, kind: int, body: bytes, found: End) -> None:
        if kind != _END:
            raise self._damaged(f"a frame of unknown kind {kind}")
        end: End = self._unpacked(End, body)
        end = dataclasses.replace(end, records=tuple(end.records))
        if end != found:
            raise self._damaged(f"it holds {found}, and should hold {end}")
        if self._read(1):
            raise self._damaged("something follows its end")
        self.end = end

    def _damaged(self, why: str) -> Failure:
        text = f"{self._about} is damaged, at byte {self._at} or before: {why}"
        return Failure(Code.CORRUPT, text)


def verify(reader: Reader) -> End:
    """Read all of it. Raises Failure as `Reader` does."""
    for _ in reader.batches():
        pass
    assert reader.end is not None
    return reader.end


def sequential(file: File) -> Callable[[int], bytes]:
    """What a `Reader` reads with, from an open file."""
    at = 0

    def read(length_bytes: int) -> bytes:
        nonlocal at
        # Not more than there is: a damaged length must not cost memory.
        buffer = bytearray(max(0, min(length_bytes, file.size() - at)))
        got = file.pread_into(memoryview(buffer), at)
        at += got
        return bytes(buffer[:got])

    return read


def counts(header: Header, end: End) -> Sequence[tuple[str, int]]:
    """(table, records) of a verified dump."""
    return tuple(zip(header.tables, end.records, strict=True))
