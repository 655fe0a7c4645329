"""What the writers write: bytes that tell who wrote them, in which operation, for which place.

A block of BLOCK_BYTES is 256 times 16 hexadecimal digits: writer (2), operation (8), block (6). A
record of a log repeats the writer and the operation. So a block of another file, of another place,
a torn one and zeros are all told from what belongs there, and a failure can say what it found.
"""

from __future__ import annotations

BLOCK_BYTES = 4096
_STAMP_BYTES = 16
ZEROS = "zeros"
MISSING = "nothing"


def block(writer: int, operation: int, number: int) -> bytes:
    """The block with this number, as that operation writes it."""
    return b"%02x%08x%06x" % (writer, operation, number) * (BLOCK_BYTES // _STAMP_BYTES)


def blocks(writer: int, operation: int, first: int, count: int) -> bytes:
    return b"".join(block(writer, operation, first + i) for i in range(count))


def record(writer: int, operation: int, length_bytes: int) -> bytes:
    """One record of a log."""
    stamp = b"<%02x.%08x>" % (writer, operation)
    return (stamp * (length_bytes // len(stamp) + 1))[:length_bytes]


def describe(data: bytes) -> str:
    """What a block that was read is: its stamp, or what else it looks like."""
    if not data:
        return MISSING
    if not data.strip(b"\0"):
        return ZEROS
    stamp = data[:_STAMP_BYTES]
    if data == stamp * (len(data) // _STAMP_BYTES):
        return _stamp_text(stamp)
    return f"{len(data)} torn bytes that begin with {data[:24]!r}"


def _stamp_text(stamp: bytes) -> str:
    try:
        writer, operation, number = int(stamp[:2], 16), int(stamp[2:10], 16), int(stamp[10:], 16)
    except ValueError:
        return f"strange bytes {stamp!r}"
    return f"block {number} of operation {operation} of writer {writer}"


def difference(found: bytes, due: bytes) -> str:
    """Where two byte strings part."""
    at = next((i for i, (a, b) in enumerate(zip(found, due, strict=False)) if a != b), None)
    if at is None:
        return f"{len(found)} bytes where {len(due)} are due"
    zeros = len(found[at:]) - len(found[at:].lstrip(b"\0"))
    what = f"{zeros} zeros" if zeros else repr(found[at : at + 26])
    return f"at byte {at} of {len(found)} it has {what}, due is {due[at : at + 26]!r}"
