"""The commands of the replicated log that change the state. Wire ids 220 to 249.

The leader decides everything that is not a function of the state (ids, times, placement) and
writes it into the command; applying one is then the same on every master (C7). Many commands
travel in one log entry, a `CommandBatch`. Answers: `Submitted` for `ApplyOperations`, `Done` for
the others, or `Refused`.

Membership of the masters is not here: those commands belong to `master.raft`.
"""

from __future__ import annotations

from dfs.messages.metadata import Numbered
from dfs.rpc.codec import message


@message(220)
class CommandBatch:
    """One log entry: encoded commands, and the time at which the leader proposed them.

    The state machine makes the time monotonic, so a leader with a slow clock does no harm.
    """

    now_ns: int  # since 1970 UTC
    commands: tuple[bytes, ...]


@message(221)
class ApplyOperations:
    """Operations of a session, each number once (C3): what `metadata.Submit` asks for.

    Answers Submitted, or Refused with NO_SESSION.
    """

    session: int
    answered_below: int
    operations: tuple[Numbered, ...]


@message(222)
class BeginSession:
    """`session` is a random number of 63 bits. Refused (UNAVAILABLE) when it is in use."""

    session: int
    client: str


@message(223)
class EndSession:
    """Forget a session and its stored answers; an unknown one is fine."""

    session: int


@message(224)
class ReapOrphans:
    """Free these inodes, as far as they are orphans (no other is touched).

    At most `max_chunks` chunks are dropped by one command, their replicas noted as deletions; an
    inode with more of them stays an orphan for the next command.
    """

    inodes: tuple[int, ...]
    max_chunks: int


@message(225)
class SetServer:
    """Add a chunkserver to the registry, or change its address or zone."""

    server: int
    address: str
    zone: str


@message(226)
class ForgetDeletions:
    """The server has deleted its replicas of these chunks."""

    server: int
    handles: tuple[int, ...]


@message(227)
class ReplicaChange:
    """One chunk's next replica set, in chain order: its first is the source of the settling.

    `lost`: no replica had all that was acknowledged (see `ChunkLocation.losses`).
    """

    handle: int
    version: int  # applies only while the chunk has exactly this one
    servers: tuple[int, ...]
    lost: bool = False


@message(228)
class ChangeReplicas:
    """Give chunks new replica sets, or the same ones in another order, each with the next version.

    Who leaves is to delete its replica; who joins is not to any more. What does not apply (any
    more) is left out. Answers Done.
    """

    changes: tuple[ReplicaChange, ...]


@message(229)
class SetMode:
    """Note what an operator has said of a server, or of its disk with that path.

    IN_SERVICE takes it back. Refused (BAD_MESSAGE) when the server is not in the registry.
    """

    server: int
    disk: str
    mode: int  # a `messages.cluster.ServerMode`
    until_ns: int  # 0: for good


@message(230)
class StrikeServer:
    """Take a server out of the registry, with its modes and all that it was to delete.

    Refused (BAD_MESSAGE) while a chunk's replica set contains it; an unknown one is fine.
    """

    server: int


@message(235)
class Adoption:
    """A replica of a version that the chunk map does not know of. `joins`: the map has that version
    from another replica, and this one belongs to the same set."""

    handle: int
    version: int
    server: int
    joins: bool = False


@message(236)
class AdoptReplicas:
    """While recovering: chunks take these versions, where higher, and the servers that have them.

    What does not apply (any more) is left out. Answers Done. See `master.state.recovery`.
    """

    adoptions: tuple[Adoption, ...]


@message(237)
class EndRecovery:
    """The recovery is over: the chunk map is the truth again. Answers Done."""


# -- what `dfs fsck --repair` has mended (see `master.state.mending`)


@message(240)
class RecordChange:
    """One record of one table: what it is and what it is to be; empty for no record."""

    table: str
    key: bytes
    before: bytes
    after: bytes


@message(242)
class AdjustInode:
    """Add to the counts of an inode what they lack; a negative number is what they have too many.

    What a count is off by stays the same whatever operations come in between, so this may be
    applied to a state that has moved on. `parent` is set unless it is 0. An inode that gets links
    is no orphan any more. Answers Done; Refused (ENOENT) when the inode is gone.
    """

    inode: int
    nlink: int = 0
    entries: int = 0
    next_cookie: int = 0
    chunks: int = 0
    trims: int = 0
    trim_epoch: int = 0
    size_bytes: int = 0
    xattr_names_bytes: int = 0
    xattr_values_bytes: int = 0
    parent: int = 0


@message(241)
class MendRecords:
    """Change these records if all of them are exactly as they are said to be, or else none.

    With them goes what `adjust` says, and each of `orphans`, an encoded `records.Orphan`, is noted
    under an inode number of its own. Answers Done, or Refused (STALE_VERSION) when one of the
    records is not as it was.
    """

    changes: tuple[RecordChange, ...]
    adjust: tuple[AdjustInode, ...] = ()
    orphans: tuple[bytes, ...] = ()


@message(243)
class AttachInode:
    """Give an inode that has no name one in /lost+found, which is made when it is missing.

    `nlink` is what its link count has too many before. Answers Done; Refused when it is gone.
    """

    inode: int
    nlink: int


@message(244)
class AdjustCounts:
    """Add to the state's counters what they lack; raise the next numbers to at least these.

    `set_changes` are what the counts of `replica_sets` (keys of that table) lack. Answers Done.
    """

    inodes: int = 0
    chunks: int = 0
    sessions: int = 0
    next_inode: int = 0
    next_handle: int = 0
    replica_sets: tuple[bytes, ...] = ()
    set_changes: tuple[int, ...] = ()


Command = (
    ApplyOperations
    | BeginSession
    | EndSession
    | ReapOrphans
    | SetServer
    | ForgetDeletions
    | ChangeReplicas
    | SetMode
    | StrikeServer
    | AdoptReplicas
    | EndRecovery
    | MendRecords
    | AdjustInode
    | AttachInode
    | AdjustCounts
)
