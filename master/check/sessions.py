"""What is left to be reaped, and the answers kept for sessions.

Both tables of work to be done (`orphans`, and of it what is about trims and ended sessions) are
small as a rule: what is held of them here is as large as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from master import tables as names
from master.check import findings
from master.check.findings import Event, Found, Kind, Unreadable, decoded
from master.check.rows import Rows
from master.commands import MendRecords
from master.state import records
from master.state.records import Orphan, OrphanKind, Session, key, key2, key_number
from master.tables import Tables


@dataclass(slots=True)
class Leftovers:
    """What the orphans' table says is to be reaped beside inodes."""

    trims: dict[tuple[int, int], None] = field(default_factory=dict)  # (inode, epoch)
    answers: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # session -> ranges
    top: int = 0  # the highest number that is used


def check_orphans(tables: Tables, left: Leftovers) -> Iterator[Event]:
    """Every note is about something that is there; fills `left`."""
    for orphan_key, value in tables.scan(names.ORPHANS):
        yield 1
        number = key_number(orphan_key)
        left.top = max(left.top, number)
        try:
            orphan = decoded(Orphan.decode, value)
        except Unreadable as why:
            yield findings.unreadable(names.ORPHANS, orphan_key, why)
            continue
        change = findings.drop(names.ORPHANS, orphan_key, value)
        if orphan.kind == OrphanKind.ANSWERS:
            left.answers.setdefault(orphan.first, []).append((orphan.second, orphan.third))
        elif orphan.kind == OrphanKind.TRIM:
            yield from _check_trim(tables, orphan, left)
        elif orphan.kind != OrphanKind.INODE or tables.get(names.INODES, key(number)) is None:
            text = f"orphan {number} of kind {orphan.kind} is nothing that could be freed"
            saved, mend = findings.saved(change), MendRecords((change,))
            yield Found(Kind.FALSE_ORPHAN, text, inode=number, mend=mend, saved=saved)


def _check_trim(tables: Tables, orphan: Orphan, left: Leftovers) -> Iterator[Found]:
    place = (orphan.first, orphan.second)
    left.trims[place] = None
    if tables.get(names.TRIMS, key2(*place)) is None:
        text = f"trim {orphan.second} of inode {orphan.first} is to be reaped and not there"
        due = records.encode_number(orphan.third)
        mend = MendRecords((findings.put(names.TRIMS, key2(*place), None, due),))
        yield Found(Kind.STRAY_TRIM, text, inode=orphan.first, mend=mend)


def check_answers(tables: Tables, left: Leftovers) -> Iterator[Event]:
    """Every answer belongs to a session that may still ask for it, or is to be reaped."""
    rows = Rows(tables, names.ANSWERS)
    while (number := rows.number) is not None:
        session = _session(tables, number)
        ranges = left.answers.get(number, [])
        if session is not None:
            ranges = [(session.purged_below, session.top)]
        for rest, value in rows.take(number):
            yield 1
            sequence = key_number(rest)
            if not any(first <= sequence < end for first, end in ranges):
                yield _stray(number, sequence, value)


def _stray(session: int, sequence: int, value: bytes) -> Found:
    text = f"answer {sequence} of session {session:#x} is one that nobody can ask for"
    change = findings.drop(names.ANSWERS, key2(session, sequence), value)
    saved, mend = findings.saved(change), MendRecords((change,))
    return Found(Kind.STRAY_ANSWER, text, mend=mend, saved=saved)


def _session(tables: Tables, number: int) -> Session | None:
    stored = tables.get(names.SESSIONS, key(number))
    if stored is None:
        return None
    try:
        return decoded(lambda value: Session.decode(number, value), stored)
    except Unreadable:
        return None  # told of by `check_sessions`


def check_sessions(tables: Tables) -> Iterator[Event]:
    """Every session can be read. The last event is their number, as ticks are."""
    for session_key, value in tables.scan(names.SESSIONS):
        yield 1
        try:
            decoded(lambda raw: Session.decode(0, raw), value)
        except Unreadable as why:
            yield findings.unreadable(names.SESSIONS, session_key, why)
