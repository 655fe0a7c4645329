"""What a check can find: the kinds, how grave each is, and what becomes of it.

A check is a generator of `Event`s: a `Found`, or the number of records that it has gone over since
the last event, so that whoever drives it can pause between any two. A `Found` carries the command
that mends it, where something can be done without loss; `saved` is what that takes away.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import msgpack

from dfs.errors import Failure
from dfs.messages.checking import Severity
from master.commands import AdjustCounts, AdjustInode, AttachInode, MendRecords, RecordChange

T = TypeVar("T")

RECORDS_PER_TICK = 128  # between two events of a check, so that no slice of it grows long


class Kind(enum.StrEnum):
    """Every kind of finding; the words are for programs and stay as they are."""

    # one table against the other
    UNREADABLE_RECORD = "unreadable-record"
    DANGLING_NAME = "dangling-name"
    UNINDEXED_NAME = "unindexed-name"
    STRAY_INDEX = "stray-index"
    BAD_NAME = "bad-name"
    BAD_COOKIE = "bad-cookie"
    NO_DIRECTORY = "no-directory"
    ENTRY_COUNT = "entry-count"
    LINK_COUNT = "link-count"
    UNREACHABLE = "unreachable"
    NAMED_ORPHAN = "named-orphan"
    DIRECTORY_LOOP = "directory-loop"
    WRONG_PARENT = "wrong-parent"
    SECOND_NAME = "second-name"
    NO_ROOT = "no-root"
    FALSE_ORPHAN = "false-orphan"
    UNNOTED_ORPHAN = "unnoted-orphan"
    XATTR_SIZES = "xattr-sizes"
    STRAY_XATTR = "stray-xattr"
    NO_TARGET = "no-target"
    TARGET_SIZE = "target-size"
    STRAY_TARGET = "stray-target"
    CHUNK_COUNT = "chunk-count"
    STRAY_CHUNK = "stray-chunk"
    BAD_CHUNK = "bad-chunk"
    CHUNK_HANDLE = "chunk-handle"
    STRAY_HANDLE = "stray-handle"
    DOOMED_REPLICA = "doomed-replica"
    TRIM_COUNT = "trim-count"
    UNNOTED_TRIM = "unnoted-trim"
    STRAY_TRIM = "stray-trim"
    REPLICA_SET_COUNT = "replica-set-count"
    COUNTER = "counter"
    STRAY_ANSWER = "stray-answer"
    EARLY_NOTE = "early-note"
    STRAY_MODE = "stray-mode"

    # the chunk map against what the servers have
    LOST_CHUNK = "lost-chunk"
    DAMAGED_RANGE = "damaged-range"
    NEWER_REPLICA = "newer-replica"
    FOREIGN_REPLICA = "foreign-replica"
    MISSING_REPLICA = "missing-replica"
    STALE_REPLICA = "stale-replica"
    UNSETTLED_REPLICA = "unsettled-replica"
    DAMAGED_REPLICA = "damaged-replica"
    DIFFERING_REPLICA = "differing-replica"
    UNREACHABLE_REPLICA = "unreachable-replica"
    TOO_FEW_COPIES = "too-few-copies"
    SAME_ZONE = "same-zone"
    SURPLUS_REPLICA = "surplus-replica"
    UNKNOWN_REPLICA = "unknown-replica"
    SILENT_SERVER = "silent-server"
    IN_FLUX = "in-flux"
    QUARANTINED = "quarantined"

    # of the check and of mending
    NOT_MENDED = "not-mended"


_NOT_METADATA: Mapping[Kind, Severity] = MappingProxyType(
    {
        Kind.LOST_CHUNK: Severity.DATA,
        Kind.DAMAGED_RANGE: Severity.DATA,
        Kind.MISSING_REPLICA: Severity.REDUNDANCY,
        Kind.STALE_REPLICA: Severity.REDUNDANCY,
        Kind.UNSETTLED_REPLICA: Severity.REDUNDANCY,
        Kind.DAMAGED_REPLICA: Severity.REDUNDANCY,
        Kind.DIFFERING_REPLICA: Severity.REDUNDANCY,
        Kind.UNREACHABLE_REPLICA: Severity.REDUNDANCY,
        Kind.TOO_FEW_COPIES: Severity.REDUNDANCY,
        Kind.SAME_ZONE: Severity.REDUNDANCY,
        Kind.SURPLUS_REPLICA: Severity.REDUNDANCY,
        Kind.UNKNOWN_REPLICA: Severity.REDUNDANCY,
        Kind.SILENT_SERVER: Severity.UNCHECKED,
        Kind.IN_FLUX: Severity.UNCHECKED,
        Kind.NOT_MENDED: Severity.UNCHECKED,
        Kind.QUARANTINED: Severity.NOTE,
    }
)


def severity_of(kind: Kind) -> Severity:
    """How grave a finding of that kind is."""
    return _NOT_METADATA.get(kind, Severity.METADATA)


@dataclass(frozen=True, slots=True)
class Settle:
    """Have the chunk's replicas made equal: the one at `server` is not to be trusted."""

    handle: int
    version: int
    server: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Have the server delete this replica, once its grace is over."""

    handle: int
    server: int


Mend = MendRecords | AdjustInode | AttachInode | AdjustCounts | Settle | Discard


@dataclass(frozen=True, slots=True)
class Found:
    """One thing amiss. `name` (parent, name) is the directory entry concerned, if it is one."""

    kind: Kind
    text: str
    inode: int = 0
    name: tuple[int, bytes] | None = None
    offset: int = 0
    length_bytes: int = 0
    handle: int = 0
    server: int = 0
    mend: Mend | None = None
    saved: bytes = b""


Event = Found | int


class Unreadable(Exception):
    """A record that cannot be decoded; the message says why."""


def decoded(decode: Callable[[bytes], T], value: bytes) -> T:
    """The decoded record. Raises Unreadable, whatever the bytes are."""
    try:
        return decode(value)
    except (Failure, struct.error, ValueError, IndexError) as error:
        raise Unreadable(str(error)) from None


def unreadable(table: str, key: bytes, why: Unreadable, inode: int = 0) -> Found:
    """The finding about a record that cannot be decoded. Nothing can be done about it here."""
    text = f"table {table}: the record of key {key.hex()} cannot be read: {why}"
    return Found(Kind.UNREADABLE_RECORD, text, inode=inode)


# -- mends of single records


def put(table: str, key: bytes, before: bytes | None, after: bytes) -> RecordChange:
    """Write a record where there is `before`, None for nothing."""
    return RecordChange(table, key, before or b"", after)


def drop(table: str, key: bytes, before: bytes) -> RecordChange:
    """Take a record away."""
    return RecordChange(table, key, before, b"")


def saved(*changes: RecordChange) -> bytes:
    """What the changes take away: msgpack of [[table, key, value], ...]."""
    kept = [[c.table, c.key, c.before] for c in changes if c.before]
    packed: bytes = msgpack.packb(kept)
    return packed


def describe(mend: Mend | None) -> str:
    """What mending would do, in words; "" for nothing."""
    match mend:
        case None:
            return ""
        case MendRecords():
            return _describe_records(mend)
        case AdjustInode():
            return "correct the inode's record"
        case AttachInode():
            return f"name it /lost+found/#{mend.inode}"
        case AdjustCounts():
            return "correct the counters"
        case Settle():
            return "have the chunk's replicas settled"
        case Discard():
            return f"have chunkserver {mend.server} delete it after its grace period"


def _describe_records(mend: MendRecords) -> str:
    parts = [
        f"{'drop' if not c.after else 'correct' if c.before else 'restore'} the record in {c.table}"
        for c in mend.changes
    ]
    parts += ["note what is left to be reaped"] * bool(mend.orphans)
    return ", ".join(dict.fromkeys(parts))
