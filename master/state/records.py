"""The tables of the replicated state, key by key and value by value.

Every value begins with a byte naming the format of its record, so that newer code can read older
records (C8); it is 1 where nothing else is said. Integers are big-endian: keys then sort as numbers
do, and whatever belongs to one inode, directory or session is one range. `#` is an unsigned
integer of 64 bits.

    table         key              value after the format byte
    inodes        # inode          the fields of `Inode`, fixed layout
    dentries      # parent, name   # inode, # cookie
    dirindex      # parent, # cookie   # inode, name     (the same entries in readdir order)
    xattrs        # inode, name    the value
    symlinks      # inode          the target
    chunks        # inode, # index the fields of `Chunk`, fixed layout, then its servers (format 2;
                                   1 is the same without `losses`)
    trims         # inode, # epoch # first index          (see `master.state.chunks`)
    handles       # handle         # inode, # index
    replica_sets  u8 wanted, sorted u32 servers    # number of chunks with that replica set
    sessions      # session        the fields of `Session`, then the client's description
    answers       # session, # sequence   the answer, encoded as a message
    orphans       # inode          u8 kind, three numbers (see `Orphan`)
    deletions     # server, # handle   # time in ns when it was noted (format 2; 1: nothing)
    servers       # server         u16 length of the address, address, zone
    modes         # server, path   u8 mode, two times in ns (see `Mode`; path "": the server itself)
    counters      "counters"       the fields of `Counters`, fixed layout
    settings      "format"         nothing: the format byte is that of the whole state
                  "recovering"     see `master.state.recovery`; there while a recovery is under way

A cookie belongs to a name in a directory for as long as the name exists, whatever inode it leads
to; cookies come from a counter of the directory that only rises. `.` is 1 and `..` is 2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dfs.errors import Code, Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.common import Attributes

FORMAT = 1
CHUNK_FORMAT = 2
DELETION_FORMAT = 2
NUMBER_END = 2**63  # inodes, handles, cookies, sequences and sessions are below
SERVER_END = 2**32
ID_END = 2**32 - 1  # uid and gid; the last one means "no change" to chown(2)
TIME_MIN_NS, TIME_MAX_NS = -(2**63), 2**63 - 1
FIRST_COOKIE = 3
BLOCK_BYTES_OF_STAT = 512
DIRECTORY_SIZE_BYTES = 4096  # what stat shows; means nothing, as on other file systems

COUNTERS_KEY = b"counters"
FORMAT_KEY = b"format"

key = struct.Struct(">Q").pack
key2 = struct.Struct(">QQ").pack
_u64 = struct.Struct(">Q")
_u64_pair = struct.Struct(">QQ")
_tag = bytes([FORMAT])

_INODE = struct.Struct(">B4I2Q4q5Q4I")
_CHUNK_1 = struct.Struct(">B3QqI?BB")
_CHUNK = struct.Struct(">B3QqI?BBI")
_ENTRY = struct.Struct(">BQQ")
_SESSION = struct.Struct(">B3Qq")
_ORPHAN = struct.Struct(">BB3Q")
_COUNTERS = struct.Struct(">B2Qq3Q")
_INDEXED = struct.Struct(">BQ")
_SERVER = struct.Struct(">BH")
_DELETION = struct.Struct(">Bq")
_MODE = struct.Struct(">BBqq")


def check_format(value: bytes, table: str, newest: int = FORMAT) -> None:
    """Raise Failure(DISK) for a record that this version of the program cannot read."""
    if not FORMAT <= value[0] <= newest:
        text = f"table {table}: record of format {value[0]}, this program knows {newest}"
        raise Failure(Code.DISK, text)


def key_number(key_bytes: bytes, at: int = 0) -> int:
    """The number at byte `at` of a key."""
    number: int = _u64.unpack_from(key_bytes, at)[0]
    return number


@dataclass(slots=True)
class Inode:
    """One inode; times in ns since 1970 UTC. Changed in place by `Transaction`'s users."""

    number: int
    mode: int  # type and permission bits
    nlink: int  # 0: an orphan, kept while it is open
    uid: int
    gid: int
    rdev: int
    size_bytes: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    data_version: int
    parent: int  # of a directory, 0 otherwise
    entries: int  # of a directory, `.` and `..` not counted
    next_cookie: int  # of a directory
    chunks: int  # records in `chunks`, trimmed ones that are not yet reaped included
    trim_epoch: int  # number of trims so far
    trims: int  # records in `trims`
    xattr_names_bytes: int  # as listxattr(2) counts them: with a NUL each
    xattr_values_bytes: int

    def encode(self) -> bytes:
        return _INODE.pack(
            FORMAT,
            self.mode,
            self.nlink,
            self.uid,
            self.gid,
            self.rdev,
            self.size_bytes,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            self.btime_ns,
            self.data_version,
            self.parent,
            self.entries,
            self.next_cookie,
            self.chunks,
            self.trim_epoch,
            self.trims,
            self.xattr_names_bytes,
            self.xattr_values_bytes,
        )

    @staticmethod
    def decode(number: int, value: bytes) -> Inode:
        check_format(value, "inodes")
        return Inode(number, *_INODE.unpack(value)[1:])

    def attributes(self) -> Attributes:
        """As the outside sees it."""
        size = self.size_bytes
        allocated = 0
        if self.chunks:
            allocated = min(
                self.chunks * CHUNK_BYTES, -(-size // BLOCK_BYTES_OF_STAT) * BLOCK_BYTES_OF_STAT
            )
        return Attributes(
            self.number,
            self.mode,
            self.nlink,
            self.uid,
            self.gid,
            self.rdev,
            size,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            self.btime_ns,
            self.data_version,
            allocated,
        )


@dataclass(slots=True)
class Chunk:
    """One chunk of a file; see `messages.metadata.ChunkLocation` for version, generation, cut."""

    handle: int
    version: int
    generation: int
    cut_bytes: int | None
    epoch: int  # the inode's `trim_epoch` when the chunk was allocated
    fresh: bool  # no write to it has been committed
    wanted: int  # replicas it should have
    servers: tuple[int, ...]  # the chain, primary first
    losses: int = 0  # how often acknowledged data may have been lost (see ChunkLocation)

    def encode(self) -> bytes:
        cut = -1 if self.cut_bytes is None else self.cut_bytes
        count = len(self.servers)
        head = _CHUNK.pack(
            CHUNK_FORMAT,
            self.handle,
            self.version,
            self.generation,
            cut,
            self.epoch,
            self.fresh,
            self.wanted,
            count,
            self.losses,
        )
        return head + struct.pack(f">{count}I", *self.servers)

    @staticmethod
    def decode(value: bytes) -> Chunk:
        check_format(value, "chunks", CHUNK_FORMAT)
        if value[0] == CHUNK_FORMAT:
            layout, (*head, losses) = _CHUNK, _CHUNK.unpack_from(value)
        else:
            layout, head, losses = _CHUNK_1, list(_CHUNK_1.unpack_from(value)), 0
        _, handle, version, generation, cut, epoch, fresh, wanted, count = head
        servers = struct.unpack_from(f">{count}I", value, layout.size)
        cut_bytes = None if cut < 0 else cut
        return Chunk(handle, version, generation, cut_bytes, epoch, fresh, wanted, servers, losses)


@dataclass(slots=True)
class Session:
    """A client's session. Answers are stored for sequences in [purged_below, top)."""

    number: int
    answered_below: int  # the client has all answers below
    purged_below: int  # no answer below is stored any more
    top: int  # no answer from here on was ever stored
    begun_ns: int
    client: str

    def encode(self) -> bytes:
        head = _SESSION.pack(
            FORMAT, self.answered_below, self.purged_below, self.top, self.begun_ns
        )
        return head + self.client.encode()

    @staticmethod
    def decode(number: int, value: bytes) -> Session:
        check_format(value, "sessions")
        _, answered, purged, top, begun_ns = _SESSION.unpack_from(value)
        return Session(number, answered, purged, top, begun_ns, value[_SESSION.size :].decode())


class OrphanKind:
    """What an entry of `orphans` is about, and what its three numbers mean."""

    INODE = 0  # the inode itself has no link any more; 0, 0, 0
    TRIM = 1  # dropped chunks of a living file: its inode, the trim's epoch, first index not seen
    ANSWERS = 2  # of an ended session: its number, first and end of the sequences left


@dataclass(slots=True)
class Orphan:
    """Work left to `ReapOrphans`; kinds other than INODE use an inode number that is no inode."""

    kind: int
    first: int = 0
    second: int = 0
    third: int = 0

    def encode(self) -> bytes:
        return _ORPHAN.pack(FORMAT, self.kind, self.first, self.second, self.third)

    @staticmethod
    def decode(value: bytes) -> Orphan:
        check_format(value, "orphans")
        return Orphan(*_ORPHAN.unpack(value)[1:])


@dataclass(slots=True)
class Counters:
    """The state's counters, one record."""

    next_inode: int
    next_handle: int
    now_ns: int  # the time of the last change; later changes are never earlier
    inodes: int  # records in `inodes`
    chunks: int  # records in `chunks`
    sessions: int  # records in `sessions`

    def encode(self) -> bytes:
        return _COUNTERS.pack(
            FORMAT,
            self.next_inode,
            self.next_handle,
            self.now_ns,
            self.inodes,
            self.chunks,
            self.sessions,
        )

    @staticmethod
    def decode(value: bytes) -> Counters:
        check_format(value, "counters")
        return Counters(*_COUNTERS.unpack(value)[1:])


def encode_entry(inode: int, cookie: int) -> bytes:
    return _ENTRY.pack(FORMAT, inode, cookie)


def decode_entry(value: bytes) -> tuple[int, int]:
    """(inode, cookie)."""
    check_format(value, "dentries")
    _, inode, cookie = _ENTRY.unpack(value)
    return inode, cookie


def encode_index(inode: int, name: bytes) -> bytes:
    return _INDEXED.pack(FORMAT, inode) + name


def decode_index(value: bytes) -> tuple[int, bytes]:
    """(inode, name)."""
    check_format(value, "dirindex")
    return _INDEXED.unpack_from(value)[1], value[_INDEXED.size :]


def encode_handle(inode: int, index: int) -> bytes:
    return _ENTRY.pack(FORMAT, inode, index)


def decode_handle(value: bytes) -> tuple[int, int]:
    """(inode, index)."""
    check_format(value, "handles")
    _, inode, index = _ENTRY.unpack(value)
    return inode, index


def encode_number(number: int) -> bytes:
    return _INDEXED.pack(FORMAT, number)


def decode_number(value: bytes) -> int:
    check_format(value, "numbers")
    number: int = _INDEXED.unpack(value)[1]
    return number


def encode_blob(blob: bytes) -> bytes:
    return _tag + blob


def decode_blob(value: bytes) -> bytes:
    check_format(value, "blobs")
    return value[1:]


def encode_server(address: str, zone: str) -> bytes:
    raw = address.encode()
    return _SERVER.pack(FORMAT, len(raw)) + raw + zone.encode()


def decode_server(value: bytes) -> tuple[str, str]:
    """(address, zone)."""
    check_format(value, "servers")
    _, length = _SERVER.unpack_from(value)
    border = _SERVER.size + length
    return value[_SERVER.size : border].decode(), value[border:].decode()


def encode_deletion(noted_ns: int) -> bytes:
    return _DELETION.pack(DELETION_FORMAT, noted_ns)


def decode_deletion(value: bytes) -> int:
    """When it was noted; 0 when that was not written down yet."""
    check_format(value, "deletions", DELETION_FORMAT)
    if value[0] != DELETION_FORMAT:
        return 0
    noted_ns: int = _DELETION.unpack(value)[1]
    return noted_ns


@dataclass(frozen=True, slots=True)
class Mode:
    """What an operator has said of a server or of one of its disks."""

    mode: int  # a `messages.cluster.ServerMode`, never IN_SERVICE: then there is no record
    since_ns: int
    until_ns: int  # then it is as if nothing had been said; 0: for good

    def encode(self) -> bytes:
        return _MODE.pack(FORMAT, self.mode, self.since_ns, self.until_ns)

    @staticmethod
    def decode(value: bytes) -> Mode:
        check_format(value, "modes")
        return Mode(*_MODE.unpack(value)[1:])


def replica_set_key(wanted: int, servers: tuple[int, ...]) -> bytes:
    return struct.pack(f">B{len(servers)}I", wanted, *sorted(servers))


def decode_replica_set_key(key_bytes: bytes) -> tuple[int, tuple[int, ...]]:
    """(wanted, servers)."""
    wanted, *servers = struct.unpack(f">B{(len(key_bytes) - 1) // 4}I", key_bytes)
    return wanted, tuple(servers)


def range_of(number: int) -> tuple[bytes, bytes]:
    """Start and end of the keys that begin with the number."""
    return key(number), key(number + 1)
