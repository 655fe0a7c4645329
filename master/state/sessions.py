"""Sessions and exactly-once (C3): each number of a session is applied once, its answer kept.

A number's answer is kept until the client says that it has it (`answered_below`). Numbers run in a
window: one that is `WINDOW` or more ahead of `answered_below` is refused as OVERLOADED, so a
session's answers are bounded. Refusals that a client may repeat under the same number (`RETRYABLE`)
are not stored: that number was not applied. Old answers are deleted a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable

from dfs.errors import RETRYABLE, Code, Failure
from dfs.messages.common import Done, Refused
from dfs.messages.metadata import Answer, Submitted
from dfs.messages.operations import Operation
from dfs.rpc.codec import decode, encode
from master import tables as names
from master.commands import ApplyOperations, BeginSession, EndSession
from master.state import records
from master.state.records import Orphan, OrphanKind, Session, key2
from master.state.refusals import as_answer
from master.state.transaction import Transaction

WINDOW = 65536
PURGES_PER_COMMAND = 64  # and two more per operation, so that purging keeps up
PURGES_AT_END = 1024
CLIENT_MAX_CHARACTERS = 512

Perform = Callable[[Transaction, Operation], Answer]


def begin_session(transaction: Transaction, command: BeginSession) -> Done:
    """Raises UNAVAILABLE when the number is in use, BAD_MESSAGE when it cannot be one."""
    number = command.session
    if not 0 < number < records.NUMBER_END:
        raise Failure(Code.BAD_MESSAGE, f"{number} cannot be a session")
    start, end = records.range_of(number)
    left_over = next(transaction.tables.scan(names.ANSWERS, start, end), None)
    if left_over is not None or transaction.find_session(number) is not None:
        raise Failure(Code.UNAVAILABLE, f"session {number:#x} is in use")
    client = command.client[:CLIENT_MAX_CHARACTERS]
    transaction.put_session(Session(number, 1, 1, 1, transaction.now_ns, client))
    transaction.counters.sessions += 1
    return Done()


def end_session(transaction: Transaction, command: EndSession) -> Done:
    """Many stored answers are left to `ReapOrphans`."""
    session = transaction.find_session(command.session)
    if session is None:
        return Done()
    _purge(transaction, session, session.top, PURGES_AT_END)
    if session.purged_below < session.top:
        rest = Orphan(OrphanKind.ANSWERS, session.number, session.purged_below, session.top)
        transaction.add_orphan(transaction.take_number(), rest)
    transaction.forget_session(session.number)
    transaction.counters.sessions -= 1
    return Done()


def reap_answers(transaction: Transaction, orphan: Orphan, limit: int) -> tuple[int, bool]:
    """Delete up to `limit` answers of an ended session: (how many, whether it is finished).

    Moves the orphan's second number, the first sequence left.
    """
    end = min(orphan.second + limit, orphan.third)
    cost = end - orphan.second
    _delete_answers(transaction, orphan.first, orphan.second, end)
    orphan.second = end
    return cost, end == orphan.third


def apply_operations(
    transaction: Transaction, command: ApplyOperations, perform: Perform
) -> Submitted:
    """Apply each operation that was not applied yet; answer all. Raises NO_SESSION."""
    session = transaction.find_session(command.session)
    if session is None:
        raise Failure(Code.NO_SESSION, f"session {command.session:#x} is not known or has expired")
    session.answered_below = min(
        max(session.answered_below, command.answered_below), records.NUMBER_END - 1
    )
    transaction.put_session(session)
    answers = tuple(
        _answer_once(transaction, session, numbered.sequence, numbered.operation, perform)
        for numbered in command.operations
    )
    limit = PURGES_PER_COMMAND + 2 * len(answers)
    _purge(transaction, session, session.answered_below, limit)
    return Submitted(answers)


def _answer_once(
    transaction: Transaction,
    session: Session,
    sequence: int,
    operation: Operation,
    perform: Perform,
) -> Answer:
    if not session.answered_below <= sequence < session.answered_below + WINDOW:
        return _outside(session, sequence)
    answer_key = key2(session.number, sequence)
    if sequence < session.top:
        stored = transaction.tables.get(names.ANSWERS, answer_key)
        if stored is not None:
            first: Answer = decode(records.decode_blob(stored))
            return first
    answer = perform(transaction, operation)
    if type(answer) is Refused and answer.code in RETRYABLE:
        return answer
    transaction.tables.put(names.ANSWERS, answer_key, records.encode_blob(encode(answer)))
    session.top = max(session.top, sequence + 1)
    return answer


def _outside(session: Session, sequence: int) -> Refused:
    if sequence < session.answered_below:
        text = f"operation {sequence} of session {session.number:#x} was answered long ago"
        return as_answer(Failure(Code.NO_SESSION, text))
    text = f"operation {sequence} of session {session.number:#x} is too far ahead"
    return as_answer(Failure(Code.OVERLOADED, text))


def _purge(transaction: Transaction, session: Session, below: int, limit: int) -> None:
    """Delete up to `limit` of the stored answers below a sequence."""
    below = min(below, session.top)
    end = min(below, session.purged_below + limit)
    if end > session.purged_below:
        _delete_answers(transaction, session.number, session.purged_below, end)
        session.purged_below = end


def _delete_answers(transaction: Transaction, session: int, first: int, end: int) -> None:
    for sequence in range(first, end):
        transaction.tables.delete(names.ANSWERS, key2(session, sequence))
