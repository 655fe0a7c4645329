"""Reading the state: pure functions over the tables, for the leader's services.

Errors are `Failure` with the errno of the corresponding system call. Permissions are checked only
where a query takes the caller; elsewhere the client's kernel has done so.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice

from dfs.layout import NAME_MAX_BYTES
from dfs.messages.common import Attributes, Credentials
from dfs.messages.metadata import ChunkMap, DirectoryEntry, DirectoryPage
from master import tables as names
from master.state import chunkmap, digest, records, xattrs
from master.state.chunkmap import server_entry as server_entry
from master.state.records import Chunk, Counters, Inode, Mode, Session, key, key2, key_number
from master.state.refusals import check_regular, refusal
from master.tables import STATE_TABLES, Tables

DOT_COOKIE, DOTDOT_COOKIE = 1, 2

# -- inodes and directories


def find_inode(tables: Tables, number: int) -> Inode | None:
    """The inode's record, or None."""
    if not 0 < number < records.NUMBER_END:
        return None
    stored = tables.get(names.INODES, key(number))
    return None if stored is None else Inode.decode(number, stored)


def inode_record(tables: Tables, number: int) -> Inode:
    """The inode's record. Raises ENOENT."""
    inode = find_inode(tables, number)
    if inode is None:
        raise refusal(errno.ENOENT, f"inode {number}")
    return inode


def attributes(tables: Tables, inode: int) -> Attributes:
    """stat(2). Raises ENOENT."""
    return inode_record(tables, inode).attributes()


def _directory(tables: Tables, number: int) -> Inode:
    inode = inode_record(tables, number)
    if not stat.S_ISDIR(inode.mode):
        raise refusal(errno.ENOTDIR, f"inode {number}")
    return inode


def lookup(tables: Tables, parent: int, name: bytes) -> Attributes:
    """The attributes of a name; `.` and `..` too. Raises ENOENT, ENOTDIR, ENAMETOOLONG."""
    directory = _directory(tables, parent)
    if name == b".":
        return directory.attributes()
    if name == b"..":
        return attributes(tables, directory.parent)
    if len(name) > NAME_MAX_BYTES:
        raise refusal(errno.ENAMETOOLONG, f"name of {len(name)} bytes")
    stored = tables.get(names.DENTRIES, key(parent) + name)
    if stored is None:
        raise refusal(errno.ENOENT, f"name {name!r} in directory {parent}")
    return attributes(tables, records.decode_entry(stored)[0])


def read_directory(tables: Tables, inode: int, after_cookie: int, limit: int) -> DirectoryPage:
    """Up to `limit` (at least 1) entries after the cookie. A removed directory has none.

    Raises ENOENT, ENOTDIR.
    """
    directory = _directory(tables, inode)
    if directory.nlink == 0:
        return DirectoryPage((), True)
    dots = _dots(tables, directory) if after_cookie < DOTDOT_COOKIE else ()
    entries = [dot for dot in dots if dot.cookie > after_cookie][:limit]
    after = min(max(after_cookie, DOTDOT_COOKIE), records.NUMBER_END)
    start, end = key2(inode, after + 1), key(inode + 1)
    room = max(limit, 1) - len(entries)
    found = list(islice(tables.scan(names.DIRINDEX, start, end), room + 1))
    for index_key, value in found[:room]:
        number, name = records.decode_index(value)
        entries.append(DirectoryEntry(name, key_number(index_key, 8), attributes(tables, number)))
    return DirectoryPage(tuple(entries), len(found) <= room)


def _dots(tables: Tables, directory: Inode) -> tuple[DirectoryEntry, DirectoryEntry]:
    parent = inode_record(tables, directory.parent)
    return (
        DirectoryEntry(b".", DOT_COOKIE, directory.attributes()),
        DirectoryEntry(b"..", DOTDOT_COOKIE, parent.attributes()),
    )


def read_link(tables: Tables, inode: int) -> bytes:
    """readlink(2). Raises ENOENT, EINVAL."""
    stored = tables.get(names.SYMLINKS, key(inode_record(tables, inode).number))
    if stored is None:
        raise refusal(errno.EINVAL, f"inode {inode} is no symlink")
    return records.decode_blob(stored)


def get_xattr(tables: Tables, inode: int, name: bytes, caller: Credentials) -> bytes:
    """getxattr(2). Raises ENOENT, ENODATA, EACCES, EOPNOTSUPP, ERANGE (the name's length)."""
    xattrs.check_name_length(name)
    record = inode_record(tables, inode)
    xattrs.check_may_read(record, name, caller)
    value = xattrs.find(tables, record, name)
    if value is None:
        raise refusal(errno.ENODATA, f"attribute {name!r} of inode {inode}")
    return value


def list_xattrs(tables: Tables, inode: int, caller: Credentials) -> tuple[bytes, ...]:
    """listxattr(2): the names that the caller may know of, sorted. Raises ENOENT."""
    if not inode_record(tables, inode).xattr_names_bytes:
        return ()
    found = (k[8:] for k, _ in tables.scan(names.XATTRS, *records.range_of(inode)))
    return tuple(name for name in found if xattrs.is_visible(name, caller))


# -- chunks


def chunk_map(tables: Tables, inode: int, first_index: int, count: int) -> ChunkMap:
    """The chunks that exist in the range. Raises ENOENT, EISDIR, EINVAL (no regular file)."""
    record = inode_record(tables, inode)
    check_regular(record)
    return chunkmap.describe(tables, record, first_index, count)


