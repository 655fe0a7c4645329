"""The digest of a whole state: equal digests, equal states (C7).

xxh3_128 over every table in turn: its name and a NUL, then of each record, in key order, the
lengths of key and value (two big-endian integers of 64 bits), the key and the value. A dump keeps
its records in just this form (`master.dump`), so what is read from one is digested as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import xxhash

Pair = tuple[bytes, bytes]

_LENGTHS = struct.Struct(">QQ")


class StateDigest:
    """Fed with the tables in their order, each with its records."""

    def __init__(self) -> None:
        self._digest = xxhash.xxh3_128()

    def table(self, name: str) -> None:
        """From here on come that table's records."""
        self._digest.update(name.encode() + b"\0")

    def records(self, packed: bytes) -> None:
        """Whole records, as `pack` makes them."""
        self._digest.update(packed)

    def hex(self) -> str:
        return str(self._digest.hexdigest())


def pack(key: bytes, value: bytes) -> bytes:
    """One record."""
    return _LENGTHS.pack(len(key), len(value)) + key + value


def unpack(packed: bytes) -> Iterable[Pair]:
    """The records in those bytes. Raises ValueError when they do not end with a record."""
    at, end = 0, len(packed)
    while at < end:
        if at + _LENGTHS.size > end:
            raise ValueError("a record is cut short")
        key_bytes, value_bytes = _LENGTHS.unpack_from(packed, at)
        border = at + _LENGTHS.size + key_bytes
        at, start = border + value_bytes, at + _LENGTHS.size
        if at > end:
            raise ValueError("a record is cut short")
        yield packed[start:border], packed[border:at]
