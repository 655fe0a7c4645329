"""The frame: what one RPC message looks like on the wire.

    offset  size  field
         0     4  magic, b"dfsR"
         4     1  protocol version, VERSION
         5     1  kind, see `Kind`
         6     2  reserved, 0
         8     8  request id, chosen by the caller; 0 where none is due
        16     4  header length in bytes
        20     4  payload length in bytes
        24        header: one message in the form of `dfs.rpc.codec`
        ..        payload: raw bytes

All integers are big-endian. Magic and version keep their place in every future version, so that
two versions can tell each other apart. This module does no I/O and allocates nothing: `parse`
checks both lengths against the limits before anybody makes room for what they announce.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import NamedTuple

from dfs.errors import Code, Failure
from dfs.runtime.network import Buffer

MAGIC = b"dfsR"
VERSION = 1

_PREFIX = struct.Struct(">4sBBHQII")
PREFIX_BYTES = _PREFIX.size


class Kind(enum.IntEnum):
    """What a frame is for. Wire values: never renumber, only add."""

    HELLO = 1  # handshake: see `dfs.rpc.auth`
    CHALLENGE = 2
    PROOF = 3
    REJECT = 4
    REQUEST = 5  # answered by REPLY or ERROR with the same request id
    REPLY = 6
    ERROR = 7  # header: `dfs.messages.common.Refused`
    CANCEL = 8  # the caller wants no answer any more
    NOTICE = 9  # a request without an answer
    PING = 10  # answered by PONG; says nothing but "here"
    PONG = 11


_KINDS = {int(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """The largest lengths that are accepted."""

    header_bytes: int
    payload_bytes: int


class Prefix(NamedTuple):
    """The fixed part of a frame, decoded."""

    kind: Kind
    request_id: int
    header_bytes: int
    payload_bytes: int


def pack(kind: Kind, request_id: int, header_bytes: int, payload_bytes: int) -> bytes:
    """The fixed part of a frame."""
    return _PREFIX.pack(MAGIC, VERSION, kind, 0, request_id, header_bytes, payload_bytes)


def parse(buffer: Buffer, offset: int, limits: FrameLimits) -> Prefix:
    """The fixed part that stands at `offset`; PREFIX_BYTES must be there.

    Raises Failure: UNAUTHENTICATED for another protocol version, BAD_MESSAGE for anything else
    that is no frame within the limits.
    """
    magic, version, kind, reserved, request_id, header_bytes, payload_bytes = _PREFIX.unpack_from(
        buffer, offset
    )
    known = _KINDS.get(kind)
    if (
        magic != MAGIC
        or version != VERSION
        or known is None
        or reserved
        or header_bytes > limits.header_bytes
        or payload_bytes > limits.payload_bytes
    ):
        raise _why_not(magic, version, kind, reserved, header_bytes, payload_bytes, limits)
    return Prefix(known, request_id, header_bytes, payload_bytes)


def _why_not(
    magic: bytes,
    version: int,
    kind: int,
    reserved: int,
    header_bytes: int,
    payload_bytes: int,
    limits: FrameLimits,
) -> Failure:
    if magic != MAGIC:
        return Failure(Code.BAD_MESSAGE, f"not a frame: it begins with {magic!r}")
    if version != VERSION:
        text = f"the peer speaks protocol version {version}, this side {VERSION}"
        return Failure(Code.UNAUTHENTICATED, text)
    if kind not in _KINDS or reserved:
        return Failure(Code.BAD_MESSAGE, f"a frame of unknown kind {kind}.{reserved}")
    if header_bytes > limits.header_bytes:
        text = f"a frame with a header of {header_bytes} bytes, {limits.header_bytes} are allowed"
        return Failure(Code.BAD_MESSAGE, text)
    text = f"a frame with a payload of {payload_bytes} bytes, {limits.payload_bytes} are allowed"
    return Failure(Code.BAD_MESSAGE, text)
