"""What must hold of the whole state at any time: checked by reading all of it.

Names and inodes agree in both directions, link counts and entry counts are true, every directory
is reached from its parent, chunks and handles are each other's inverse, every counter counts what
it says, and nothing belongs to something that is not there.
"""

from __future__ import annotations

import stat
from collections import Counter

from dfs.layout import ROOT_INODE
from master import tables as names
from master.state import records
from master.state.records import (
    Chunk,
    Counters,
    Inode,
    Mode,
    Orphan,
    OrphanKind,
    Session,
    key2,
    key_number,
)
from master.tables import Tables


class Contents:
    """The whole state, decoded."""

    def __init__(self, tables: Tables) -> None:
        scan = tables.scan
        self.inodes = {key_number(k): Inode.decode(key_number(k), v) for k, v in scan(names.INODES)}
        self.dentries = {
            (key_number(k), k[8:]): records.decode_entry(v) for k, v in scan(names.DENTRIES)
        }
        self.dirindex = {
            (key_number(k), key_number(k, 8)): records.decode_index(v)
            for k, v in scan(names.DIRINDEX)
        }
        self.chunks = {
            (key_number(k), key_number(k, 8)): Chunk.decode(v) for k, v in scan(names.CHUNKS)
        }
        self.handles = {key_number(k): records.decode_handle(v) for k, v in scan(names.HANDLES)}
        self.trims = {
            (key_number(k), key_number(k, 8)): records.decode_number(v)
            for k, v in scan(names.TRIMS)
        }
        self.orphans = {key_number(k): Orphan.decode(v) for k, v in scan(names.ORPHANS)}
        self.replica_sets = {k: records.decode_number(v) for k, v in scan(names.REPLICA_SETS)}
        self.deletions = {
            (key_number(k), key_number(k, 8)): records.decode_deletion(v)
            for k, v in scan(names.DELETIONS)
        }
        self.servers = {key_number(k): records.decode_server(v) for k, v in scan(names.SERVERS)}
        self.modes = {(key_number(k), k[8:]): Mode.decode(v) for k, v in scan(names.MODES)}
        self.xattrs = {
            (key_number(k), k[8:]): records.decode_blob(v) for k, v in scan(names.XATTRS)
        }
        self.symlinks = {key_number(k): records.decode_blob(v) for k, v in scan(names.SYMLINKS)}
        self.sessions = {
            key_number(k): Session.decode(key_number(k), v) for k, v in scan(names.SESSIONS)
        }
        self.answers = sorted((key_number(k), key_number(k, 8)) for k, _ in scan(names.ANSWERS))
        stored = tables.get(names.COUNTERS, records.COUNTERS_KEY)
        assert stored is not None
        self.counters = Counters.decode(stored)


def check(tables: Tables) -> None:
    """Raise AssertionError where the state contradicts itself."""
    contents = Contents(tables)
    _check_names(contents)
    _check_links(contents)
    _check_tree(contents)
    _check_chunks(contents)
    _check_inode_contents(contents)
    _check_counters(contents)
    _check_orphans(contents)
    _check_sessions(contents)


def _check_names(contents: Contents) -> None:
    both = {(p, cookie): (inode, name) for (p, name), (inode, cookie) in contents.dentries.items()}
    assert both == contents.dirindex
    for (parent, name), (inode, cookie) in contents.dentries.items():
        directory = contents.inodes[parent]
        assert stat.S_ISDIR(directory.mode)
        assert directory.nlink, f"removed directory {parent} has {name!r}"
        assert inode in contents.inodes
        assert records.FIRST_COOKIE <= cookie < directory.next_cookie
        assert 0 < len(name) <= 255
        assert name not in (b".", b"..")


