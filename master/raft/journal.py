"""The Raft log, the term and the vote: in memory for pysyncobj, in the `Store` for the disk.

Written by this module: the tables `journal` and, of `raft`, the keys "term" and "commit"
(`master.raft.formats` describes both). Everything goes into the store's overlay, next to the
state that the log produces; `dirty` says that it holds what a message may assert (an entry, a
term, a vote) and that no flush has begun since. The caller flushes before such a message leaves.

Stock pysyncobj writes its journal to an mmap without sync, rewrites it in place when trimming and
counts in 32 bits (H15), and trims to two entries, so that every lagging follower needs a whole
snapshot (H16): `trim` keeps as much as it is told to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

from pysyncobj.journal import Journal

from master.raft import formats
from master.raft.formats import Entry
from master.store import JOURNAL, META, Store

_TRIM_SLICE = 512  # entries deleted at a time, so that no flush carries them all
_MIN_ENTRIES = 2  # pysyncobj looks at the first two


class StoreJournal(Journal):  # type: ignore[misc]  # pysyncobj has no annotations
    """The log as a list of (command, index, term); index 0 of the list is the oldest kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._entries = [formats.unpack_entry(*pair) for pair in store.scan(JOURNAL)]
        self.size_bytes = sum(len(entry[0]) for entry in self._entries)
        vote = store.get(META, b"term")
        self._term, self._vote = formats.unpack_vote(vote) if vote else (0, None)
        commit = store.get(META, b"commit")
        self._commit = formats.unpack_u64(commit) if commit else 1
        self.dirty = False
        self.on_membership: Callable[[], None] = _nothing  # an entry of that kind came or went

    # -- what this package asks

    @property
    def first_index(self) -> int:
        return self._entries[0][1]

    @property
    def last_index(self) -> int:
        return self._entries[-1][1]

    @property
    def last_term(self) -> int:
        return self._entries[-1][2]

    def entry(self, index: int) -> Entry | None:
        """The entry of that index, None when it is not (or no longer) here."""
        position = index - self._entries[0][1]
        return self._entries[position] if 0 <= position < len(self._entries) else None

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry of that index is here and of that term."""
        entry = self.entry(index)
        return entry is not None and entry[2] == term

    def after(self, index: int) -> list[Entry]:
        """Entries beyond that index."""
        return self._entries[max(0, index + 1 - self._entries[0][1]) :]

    def first_of_term(self, index: int) -> int:
        """The oldest index here whose entry, and all up to `index`, are of the term at `index`."""
        position = index - self._entries[0][1]
        term = self._entries[position][2]
        while position > 0 and self._entries[position - 1][2] == term:
            position -= 1
        return self._entries[position][1]

    def problem(self, applied: int) -> str | None:
        """Why this log cannot belong to a state applied up to that index, None when it can."""
        for previous, entry in zip(self._entries, self._entries[1:], strict=False):
            if entry[1] != previous[1] + 1 or entry[2] < previous[2]:
                return f"entry {entry[1]} of term {entry[2]} follows {previous[1:]} in the journal"
        if self._entries and not self.first_index <= applied <= self.last_index:
            held = f"{self.first_index} to {self.last_index}"
            return f"the state is applied up to {applied}, the journal holds {held}"
        return None if self._entries or applied == 1 else "the journal is missing"

    def trim(self, below: int) -> None:
        """Drop entries before that index, a slice at a time; it must be applied."""
        excess = min(below - self.first_index, _TRIM_SLICE, len(self._entries) - _MIN_ENTRIES)
        if excess > 0:
            self._forget(self._entries[:excess])
            del self._entries[:excess]

    def _forget(self, entries: Iterable[Entry]) -> None:
        for command, index, _ in entries:
            self._store.delete(JOURNAL, formats.pack_u64(index))
            self.size_bytes -= len(command)

    # -- what pysyncobj asks

    def add(self, command: bytes, idx: int, term: int) -> None:
        entry = (command, idx, term)
        self._entries.append(entry)
        self._store.put(JOURNAL, *formats.pack_entry(entry))
        self.size_bytes += len(command)
        self.dirty = True
        if command[0] == formats.MEMBERSHIP:
            self.on_membership()

    def clear(self) -> None:
        self.deleteEntriesFrom(0)

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        dropped = self._entries[entryFrom:]
        self._forget(dropped)
        del self._entries[entryFrom:]
        self.dirty = True
        if any(command[0] == formats.MEMBERSHIP for command, _, _ in dropped):
            self.on_membership()

    def deleteEntriesTo(self, entryTo: int) -> None:
        raise NotImplementedError("the log is trimmed by `trim`")

    @overload
    def __getitem__(self, item: int) -> Entry: ...

    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...

    def __getitem__(self, item: Any) -> Any:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def _destroy(self) -> None:
        pass

    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:
        self._term, self._vote = term, votedForNodeId
        self._store.put(META, b"term", formats.pack_vote(term, votedForNodeId))
        self.dirty = True

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> int | None:
        return self._vote

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        if raftCommitIndex != self._commit:  # only a hint at restart: it rides along, never waits
            self._commit = raftCommitIndex
            self._store.put(META, b"commit", formats.pack_u64(raftCommitIndex))

    def getRaftCommitIndex(self) -> int:
        return self._commit


def _nothing() -> None:
    pass