def chunk_by_handle(tables: Tables, handle: int) -> tuple[int, int, Chunk] | None:
    """(inode, index, chunk), or None. Also of a chunk that is cut off and not yet reaped."""
    if not 0 < handle < records.NUMBER_END:
        return None
    stored = tables.get(names.HANDLES, key(handle))
    if stored is None:
        return None
    inode, index = records.decode_handle(stored)
    value = tables.get(names.CHUNKS, key2(inode, index))
    return None if value is None else (inode, index, Chunk.decode(value))


def replica_version(tables: Tables, handle: int, server: int) -> int | None:
    """The version that the server's replica of the chunk should have; None: it should have none."""
    found = chunk_by_handle(tables, handle)
    if found is None or server not in found[2].servers:
        return None
    return found[2].version


def replica_sets(tables: Tables) -> Iterator[tuple[int, tuple[int, ...], int]]:
    """(wanted, sorted servers, number of chunks) of every set that there is."""
    for set_key, value in tables.scan(names.REPLICA_SETS):
        yield *records.decode_replica_set_key(set_key), records.decode_number(value)


def chunks_after(
    tables: Tables, after: tuple[int, int], limit: int
) -> tuple[tuple[int, int, Chunk], ...]:
    """Up to `limit` (inode, index, chunk) behind that inode and index, in the order of both."""
    start = key2(*after) + b"\0"
    found = islice(tables.scan(names.CHUNKS, start), limit)
    return tuple((key_number(k), key_number(k, 8), Chunk.decode(v)) for k, v in found)


def under_replicated(tables: Tables, alive: Collection[int], copies: int | None = None) -> int:
    """How many chunks have fewer replicas on those servers than they should.

    They should have `copies`, or by default as many as was wanted at allocation. Costs as much as
    there are different replica sets, not chunks.
    """
    lacking, living = 0, frozenset(alive)
    for wanted, servers, count in replica_sets(tables):
        if sum(server in living for server in servers) < (copies or wanted):
            lacking += count
    return lacking


# -- bookkeeping


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of records. `inodes` and `chunks` include what is still to be reaped."""

    inodes: int
    chunks: int
    sessions: int


def counts(tables: Tables) -> Counts:
    """The counters that the state keeps."""
    stored = tables.get(names.COUNTERS, records.COUNTERS_KEY)
    if stored is None:
        return Counts(0, 0, 0)
    counters = Counters.decode(stored)
    return Counts(counters.inodes, counters.chunks, counters.sessions)


@dataclass(frozen=True, slots=True)
class Redundancy:
    """How many chunks have fewer living replicas than they should."""

    lacking: int  # those below included
    endangered: int  # one, though more are wanted
    unreadable: int  # none


def redundancy(tables: Tables, alive: Collection[int]) -> Redundancy:
    """What the chunks lack when only these servers live; costs as `under_replicated` does."""
    lacking, endangered, unreadable, living = 0, 0, 0, frozenset(alive)
    for set_key, value in tables.scan(names.REPLICA_SETS):
        wanted, servers = records.decode_replica_set_key(set_key)
        count, left = records.decode_number(value), sum(server in living for server in servers)
        if left < wanted:
            lacking += count
            endangered += count * (left == 1)
            unreadable += count * (left == 0)
    return Redundancy(lacking, endangered, unreadable)


def sessions(tables: Tables) -> tuple[int, ...]:
    """The sessions' numbers."""
    return tuple(key_number(k) for k, _ in tables.scan(names.SESSIONS))


def session(tables: Tables, number: int) -> Session | None:
    """One session, or None."""
    if not 0 < number < records.NUMBER_END:
        return None
    stored = tables.get(names.SESSIONS, key(number))
    return None if stored is None else Session.decode(number, stored)


def orphans(tables: Tables, limit: int, after: int = 0) -> tuple[int, ...]:
    """Up to `limit` orphans with a number above `after`, rising."""
    found = tables.scan(names.ORPHANS, key(after + 1))
    return tuple(key_number(k) for k, _ in islice(found, limit))


def deletions(
    tables: Tables, server: int, limit: int, after: int = 0
) -> tuple[tuple[int, int], ...]:
    """Up to `limit` chunks, with a handle above `after`, whose replicas the server should delete.

    (handle, time in ns when it was noted) each, by handle.
    """
    if not 0 <= server < records.SERVER_END:
        return ()
    found = tables.scan(names.DELETIONS, key2(server, after + 1), key(server + 1))
    return tuple((key_number(k, 8), records.decode_deletion(v)) for k, v in islice(found, limit))


def deletion_noted(tables: Tables, server: int, handle: int) -> int | None:
    """When, in ns, it was noted that this replica is to be deleted; None: it is not."""
    stored = tables.get(names.DELETIONS, key2(server, handle))
    return None if stored is None else records.decode_deletion(stored)


def modes(tables: Tables) -> dict[tuple[int, str], Mode]:
    """What operators have said, by (server, path of the disk or "")."""
    return {(key_number(k), k[8:].decode()): Mode.decode(v) for k, v in tables.scan(names.MODES)}


def active_modes(tables: Tables, now_ns: int) -> dict[tuple[int, str], Mode]:
    """Those that are not over yet."""
    found = modes(tables)
    return {k: m for k, m in found.items() if not m.until_ns or now_ns < m.until_ns}


def servers(tables: Tables) -> tuple[tuple[int, str, str], ...]:
    """(id, address, zone) of every registered chunkserver, by id."""
    return tuple(
        (key_number(k), *records.decode_server(value)) for k, value in tables.scan(names.SERVERS)
    )


def state_digest(tables: Tables) -> str:
    """The hash of every key and value of every table, see `master.state.digest`."""
    state = digest.StateDigest()
    for table in STATE_TABLES:
        state.table(table)
        for k, value in tables.scan(table):
            state.records(digest.pack(k, value))
    return state.hex()
