"""The whole state against itself: every invariant of the tables, in three passes.

Inode by inode, all tables whose keys begin with an inode's number side by side; then what is not
of an inode (handles, sessions, counters); then how many names lead to each inode (`links`). Memory
does not grow with the state but for what is left to be reaped and the different replica sets.

The state must not change meanwhile: give a copy, or tables that nobody writes to.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from dfs.layout import ROOT_INODE
from master import tables as names
from master.check import contents, findings
from master.check.contents import Chunks, Record
from master.check.findings import Event, Found, Kind, Unreadable, decoded
from master.check.links import check_links
from master.check.names import Names
from master.check.rows import Rows
from master.check.sessions import Leftovers, check_answers, check_orphans, check_sessions
from master.commands import AdjustCounts, MendRecords
from master.state import records
from master.state.records import Counters, Inode, key, key_number
from master.tables import Tables

WINDOW_INODES = 4 << 20  # counts of links held at a time, 4 bytes each
MISPLACED_MAX = 10_000  # names of directories that believe to be elsewhere, remembered

# Keys begin with an inode's number.
_OF_INODES = (
    names.INODES,
    names.DENTRIES,
    names.DIRINDEX,
    names.XATTRS,
    names.SYMLINKS,
    names.CHUNKS,
    names.TRIMS,
)


def check_state(tables: Tables, window: int = WINDOW_INODES) -> Iterator[Event]:
    """All findings, with the number of records gone over in between."""
    stored = tables.get(names.COUNTERS, records.COUNTERS_KEY)
    if stored is None:
        if any(next(tables.scan(table), None) for table in names.STATE_TABLES):
            yield Found(Kind.COUNTER, "the state has no counters: it cannot be served or mended")
        return  # or nothing has ever been changed
    try:
        counters = decoded(Counters.decode, stored)
    except Unreadable as why:
        yield findings.unreadable(names.COUNTERS, records.COUNTERS_KEY, why)
        return
    yield from _Pass(tables, counters, window).run()


@dataclass(slots=True)
class _Pass:
    """One check under way."""

    tables: Tables
    counters: Counters
    window: int
    inodes: int = 0
    sessions: int = 0
    top_inode: int = 0
    left: Leftovers = field(default_factory=Leftovers)

    def run(self) -> Iterator[Event]:
        tables = self.tables
        yield from check_orphans(tables, self.left)
        chunks = Chunks(tables, self.counters.next_handle)
        directories = Names(tables, MISPLACED_MAX)
        yield from self._inodes(directories, chunks)
        yield from chunks.check_handles()
        yield from self._deletions(chunks)
        yield from self._modes()
        yield from self._sessions()
        yield from check_answers(tables, self.left)
        yield from self._replica_sets(chunks)
        yield from self._counters(chunks)
        yield from check_links(tables, self.top_inode + 1, self.window, directories.misplaced)

    def _inodes(self, directories: Names, chunks: Chunks) -> Iterator[Event]:
        rows = {table: Rows(self.tables, table) for table in _OF_INODES}
        if rows[names.INODES].number != ROOT_INODE:
            yield Found(Kind.NO_ROOT, "there is no root directory")
        while numbers := [r.number for r in rows.values() if r.number is not None]:
            number = min(numbers)
            taken = {table: r.take(number) for table, r in rows.items()}
            inode: Inode | None = None
            readable = True
            for _, value in taken[names.INODES]:
                inode = yield from self._inode(number, value)
                readable = inode is not None
            if readable:
                yield from self._of_inode(number, inode, taken, directories, chunks)
            else:
                yield from self._of_unreadable(taken, chunks)

    def _of_inode(
        self,
        number: int,
        inode: Inode | None,
        taken: dict[str, Iterator[Record]],
        directories: Names,
        chunks: Chunks,
    ) -> Iterator[Event]:
        """All that belongs to one inode, or to a number that is none. Takes all of each."""
        yield from directories.check(number, inode, taken[names.DENTRIES], taken[names.DIRINDEX])
        yield from contents.check_xattrs(number, inode, taken[names.XATTRS])
        yield from contents.check_target(number, inode, taken[names.SYMLINKS])
        yield from chunks.check(number, inode, taken[names.CHUNKS])
        trims, noted = taken[names.TRIMS], self.left.trims
        yield from contents.check_trims(number, inode, trims, noted)

    def _of_unreadable(self, taken: dict[str, Iterator[Record]], chunks: Chunks) -> Iterator[Event]:
        """What belongs to an inode whose record cannot be read is not judged by it."""
        yield from chunks.count_only(taken[names.CHUNKS])
        for rows in taken.values():
            for _ in rows:
                yield 1

    def _inode(self, number: int, value: bytes) -> Generator[Event, None, Inode | None]:
        yield 1
        self.inodes += 1
        self.top_inode = max(self.top_inode, number)
        try:
            return decoded(lambda raw: Inode.decode(number, raw), value)
        except Unreadable as why:
            yield findings.unreadable(names.INODES, key(number), why, number)
            return None

    def _deletions(self, chunks: Chunks) -> Iterator[Event]:
        """They can be read, and were not noted in the future: their grace would never end."""
        for deletion_key, value in self.tables.scan(names.DELETIONS):
            yield 1
            server, handle = key_number(deletion_key), key_number(deletion_key, 8)
            chunks.top_handle = max(chunks.top_handle, handle)
            try:
                noted_ns = decoded(records.decode_deletion, value)
            except Unreadable as why:
                yield findings.unreadable(names.DELETIONS, deletion_key, why)
                continue
            if noted_ns > self.counters.now_ns:
                due = records.encode_deletion(self.counters.now_ns)
                change = findings.put(names.DELETIONS, deletion_key, value, due)
                text = f"chunkserver {server} is to delete {handle:x}, as noted in the future"
                mend = MendRecords((change,))
                yield Found(Kind.EARLY_NOTE, text, handle=handle, server=server, mend=mend)

    def _modes(self) -> Iterator[Event]:
        """What operators have said is about servers that there are."""
        for mode_key, value in self.tables.scan(names.MODES):
            yield 1
            server = key_number(mode_key)
            try:
                decoded(records.Mode.decode, value)
            except Unreadable as why:
                yield findings.unreadable(names.MODES, mode_key, why)
                continue
            if self.tables.get(names.SERVERS, key(server)) is None:
                change = findings.drop(names.MODES, mode_key, value)
                text = f"chunkserver {server} has a mode and is not in the registry"
                saved, mend = findings.saved(change), MendRecords((change,))
                yield Found(Kind.STRAY_MODE, text, server=server, mend=mend, saved=saved)

    def _sessions(self) -> Iterator[Event]:
        for event in check_sessions(self.tables):
            if isinstance(event, int):
                self.sessions += event
            yield event

    def _replica_sets(self, chunks: Chunks) -> Iterator[Found]:
        lack = dict(sorted(chunks.sets.items()))
        for set_key, value in self.tables.scan(names.REPLICA_SETS):
            try:
                count = decoded(records.decode_number, value)
            except Unreadable as why:
                yield findings.unreadable(names.REPLICA_SETS, set_key, why)
                count = lack.get(set_key, 0)
            lack[set_key] = lack.get(set_key, 0) - count
        for set_key, change in lack.items():
            if change:
                yield _set_count(set_key, chunks.sets[set_key], change)

    def _counters(self, chunks: Chunks) -> Iterator[Found]:
        now = self.counters
        inodes, sessions = self.inodes - now.inodes, self.sessions - now.sessions
        records_lack = chunks.count - now.chunks
        if inodes or sessions or records_lack:
            text = f"off by {-inodes} inodes, {-records_lack} chunks, {-sessions} sessions"
            mend = AdjustCounts(inodes, records_lack, sessions)
            yield Found(Kind.COUNTER, f"the counters are {text}", mend=mend)
        top = max(self.top_inode, self.left.top)
        if now.next_inode <= top:
            text = f"inode {top} is in use, and {now.next_inode} would be given out next"
            yield Found(Kind.COUNTER, text, mend=AdjustCounts(next_inode=top + 1))
        if now.next_handle <= chunks.top_handle:
            top = chunks.top_handle
            text = f"handle {top:x} is in use, and {now.next_handle:x} would be given out next"
            yield Found(Kind.COUNTER, text, mend=AdjustCounts(next_handle=top + 1))


def _set_count(set_key: bytes, count: int, change: int) -> Found:
    try:
        wanted, servers = decoded(records.decode_replica_set_key, set_key)
    except Unreadable:
        wanted, servers = 0, ()
    text = f"{count} chunks want {wanted} replicas and have them on {servers}: off by {-change}"
    mend = AdjustCounts(replica_sets=(set_key,), set_changes=(change,))
    return Found(Kind.REPLICA_SET_COUNT, text, mend=mend)
