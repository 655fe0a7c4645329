"""The state while one batch of commands is applied to it.

Owns the records that one batch touches again and again (inodes, counters, sessions, counts of
replica sets): they are decoded once, changed in place, and written back once by `commit`. All
other tables are written straight through, so they may be read from `tables` at any time.

Invariant: an operation refuses before its first change. There is no roll-back.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator

from dfs.layout import ROOT_INODE
from master import tables as names
from master.state import records
from master.state.records import Counters, Inode, Orphan, OrphanKind, Session, key
from master.state.refusals import refusal
from master.tables import Tables


class Transaction:
    """One batch under way. `now_ns` is the time at which all of it happens."""

    __slots__ = (
        "_changed_inodes",
        "_changed_sessions",
        "_inodes",
        "_replica_sets",
        "_sessions",
        "counters",
        "now_ns",
        "tables",
    )

    def __init__(self, tables: Tables, now_ns: int) -> None:
        self.tables = tables
        self._inodes: dict[int, Inode | None] = {}
        self._changed_inodes: dict[int, Inode] = {}
        self._sessions: dict[int, Session | None] = {}
        self._changed_sessions: dict[int, Session] = {}
        self._replica_sets: dict[bytes, int] = {}
        stored = tables.get(names.COUNTERS, records.COUNTERS_KEY)
        if stored is None:
            self.counters = Counters(ROOT_INODE, 1, now_ns, 0, 0, 0)
            self.now_ns = now_ns
            self._format()
        else:
            self.counters = Counters.decode(stored)
            self.now_ns = max(now_ns, self.counters.now_ns)

    def _format(self) -> None:
        """An empty state becomes one with a root directory; kept if this batch changes anything."""
        root = self.new_inode(stat.S_IFDIR | 0o755, 0, 0)
        root.nlink = 2
        root.parent = ROOT_INODE
        root.next_cookie = records.FIRST_COOKIE
        root.size_bytes = records.DIRECTORY_SIZE_BYTES

    # -- inodes

    def find_inode(self, number: int) -> Inode | None:
        """The inode, shared with all who ask in this batch, or None."""
        try:
            return self._inodes[number]
        except KeyError:
            pass
        inode = None
        if 0 < number < records.NUMBER_END:
            stored = self.tables.get(names.INODES, key(number))
            inode = None if stored is None else Inode.decode(number, stored)
        self._inodes[number] = inode
        return inode

    def inode(self, number: int) -> Inode:
        """The inode. Raises ENOENT."""
        inode = self.find_inode(number)
        if inode is None:
            raise refusal(errno.ENOENT, f"inode {number}")
        return inode

    def changed(self, inode: Inode) -> None:
        """Note that the inode's record has to be written."""
        self._changed_inodes[inode.number] = inode

    def new_inode(self, mode: int, uid: int, gid: int, rdev: int = 0) -> Inode:
        """A fresh inode without links, all times now."""
        number, now = self.take_number(), self.now_ns
        inode = Inode(
            number, mode, 0, uid, gid, rdev, 0, now, now, now, now, 1, 0, 0, 0, 0, 0, 0, 0, 0
        )
        self._inodes[number] = self._changed_inodes[number] = inode
        self.counters.inodes += 1
        return inode

    def take_number(self) -> int:
        """An inode number that was never used."""
        number = self.counters.next_inode
        self.counters.next_inode = number + 1
        return number

    def forget_inode(self, number: int) -> None:
        """The inode's record goes."""
        self._inodes[number] = None
        self._changed_inodes.pop(number, None)
        self.tables.delete(names.INODES, key(number))
        self.counters.inodes -= 1

    def drop_link(self, inode: Inode) -> None:
        """One name less; without any (a directory has one), the inode is an orphan."""
        inode.nlink = 0 if stat.S_ISDIR(inode.mode) else inode.nlink - 1
        inode.ctime_ns = self.now_ns
        self._changed_inodes[inode.number] = inode
        if inode.nlink == 0:
            self.add_orphan(inode.number, Orphan(OrphanKind.INODE))

    def add_orphan(self, number: int, orphan: Orphan) -> None:
        self.tables.put(names.ORPHANS, key(number), orphan.encode())

    # -- sessions

    def find_session(self, number: int) -> Session | None:
        try:
            return self._sessions[number]
        except KeyError:
            pass
        session = None
        if 0 < number < records.NUMBER_END:
            stored = self.tables.get(names.SESSIONS, key(number))
            session = None if stored is None else Session.decode(number, stored)
        self._sessions[number] = session
        return session

    def put_session(self, session: Session) -> None:
        """The session is new or changed."""
        self._sessions[session.number] = self._changed_sessions[session.number] = session

    def forget_session(self, number: int) -> None:
        self._sessions[number] = None
        self._changed_sessions.pop(number, None)
        self.tables.delete(names.SESSIONS, key(number))

    # -- replica sets

    def count_replica_set(self, wanted: int, servers: tuple[int, ...], change: int) -> None:
        """So many chunks more have these replicas."""
        self.adjust_replica_set(records.replica_set_key(wanted, servers), change)

    def adjust_replica_set(self, set_key: bytes, change: int) -> None:
        """The same for a key of the table."""
        self._replica_sets[set_key] = self.replica_set_count(set_key) + change

    def replica_set_count(self, set_key: bytes) -> int:
        """How many chunks have these replicas."""
        if set_key not in self._replica_sets:
            stored = self.tables.get(names.REPLICA_SETS, set_key)
            return 0 if stored is None else records.decode_number(stored)
        return self._replica_sets[set_key]

    def replica_sets(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """(wanted, servers) of every set that some chunk has, as of now."""
        pending = dict(self._replica_sets)
        for set_key, _ in self.tables.scan(names.REPLICA_SETS):
            if pending.pop(set_key, 1):
                yield records.decode_replica_set_key(set_key)
        for set_key, count in pending.items():
            if count:
                yield records.decode_replica_set_key(set_key)

    # -- the end

    def commit(self) -> None:
        """Write back what was changed in place."""
        put = self.tables.put
        for number, inode in self._changed_inodes.items():
            put(names.INODES, key(number), inode.encode())
        for number, session in self._changed_sessions.items():
            put(names.SESSIONS, key(number), session.encode())
        for set_key, count in self._replica_sets.items():
            if count:
                put(names.REPLICA_SETS, set_key, records.encode_number(count))
            else:
                self.tables.delete(names.REPLICA_SETS, set_key)
        self.counters.now_ns = self.now_ns
        put(names.COUNTERS, records.COUNTERS_KEY, self.counters.encode())
        put(names.SETTINGS, records.FORMAT_KEY, records.encode_blob(b""))
