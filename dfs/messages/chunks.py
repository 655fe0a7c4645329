"""What chunkservers are asked: by clients, by each other along a write chain. Wire ids 110 to 139.

Writes go to the chain's first server (the primary), which orders them; `chain` lists the addresses
still to come. A link applies and forwards at the same time and answers when it and all behind it
have applied. Writing the same bytes at the same offset again is harmless, so whatever was not
acknowledged may be sent again. Every request names the chunk's version and generation: a replica
with another version, or a higher generation, refuses with STALE_VERSION; one that has a lower
generation refuses writes with STALE_VERSION (the cut comes first) and serves reads, because the
reader hides what is beyond the pending cut.

Errors: STALE_VERSION, NO_REPLICA, CORRUPT, DISK (errno EIO, ENOSPC, EROFS; `detail` is the address
of the server concerned), CHAIN_BROKEN (`detail` is the address of the link that failed).
"""

from __future__ import annotations

from dfs.rpc.codec import message


@message(110)
class WriteChunk:
    """Payload: the data. Answers Done once every replica of the chain has applied it.

    `checksums` are packed as in `dfs.checksums`, computed by the client and verified at each link.
    `create` makes the replica when it is missing (the chunk was just allocated). `sync` answers
    only once the replica is durable on every link (fsync in the same round trip).
    """

    handle: int
    version: int
    generation: int
    offset: int
    checksums: bytes
    chain: tuple[str, ...]
    create: bool = False
    sync: bool = False


@message(111)
class SyncChunk:
    """Make all that was written durable on every link. Answers Done."""

    handle: int
    version: int
    chain: tuple[str, ...]


@message(112)
class CutChunk:
    """Cut every replica to `length_bytes` and raise its generation to `generation`.

    A replica that has that generation, or a higher one, is left alone. Answers Done. `create` makes
    the replica, empty, when it is missing (the chunk is fresh).
    """

    handle: int
    version: int
    generation: int
    length_bytes: int
    chain: tuple[str, ...]
    create: bool = False


@message(113)
class ReadChunk:
    """Answers ChunkData; payload: the bytes, fewer than asked where the replica ends."""

    handle: int
    version: int
    offset: int
    length_bytes: int


@message(114)
class ChunkData:
    """`checksums` of the payload at the offset asked for, as in `dfs.checksums`.

    Whole blocks carry the writer's own checksum; the reader verifies all.
    """

    checksums: bytes


@message(115)
class InspectReplica:
    """Answers ReplicaInfo of this server's replica; NO_REPLICA."""

    handle: int


@message(116)
class ReplicaInfo:
    """`digest` is xxh3_64 over the packed block checksums: equal digests, equal contents."""

    handle: int
    version: int
    generation: int
    length_bytes: int
    digest: int
