"""The ordered key-value tables that the master's state lives in.

`Tables` is all that the state machine knows of storage. Reads see the writes before them; keys of
a table are ordered as bytes. Atomicity, durability and snapshots are the store's business. What
the keys and values of each table look like is described in `master.state.records`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

INODES = "inodes"
DENTRIES = "dentries"
DIRINDEX = "dirindex"
XATTRS = "xattrs"
SYMLINKS = "symlinks"
CHUNKS = "chunks"
TRIMS = "trims"
HANDLES = "handles"
REPLICA_SETS = "replica_sets"
SESSIONS = "sessions"
ANSWERS = "answers"
ORPHANS = "orphans"
DELETIONS = "deletions"
SERVERS = "servers"
MODES = "modes"
COUNTERS = "counters"
SETTINGS = "settings"

# All that is replicated, in the order in which the state's digest takes them.
STATE_TABLES = (
    INODES,
    DENTRIES,
    DIRINDEX,
    XATTRS,
    SYMLINKS,
    CHUNKS,
    TRIMS,
    HANDLES,
    REPLICA_SETS,
    SESSIONS,
    ANSWERS,
    ORPHANS,
    DELETIONS,
    SERVERS,
    COUNTERS,
    SETTINGS,
    MODES,
)


class Tables(Protocol):
    """Ordered tables of bytes, by name."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value, or None."""
        ...

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Set or replace."""
        ...

    def delete(self, table: str, key: bytes) -> None:
        """Remove; an absent key is fine."""
        ...

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < end in key order. Do not write while it is open."""
        ...
