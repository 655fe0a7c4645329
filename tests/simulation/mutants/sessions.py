"""Broken sessions: answers kept, what is open, when they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dfs.client.session import Session
from dfs.messages.operations import RemoveDirectory
from master.sessions import LiveSessions
from master.state import records, sessions
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
