"""Broken sessions: answers kept, what is open, when they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dfs.client.session import Session
from dfs.messages.operations import RemoveDirectory
from master.janitor import Janitor
from master.sessions import LiveSessions
from master.state import queries, records, sessions
from master.state.directories import enter, require_entry
from master.state.transaction import Transaction
from tests.simulation.mutants.kinds import mutant
from tests.simulation.mutants.metadata import _operation
from tests.simulation.taps import Taps

RESENT = ("lose_answers", "repeat_requests")


@mutant("namespace", "no error", "names are linearizable", seeds=3, faults=RESENT)
def forget_answers_at_once(taps: Taps) -> None:
    """Answers are deleted although the client has not said that it has them."""

    def purge(transaction: Transaction, session: records.Session, below: int, limit: int) -> None:
        original(transaction, session, session.top, limit)

    original = sessions._purge
    taps.replace(sessions, "_purge", purge)


@mutant("sessions", "what is due is done", "sessions", seeds=1, faults=("kill_client",))
def keep_sessions_for_ever(taps: Taps) -> None:
    """Sessions do not end however long nothing is heard of them."""
    taps.replace(LiveSessions, "expired", lambda self, now: [])


@mutant("sessions", "an open file", "sessions", "open files", seeds=1)
def lose_the_session_quietly(taps: Taps) -> None:
    """A client whose session has ended goes on with its open files under a new one."""

    def lose(original: Callable[..., None], self: Session, session: int) -> None:
        opens, on_lost = dict(self._opens), self.on_lost
        self.on_lost = lambda: None
        original(self, session)
        self._opens, self.on_lost = opens, on_lost

    taps.around(Session, "lose", lose)


@mutant("namespace", "names are linearizable", "fsck", seeds=2)
def remove_full_directories(taps: Taps) -> None:
    """rmdir removes a directory with what is in it."""

    def removed(
        original: Callable[..., Any], transaction: Transaction, operation: RemoveDirectory
    ) -> Any:
        parent = enter(transaction, operation.parent, operation.caller)
        entry = require_entry(transaction, parent, operation.name)
        victim = transaction.inode(entry.inode)
        entries, victim.entries = victim.entries, 0
        try:
            return original(transaction, operation)
        finally:
            victim.entries = entries

    _operation(taps, RemoveDirectory, removed)


@mutant("sessions", "sessions.early", seeds=1, seconds=10.0)
def end_sessions_too_early(taps: Taps) -> None:
    """Sessions end after a fifth of their time to live."""

    def init(original: Callable[..., None], self: LiveSessions, ttl_s: float) -> None:
        original(self, ttl_s / 5)

    taps.around(LiveSessions, "__init__", init)


@mutant("orphans", "open files", "no error", seeds=2, faults=("kill_leader",))
def reap_before_all_have_registered(taps: Taps) -> None:
    """A new leader reaps before every session has said what it has open."""
    taps.replace(LiveSessions, "all_registered", lambda self: True)

    def restart(self: Janitor) -> None:
        self._closed_since = dict.fromkeys(queries.orphans(self._tables, 100), -1000000000.0)
        original(self)

    original = Janitor.restart
    taps.replace(Janitor, "restart", restart)
