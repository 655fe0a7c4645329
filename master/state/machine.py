"""The state machine: one log entry in, its answers out.

Applying is a pure function of the tables and the bytes (C7): no clock, no randomness, no I/O but
the tables. Whatever the bytes are, `apply` answers; only the tables may raise (a failing disk, a
record of an unknown format), and then the node must end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dfs.errors import Code, Failure
from dfs.messages import operations as ops
from dfs.messages.common import Refused
from dfs.messages.metadata import Answer, Submitted
from dfs.rpc.codec import decode, decode_as
from master.commands import (
    AdjustCounts,
    AdjustInode,
    AdoptReplicas,
    ApplyOperations,
    AttachInode,
    BeginSession,
    ChangeReplicas,
    CommandBatch,
    EndRecovery,
    EndSession,
    ForgetDeletions,
    MendRecords,
    ReapOrphans,
    SetMode,
    SetServer,
    StrikeServer,
)
from master.state import (
    attributes,
    chunks,
    creation,
    mending,
    orphans,
    records,
    recovery,
    registry,
    removal,
    renaming,
    replicas,
    sessions,
    xattrs,
)
from master.state.refusals import as_answer
from master.state.transaction import Transaction
from master.tables import Tables

_OPERATIONS: dict[type, Callable[[Transaction, Any], Answer]] = {
    ops.Create: creation.create,
    ops.MakeNode: creation.make_node,
    ops.MakeDirectory: creation.make_directory,
    ops.MakeSymlink: creation.make_symlink,
    ops.MakeLink: creation.make_link,
    ops.Unlink: removal.unlink,
    ops.RemoveDirectory: removal.remove_directory,
    ops.Rename: renaming.rename,
    ops.SetAttributes: attributes.set_attributes,
    ops.SetXattr: xattrs.set_xattr,
    ops.RemoveXattr: xattrs.remove_xattr,
    ops.CommitWrite: attributes.commit_write,
    ops.AllocateChunks: chunks.allocate_chunks,
    ops.DropReplicas: replicas.drop_replicas,
}


def _perform(transaction: Transaction, operation: ops.Operation) -> Answer:
    try:
        return _OPERATIONS[type(operation)](transaction, operation)
    except Failure as failure:
        return _refused(failure)


def _apply_operations(transaction: Transaction, command: ApplyOperations) -> Submitted:
    return sessions.apply_operations(transaction, command, _perform)


_COMMANDS: dict[type, Callable[[Transaction, Any], object]] = {
    ApplyOperations: _apply_operations,
    BeginSession: sessions.begin_session,
    EndSession: sessions.end_session,
    ReapOrphans: orphans.reap_orphans,
    SetServer: registry.set_server,
    ForgetDeletions: registry.forget_deletions,
    ChangeReplicas: replicas.change_replicas,
    SetMode: registry.set_mode,
    StrikeServer: registry.strike_server,
    AdoptReplicas: recovery.adopt_replicas,
    EndRecovery: recovery.end_recovery,
    MendRecords: mending.mend_records,
    AdjustInode: mending.adjust_inode,
    AttachInode: mending.attach_inode,
    AdjustCounts: mending.adjust_counts,
}


def _refused(failure: Failure) -> Refused:
    """An answer for the caller; what says that this node is broken goes on as an exception."""
    if failure.code is Code.DISK:
        raise failure
    return as_answer(failure)


class StateMachine:
    """The replicated state, kept in tables that belong to nobody else."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def apply(self, command: bytes) -> list[Any]:
        """Apply an encoded `CommandBatch`: one answer per command, in order.

        Answers are `Submitted`, `Done` or `Refused`. A batch that cannot be decoded changes
        nothing and has one answer, `Refused` with BAD_MESSAGE; so has a single bad command.
        """
        try:
            batch = decode_as(CommandBatch, command)
            if not 0 <= batch.now_ns <= records.TIME_MAX_NS:
                raise Failure(Code.BAD_MESSAGE, f"{batch.now_ns} cannot be a time")
        except Failure as failure:
            return [as_answer(failure)]
        transaction = Transaction(self._tables, batch.now_ns)
        answers = [_apply(transaction, encoded) for encoded in batch.commands]
        if any(type(answer) is not Refused for answer in answers):
            transaction.commit()
        return answers


def _apply(transaction: Transaction, encoded: bytes) -> object:
    try:
        command = decode(encoded)
        handler = _COMMANDS.get(type(command))
        if handler is None:
            text = f"{type(command).__name__} is no command of the log"
            raise Failure(Code.BAD_MESSAGE, text)
        return handler(transaction, command)
    except Failure as failure:
        return _refused(failure)
