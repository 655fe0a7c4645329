"""Who the masters are.

Writes the `members` table and the keys "founding", "format", "lineage" and "nonce" of `raft`
(`master.raft.formats`).
A change of membership is in force from the moment its entry is in the log, committed or not, and
out of force again when that entry is truncated; so the members in force are those of the table
(what is applied) with the log's later changes made to them. That sum is taken anew from disk at a
restart, so nothing uncommitted is forgotten (H17). One change at a time: the next is refused until
the one before is applied and this leader has committed an entry of its own term (H8).

A master is its id and the nonce of its disk. An id is never given out twice, so a known id with
another nonce is a master that lost its disk, and with it votes and entries it once acknowledged:
it must not take part again, but come back under a new id.
"""

from __future__ import annotations

from collections.abc import Iterable

from dfs.errors import Code, Failure
from dfs.runtime import Env
from master.raft import formats
from master.raft.formats import Member
from master.raft.journal import StoreJournal
from master.store import MEMBERS, META, Store


class Membership:
    """The members in force, kept up to date by the log."""

    def __init__(self, store: Store, journal: StoreJournal) -> None:
        self._store, self._journal = store, journal
        self.known: dict[int, Member] = {}  # removed ones included
        self.refresh(applied_index(store))

    @property
    def present(self) -> dict[int, Member]:
        """The members in force, by id."""
        return {id: member for id, member in self.known.items() if member.present}

    def is_member(self, id: int) -> bool:
        member = self.known.get(id)
        return member is not None and member.present

    def refresh(self, applied: int) -> None:
        """Take stock after the log or the applied index has changed."""
        self.known = {m.id: m for m in stored_members(self._store)}
        for change in _changes(self._journal, applied):
            _make(change, self.known)

    def apply(self, verb: str, member: Member) -> None:
        """Make a committed change to the table. A pure function of table and change."""
        table = {m.id: m for m in stored_members(self._store)}
        _make((verb, member), table)
        changed = table.get(member.id)
        if changed is not None:
            self._store.put(MEMBERS, *formats.pack_member(changed))

    def pending(self, applied: int) -> bool:
        """Whether a change is in the log and not applied."""
        return bool(_changes(self._journal, applied))

    def check_change(self, verb: str, member: Member) -> None:
        """Raises Failure CONFIG when the change makes no sense for the members there are."""
        known = self.known.get(member.id)
        if verb == formats.ADD and known is not None:
            state = "a member already" if known.present else "of a removed master; take a new id"
            raise Failure(Code.CONFIG, f"master id {member.id} is {state}")
        if verb == formats.REMOVE and not self.is_member(member.id):
            raise Failure(Code.CONFIG, f"no master has the id {member.id}")
        if verb == formats.REMOVE and len(self.present) == 1:
            raise Failure(Code.CONFIG, f"master {member.id} is the last one")


def refusal(known: dict[int, Member], id: int, nonce: bytes) -> str | None:
    """Why a master with that id and disk may not take part, None when it may."""
    member = known.get(id)
    if member is None or member.nonce == nonce:
        return None
    return (
        f"the disk of master {id} is not the one the cluster knows: a master that lost its disk "
        f"must come back under a new id: `dfs master remove {id}`, give it a new id in its "
        "configuration, empty its data_dir and start it, then `dfs master add NEW-ID ADDRESS` "
        "(docs/operations-metadata.md)"
    )


def outdated(mine: int, theirs: int, id: int) -> str | None:
    """Why a master of that other lineage may not take part, None when it is not older."""
    if theirs >= mine:
        return None
    return (
        f"the disk of master {id} is of the group of masters that was replaced by one founded "
        f"anew (lineage {mine}, it has {theirs}); what it holds is out of date: set its data_dir "
        f"aside, start it on an empty one, then `dfs master add {id} ADDRESS` "
        "(docs/operations-metadata.md)"
    )


def _changes(journal: StoreJournal, applied: int) -> list[tuple[str, Member]]:
    found = (formats.unpack_change(command) for command, _, _ in journal.after(applied))
    return [change for change in found if change is not None]


def _make(change: tuple[str, Member], members: dict[int, Member]) -> None:
    verb, member = change
    known = members.get(member.id)
    if verb == formats.ADD and known is None:
        members[member.id] = member
    elif verb == formats.REMOVE and known is not None:
        members[member.id] = Member(known.id, known.address, known.nonce, False)


# -- what is stored


def check_format(store: Store) -> None:
    """Raise Failure(DISK) unless the store is empty or of a format that this program knows."""
    found = store.get(META, b"format")
    if found is None and any(True for _ in store.scan(META)):
        raise Failure(Code.DISK, "the state file was not made by this program")
    if found is not None and found != formats.FORMAT:
        text = f"the state file is of format {found!r}, this program knows {formats.FORMAT!r}"
        raise Failure(Code.DISK, f"{text}: run the dfs that wrote it, or a newer one")


def claim(store: Store, env: Env) -> None:
    """Make an empty store this master's: its format, and a nonce for its disk. Raises Failure."""
    check_format(store)
    if store.get(META, b"format") is None:
        store.put(META, b"format", formats.FORMAT)
        store.put(META, b"nonce", env.random.token(formats.NONCE_BYTES))


def stored_members(store: Store) -> Iterable[Member]:
    return [formats.unpack_member(*pair) for pair in store.scan(MEMBERS)]


def applied_index(store: Store) -> int:
    """The log index up to which the state tables are applied; 1 in a new cluster."""
    stored = store.get(META, b"applied")
    return formats.unpack_u64(stored) if stored else 1


def founding(store: Store) -> bytes:
    """The packed members that the cluster began with; b"" before this master knows."""
    return store.get(META, b"founding") or b""


def lineage(store: Store) -> int:
    """Which group of masters this disk belongs to (`formats`)."""
    stored = store.get(META, b"lineage")
    return formats.unpack_u64(stored) if stored else 0


def take_lineage(store: Store, number: int) -> None:
    """Belong to that group."""
    if number:
        store.put(META, b"lineage", formats.pack_u64(number))


def found(store: Store, packed: bytes) -> None:
    """Begin with these members: what the state of index 1 is, on every master alike."""
    store.put(META, b"founding", packed)
    for member in formats.unpack_founding(packed):
        store.put(MEMBERS, *formats.pack_member(member))
