"""What chunkservers are asked: by clients, by each other along a write chain. Wire ids 110 to 139.

Writes go to the chain's first server (the primary), which orders them; `chain` lists the addresses
still to come. A link applies and forwards at the same time and answers when it and all behind it
have applied. Writing the same bytes at the same offset again is harmless, so whatever was not
acknowledged may be sent again. Every request names the chunk's version and generation: a replica
with another version, or a higher generation, refuses with STALE_VERSION; one that has a lower
generation refuses writes with STALE_VERSION (the cut comes first) and serves reads, because the
reader hides what is beyond the pending cut.

**Settling.** Whenever a chunk's replica set changes, a replica comes back from a crash, or a block
is found damaged, the master raises the chunk's version and has one replica, the source, make the
others equal to itself before any of them serves the new version: it fences them (`FenceReplica`:
they take the version, and serve nobody), compares their checksum tables with its own, sends the
blocks that differ (`SettleBlocks`), and ends it (`EndSettling`), itself last. All of it may be
repeated.

Errors: STALE_VERSION, NO_REPLICA, CORRUPT, DISK (errno EIO, ENOSPC, EROFS; `detail` is the address
of the server concerned), CHAIN_BROKEN (`detail` is the address of the link that failed).
"""

from __future__ import annotations

import enum

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
    state: int = 0  # a ReplicaState


# -- settling: from the source to the other replicas


class ReplicaState(enum.IntEnum):
    """How far a replica can be trusted; the lower, the better it is as a source."""

    SETTLED = 0  # serves
    UNSETTLED = 1  # has all that was acknowledged, may differ in what was not
    LOST = 2  # after a power loss: may lack what was acknowledged and not synced
    JOINING = 3  # is being made: never a source


@message(117)
class FenceReplica:
    """Take this version and serve nobody until `EndSettling`. Answers ReplicaTable.

    A replica that serves this very version is left as it is, and says so by its state: an earlier
    attempt has ended here. STALE_VERSION when it has a higher version.
    `joining`: what is here does not count as a replica of the chunk yet (it may be an old one that
    is to be caught up); without any, an empty one is made. Durable when answered.
    """

    handle: int
    version: int
    joining: bool = False


@message(118)
class ReplicaTable:
    """Payload: the packed checksums of all blocks, as in `dfs.checksums`.

    `damaged` and `doubtful` are bitmaps of blocks (bit i of the big-endian integer is block i):
    those that do not match their checksums, and those whose checksum was computed anew after an
    unclean stop.
    """

    generation: int
    length_bytes: int
    state: int  # a ReplicaState
    damaged: bytes = b""
    doubtful: bytes = b""


@message(119)
class SettleBlocks:
    """Payload: data of the source, whole blocks (but for the last one). Answers Done.

    Only a fenced replica of exactly this version takes it. What it has beyond `length_bytes`, the
    source's length, goes.
    """

    handle: int
    version: int
    offset: int
    checksums: bytes
    length_bytes: int


@message(120)
class EndSettling:
    """Cut to the source's length, take its generation; sync, and serve. Answers Done.

    `damaged` is a bitmap of blocks of which nobody has good data; payload: their checksums, packed.
    They are refused here from now on. CORRUPT when `digest` (as in ReplicaInfo) is not what is
    here then.
    """

    handle: int
    version: int
    generation: int
    length_bytes: int
    digest: int
    damaged: bytes = b""


@message(124)
class ReadFenced:
    """As ReadChunk, of a fenced replica of this version: the source lacks a block. ChunkData."""

    handle: int
    version: int
    offset: int
    length_bytes: int


@message(125)
class ReadTable:
    """The table of a replica that serves this version. Answers ReplicaTable."""

    handle: int
    version: int


# -- what fsck asks of a chunkserver


@message(121)
class ListReplicas:
    """The replicas with a handle above `after`, at most `limit`, rising. Answers ReplicaPage.

    `up_to`: none with a higher handle, and as things are now; without it (0), pages may show what
    there was when the first of them (`after` 0) was asked for. `verify` has each of them looked for
    on its disk, read and compared with its checksums before; that takes its time.
    """

    after: int
    limit: int
    verify: bool = False
    up_to: int = 0


@message(122)
class ListedReplica:
    """`damaged` is a bitmap of blocks known to be damaged, as in `ReplicaTable`.

    `digest` is that of `ReplicaInfo`, where `verify` was asked for; then "" says that the replica
    cannot be read.
    """

    handle: int
    version: int
    generation: int
    length_bytes: int
    state: int  # a ReplicaState
    disk: str
    damaged_blocks: int = 0
    damaged: bytes = b""
    digest: str = ""  # 16 hex digits


@message(123)
class ReplicaPage:
    """`quarantined`: paths of what the server has set aside; with the first page (`after` 0)."""

    replicas: tuple[ListedReplica, ...]
    complete: bool  # none follows
    quarantined: tuple[str, ...] = ()


# -- damage


@message(128)
class CheckBlocks:
    """A notice, without answer: what this server said of that range did not match its checksums.

    The server verifies the blocks, and has damaged ones mended.
    """

    handle: int
    version: int
    offset: int
    length_bytes: int
