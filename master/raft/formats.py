"""What Raft keeps on disk and sends to other masters.

Tables (format version 1; all integers big-endian, all else msgpack):

    journal   u64 index -> u64 term, then the entry: one byte of kind (0 commands, 1 no-op,
              2 change of membership) and its body: an encoded `master.commands.CommandBatch`,
              nothing, or [verb, id, address, nonce] with the verb "add" or "remove"
    members   u64 id -> [address, nonce, present]; replicated. A removed master's record stays,
              with present False, so that its id is never given out again
    raft      this master's own:
              "format"    b"DFSM" and a u16 version
              "nonce"     16 random bytes, made when this disk was first used. A master is its id
                          and its nonce: an id that comes back with another one lost its disk
              "term"      [current term, id voted for in it or None]
              "commit"    u64, a lower bound of the commit index
              "applied"   u64, the index up to which the state tables are the log applied
              "founding"  [[id, address, nonce], ...]: the members the cluster began with
              "lineage"   u64, absent for 0: which group of masters this is. 0 began with a new
                          cluster; one that was founded anew from a survivor or a dump has the
                          time of that (ns since 1970 UTC), and takes the place of all lower ones

Messages between masters are msgpack maps in the payload of a `RaftMessage` notice; `type` says
which, `FIELDS` below which fields it must have and of what kind, and `ADDED` what older masters
do not send.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgpack

from dfs.errors import Code, Failure
from dfs.runtime.network import Buffer

MAGIC = b"DFSM"
VERSION = 1
FORMAT = MAGIC + struct.pack(">H", VERSION)

NONCE_BYTES = 16

COMMANDS, NO_OP, MEMBERSHIP = 0, 1, 2  # kinds of entries; the numbers are pysyncobj's
ADD, REMOVE = "add", "remove"

Entry = tuple[bytes, int, int]  # kind and body, index, term: pysyncobj's order
Message = dict[str, Any]

_U64 = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Member:
    """One master as the members table knows it."""

    id: int
    address: str
    nonce: bytes
    present: bool = True


def pack_u64(value: int) -> bytes:
    return _U64.pack(value)


def unpack_u64(data: bytes) -> int:
    return int(_U64.unpack(data)[0])


def pack_entry(entry: Entry) -> tuple[bytes, bytes]:
    """Key and value of an entry in the journal table."""
    command, index, term = entry
    return _U64.pack(index), _U64.pack(term) + command


def unpack_entry(key: bytes, value: bytes) -> Entry:
    return value[8:], unpack_u64(key), unpack_u64(value[:8])


def pack_member(member: Member) -> tuple[bytes, bytes]:
    value = msgpack.packb([member.address, member.nonce, member.present])
    return _U64.pack(member.id), bytes(value)


def unpack_member(key: bytes, value: bytes) -> Member:
    address, nonce, present = msgpack.unpackb(value)
    return Member(unpack_u64(key), address, nonce, present)


def pack_founding(members: list[Member]) -> bytes:
    return bytes(msgpack.packb([[m.id, m.address, m.nonce] for m in members]))


def unpack_founding(data: bytes) -> list[Member]:
    return [Member(*fields) for fields in msgpack.unpackb(data)]


def pack_vote(term: int, vote: int | None) -> bytes:
    return bytes(msgpack.packb([term, vote]))


def unpack_vote(data: bytes) -> tuple[int, int | None]:
    term, vote = msgpack.unpackb(data)
    return term, vote


def pack_change(verb: str, member: Member) -> bytes:
    """An entry of kind MEMBERSHIP."""
    body = msgpack.packb([verb, member.id, member.address, member.nonce])
    return bytes([MEMBERSHIP]) + bytes(body)


def unpack_change(entry: bytes) -> tuple[str, Member] | None:
    """The change that an entry makes, None when it is of another kind."""
    if entry[0] != MEMBERSHIP:
        return None
    verb, id, address, nonce = msgpack.unpackb(entry[1:])
    return verb, Member(id, address, nonce, verb == ADD)


# -- messages

_LOG = {"term": int, "commit_index": int, "stamp": float}

FIELDS: Mapping[str, Mapping[str, type]] = {
    # who I am: my disk's nonce, and what the cluster was founded with (b"" until I know)
    "hello": {"nonce": bytes, "founding": bytes},
    "alive": {},  # keeps a link that has nothing else to carry
    # entries follow prevLogIdx; `stamp` is the sender's boottime, echoed in the answer (lease)
    "append_entries": {**_LOG, "prevLogIdx": int, "prevLogTerm": int, "entries": list},
    # my log begins after what you lack: fetch a snapshot; `first` is my oldest entry
    "snapshot": {**_LOG, "first": int},
    "next_node_idx": {
        "term": int,
        "stamp": float,
        "next_node_idx": int,
        "reset": bool,
        "success": bool,
    },
    # `force`: the leader asked for this election, so having heard it is no reason to refuse
    "request_vote": {"term": int, "last_log_index": int, "last_log_term": int, "force": bool},
    "response_vote": {"term": int},
    "prevote": {"term": int, "last_log_index": int, "last_log_term": int},
    "prevote_ok": {"term": int},
    "stale": {"term": int},  # your term is over
    "timeout_now": {"term": int},  # hold an election at once: leadership is yours
    "removed": {},  # you are no member any more
    "refused": {"reason": str},  # I shall not speak with you
}

# Fields that came later: what a message without them means.
ADDED: Mapping[str, Mapping[str, Any]] = {
    "hello": {"lineage": 0},  # the group of masters that my disk belongs to
}


def encode_message(message: Message) -> bytes:
    return bytes(msgpack.packb(message))


def decode_message(data: Buffer) -> Message:
    """Raises Failure BAD_MESSAGE when it is not one of `FIELDS`."""
    try:
        message: Any = msgpack.unpackb(data, raw=False)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise Failure(Code.BAD_MESSAGE, f"a Raft message is not msgpack: {error}") from None
    kind = message.get("type") if isinstance(message, dict) else None
    fields = FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise Failure(Code.BAD_MESSAGE, f"no Raft message is of type {kind!r}")
    message = {**ADDED.get(str(kind), {}), **message}
    added = {name: type(value) for name, value in ADDED.get(str(kind), {}).items()}
    for name, cls in {**fields, **added}.items():
        if type(message.get(name)) is not cls:
            raise Failure(Code.BAD_MESSAGE, f"Raft message {kind}: {name} must be {cls.__name__}")
    if kind == "append_entries":
        message["entries"] = _checked_entries(message["entries"], message["prevLogIdx"])
    return cast(Message, message)


def _checked_entries(raw: list[Any], previous: int) -> list[Entry]:
    """The entries, which must follow the index `previous` without a gap."""
    entries = []
    for item in raw:
        previous += 1
        shape = [type(part) for part in item] if isinstance(item, list) else None
        if shape != [bytes, int, int] or not item[0] or item[1] != previous:
            raise Failure(Code.BAD_MESSAGE, f"entry {previous} of append_entries is malformed")
        entries.append((item[0], item[1], item[2]))
    return entries