def _check_links(contents: Contents) -> None:
    links = Counter(inode for inode, _ in contents.dentries.values())
    entries = Counter(parent for parent, _ in contents.dentries)
    subdirectories = Counter(
        parent
        for (parent, _), (inode, _) in contents.dentries.items()
        if stat.S_ISDIR(contents.inodes[inode].mode)
    )
    for number, inode in contents.inodes.items():
        assert inode.entries == entries[number]
        if not stat.S_ISDIR(inode.mode):
            assert inode.nlink == links[number]
        elif number == ROOT_INODE or links[number]:
            assert inode.nlink == 2 + subdirectories[number]
        else:
            assert inode.nlink == 0


def _check_tree(contents: Contents) -> None:
    """Every living directory has one name, in the parent that it knows, below the root."""
    parents = {
        inode: parent
        for (parent, _), (inode, _) in contents.dentries.items()
        if stat.S_ISDIR(contents.inodes[inode].mode)
    }
    assert contents.inodes[ROOT_INODE].parent == ROOT_INODE
    for number, parent in parents.items():
        assert contents.inodes[number].parent == parent
        at, seen = number, set[int]()
        while at != ROOT_INODE:
            assert at not in seen, f"directory {number} is in a loop"
            seen.add(at)
            at = parents[at]


def _check_chunks(contents: Contents) -> None:
    assert contents.handles == {c.handle: place for place, c in contents.chunks.items()}
    per_inode = Counter(inode for inode, _ in contents.chunks)
    for number, inode in contents.inodes.items():
        assert inode.chunks == per_inode[number]
    assert set(per_inode) <= set(contents.inodes)
    sets = Counter(records.replica_set_key(c.wanted, c.servers) for c in contents.chunks.values())
    assert contents.replica_sets == dict(sets)
    for chunk in contents.chunks.values():
        assert chunk.servers
        assert len(set(chunk.servers)) == len(chunk.servers)
        assert not {(s, chunk.handle) for s in chunk.servers} & set(contents.deletions)
    assert all(noted <= contents.counters.now_ns for noted in contents.deletions.values())
    assert {server for server, _ in contents.modes} <= set(contents.servers)


def _check_inode_contents(contents: Contents) -> None:
    for number, inode in contents.inodes.items():
        found = {name: v for (i, name), v in contents.xattrs.items() if i == number}
        assert inode.xattr_names_bytes == sum(len(name) + 1 for name in found)
        assert inode.xattr_values_bytes == sum(len(value) for value in found.values())
        assert stat.S_ISLNK(inode.mode) == (number in contents.symlinks)
        if number in contents.symlinks:
            assert inode.size_bytes == len(contents.symlinks[number])
    assert {i for i, _ in contents.xattrs} <= set(contents.inodes)
    assert set(contents.symlinks) <= set(contents.inodes)


def _check_counters(contents: Contents) -> None:
    counters = contents.counters
    assert counters.inodes == len(contents.inodes)
    assert counters.chunks == len(contents.chunks)
    assert counters.sessions == len(contents.sessions)
    assert counters.next_inode > max([*contents.inodes, *contents.orphans])
    assert counters.next_handle > max([0, *contents.handles, *(h for _, h in contents.deletions)])


def _check_orphans(contents: Contents) -> None:
    unlinked = {number for number, inode in contents.inodes.items() if inode.nlink == 0}
    kinds = OrphanKind
    assert unlinked == {n for n, o in contents.orphans.items() if o.kind == kinds.INODE}
    trims = {(o.first, o.second) for o in contents.orphans.values() if o.kind == kinds.TRIM}
    assert trims == set(contents.trims)
    per_inode = Counter(inode for inode, _ in contents.trims)
    for number, inode in contents.inodes.items():
        assert inode.trims == per_inode[number]


def _check_sessions(contents: Contents) -> None:
    ended = {
        (o.first, sequence)
        for o in contents.orphans.values()
        if o.kind == OrphanKind.ANSWERS
        for sequence in range(o.second, o.third)
    }
    for number, sequence in contents.answers:
        session = contents.sessions.get(number)
        if session is None:
            assert (number, sequence) in ended, f"answer {key2(number, sequence)!r} of nobody"
        else:
            assert session.purged_below <= sequence < session.top
