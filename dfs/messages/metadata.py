"""What clients ask the leading master. Wire ids 60 to 109.

Reads are answered by the leader from its own state while it holds the Raft lease; any other
master answers `NOT_LEADER` with the leader's address. Reads answer `Refused` errors as RPC errors
(`Failure`). Changes travel in `Submit`.
"""

from __future__ import annotations

from dfs.messages.common import Attributes, Credentials, Done, Refused
from dfs.messages.operations import Operation
from dfs.rpc.codec import message

# -- sessions


@message(60)
class OpenSession:
    """Begin a session; `client` describes it to people (host, pid, mount point)."""

    client: str


@message(61)
class SessionOpened:
    session: int
    ttl_s: float  # without a KeepSession for this long the session may be expired
    root_inode: int
    cluster: str


@message(62)
class KeepSession:
    """Heartbeat of a session; answers Done, or NO_SESSION when it has expired."""

    session: int


@message(63)
class CloseSession:
    """End it: open handles are dropped, stored answers forgotten. Answers Done."""

    session: int


@message(64)
class RegisterOpens:
    """All inodes the session has open; sent to each new leader before anything else."""

    session: int
    inodes: tuple[int, ...]


# -- changes


@message(65)
class Numbered:
    """One operation with its sequence number, unique within the session, rising from 1."""

    sequence: int
    operation: Operation


@message(66)
class Submit:
    """Apply operations, each number once (C3), in the order given.

    `answered_below`: the client has every answer below this number, so they may be forgotten.
    A number below it is refused with NO_SESSION. Answers `Submitted` once all are committed.
    """

    session: int
    answered_below: int
    operations: tuple[Numbered, ...]


# -- reads


@message(70)
class Lookup:
    """Answers Attributes; ENOENT. `.` and `..` are resolved."""

    parent: int
    name: bytes


@message(71)
class GetAttributes:
    """Answers Attributes; ENOENT when the inode is gone."""

    inode: int


@message(72)
class ReadDirectory:
    """Entries after a cookie (0: from the start), at most `limit`. Answers DirectoryPage.

    Cookies are stable: an entry that exists throughout is returned exactly once, whatever is
    created or removed meanwhile. `.` and `..` come first.
    """

    inode: int
    after_cookie: int
    limit: int


@message(73)
class DirectoryEntry:
    name: bytes
    cookie: int
    attributes: Attributes


@message(74)
class DirectoryPage:
    entries: tuple[DirectoryEntry, ...]
    complete: bool  # no entry follows


@message(75)
class ReadLink:
    """Answers LinkTarget; EINVAL when it is no symlink."""

    inode: int


@message(76)
class LinkTarget:
    target: bytes


@message(77)
class GetXattr:
    """Answers XattrValue; ENODATA."""

    inode: int
    name: bytes
    caller: Credentials


@message(78)
class XattrValue:
    value: bytes


@message(79)
class ListXattrs:
    """Answers XattrNames."""

    inode: int
    caller: Credentials


@message(80)
class XattrNames:
    names: tuple[bytes, ...]


@message(81)
class OpenInode:
    """Note that the session has the inode open; answers its Attributes. ENOENT when gone."""

    session: int
    inode: int


@message(82)
class CloseInode:
    """The session's last handle of the inode is closed. Sent as a notice, without answer."""

    session: int
    inode: int


@message(83)
class GetChunks:
    """Where the chunks [first_index, first_index + count) of a file are. Answers ChunkMap."""

    inode: int
    first_index: int
    count: int


@message(84)
class Replica:
    """A chunkserver that holds a chunk; `address` is "" while the server is unknown or gone."""

    server: int
    address: str


@message(85)
class ChunkLocation:
    """One chunk of a file and the chain to write it along (the first replica is the primary).

    `version` rises whenever the replica set changes, `generation` whenever the file was cut inside
    this chunk. While `cut_bytes` is not None, a cut to that length within the chunk is pending:
    bytes from there on read as zeros whatever the replicas hold, and a writer first carries the
    cut out along the chain (`chunks.CutChunk`), then says so in its `CommitWrite`.

    `fresh`: no `CommitWrite` has told of a write to this chunk, so its replicas may not exist. A
    writer makes those that are missing, a reader takes a missing one for zeros; once it is not
    fresh, a missing replica is a loss and never zeros.

    `losses` rises whenever what was acknowledged and not synced may be gone, because all replicas
    lost power; a client that wrote under another number has to report an error at its next fsync.
    """

    index: int
    handle: int
    version: int
    generation: int
    replicas: tuple[Replica, ...]
    cut_bytes: int | None = None
    fresh: bool = False
    losses: int = 0


@message(86)
class ChunkMap:
    """Chunks that exist in the range asked for, by rising index; holes are left out."""

    size_bytes: int
    data_version: int
    chunks: tuple[ChunkLocation, ...]


@message(87)
class StatFs:
    """Answers FsInfo."""


@message(88)
class FsInfo:
    """Space as a user sees it: bytes of files, replication already divided out."""

    total_bytes: int
    free_bytes: int
    inodes_used: int


# -- answers of changes

Answer = Done | Attributes | ChunkMap | Refused


@message(67)
class Submitted:
    """The answers, in the order of the operations."""

    answers: tuple[Answer, ...]
