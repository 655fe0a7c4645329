"""Broken state: exactly once, names, links, deletions, sessions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from dfs.messages.operations import Create, Operation, Unlink
from dfs.runtime.current import current_env
from master.deletions import Deletions
from master.sessions import LiveSessions
from master.state import chunks, machine, renaming, replicas, sessions
from master.state.transaction import Transaction
from tests.simulation.mutants.kinds import mutant
from tests.simulation.taps import Taps


def _operation(
    taps: Taps, kind: type, wrapper: Callable[[Callable[..., Any], Transaction, Any], Any]
) -> None:
    """Carry out operations of a kind otherwise."""
    original = machine._OPERATIONS[kind]
    changed = {**machine._OPERATIONS, kind: lambda t, o: wrapper(original, t, o)}
    taps.replace(machine, "_OPERATIONS", changed)


@mutant("namespace", "names are linearizable", seeds=3, faults=("lose_answers", "repeat_requests"))
def carry_out_every_request(taps: Taps) -> None:
    """A request that comes again is carried out again."""

    def once(
        transaction: Transaction,
        session: Any,
        sequence: int,
        operation: Operation,
        perform: sessions.Perform,
    ) -> Any:
        session.top = max(session.top, sequence + 1)
        return perform(transaction, operation)

    taps.replace(sessions, "_answer_once", once)


@mutant("namespace", "states", "masters", seeds=2)
def ask_the_clock_while_applying(taps: Taps) -> None:
    """The time of a change is that of the master which applies it."""

    def init(original: Callable[..., None], self: Transaction, tables: Any, now_ns: int) -> None:
        original(self, tables, current_env.get().clock.wall_ns())

    taps.around(Transaction, "__init__", init)


@mutant("namespace", "names are linearizable", seeds=2)
def ignore_exclusive(taps: Taps) -> None:
    """open with O_CREAT and O_EXCL opens what is there."""

    def create(original: Callable[..., Any], transaction: Transaction, operation: Create) -> Any:
        return original(transaction, dataclasses.replace(operation, exclusive=False))

    _operation(taps, Create, create)


@mutant("namespace", "names are linearizable", seeds=3)
def rename_beside_the_target(taps: Taps) -> None:
    """rename leaves the old name there."""
    taps.replace(renaming, "remove_entry", lambda transaction, parent, entry: None)


@mutant("namespace", "names are linearizable", "masters", seeds=2)
def keep_the_link_count(taps: Taps) -> None:
    """unlink takes the name and leaves the count of links."""

    def unlinked(original: Callable[..., Any], transaction: Transaction, operation: Any) -> Any:
        with Taps() as inner:
            inner.replace(Transaction, "drop_link", lambda self, inode: None)
            return original(transaction, operation)

    _operation(taps, Unlink, unlinked)


@mutant("orphans", "orphans", "no error", "open", seeds=3)
def reap_what_is_open(taps: Taps) -> None:
    """Files without a name are reaped although somebody has them open."""
    taps.replace(LiveSessions, "is_open", lambda self, inode: False)


@mutant("turns", "files hold", seeds=3)
def truncate_without_a_cut(taps: Taps) -> None:
    """What a truncate leaves of a chunk keeps its old end, for when the file grows again."""
    taps.replace(chunks, "_cut", lambda transaction, inode, index, within: None)
    taps.replace(chunks, "clear_beyond_end", lambda transaction, inode: None)


@mutant("turns", "files hold", "fsck", "chunks", seeds=3)
def drop_one_chunk_too_many(taps: Taps) -> None:
    """A truncate deletes the chunk that it should only have cut."""

    def dropped(transaction: Transaction, inode: Any, index: int) -> None:
        original(transaction, inode, max(0, index - 1))

    original = chunks._drop_from
    taps.replace(chunks, "_drop_from", dropped)


@mutant("blocks", "chunks.", seeds=2, faults=("cut_chain", "kill_chunkserver"))
def keep_the_version(taps: Taps) -> None:
    """A chunk's version is not raised when a replica leaves the set."""

    def change(transaction: Transaction, inode: int, index: int, chunk: Any, servers: Any) -> None:
        original(transaction, inode, index, chunk, servers)
        chunk.version -= 1
        replicas.store(transaction, inode, index, chunk)

    original = replicas._change
    taps.replace(replicas, "_change", change)


@mutant("trees", "chunks.grace", seeds=3)
def delete_without_grace(taps: Taps) -> None:
    """Replicas of what was deleted go at once."""
    taps.replace(Deletions, "_grace_s", lambda self, server: 0.0)


@mutant("turns", "what is due is done", "liveness", seeds=3)
def forget_to_delete(taps: Taps) -> None:
    """Nobody notes that the replicas of what was deleted are to go."""
    taps.replace(replicas, "note_deletion", lambda transaction, server, handle: None)
