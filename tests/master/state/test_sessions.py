"""Sessions: every number once (C3), answers kept as long as they are needed and no longer."""

from __future__ import annotations

from dfs.errors import Code
from dfs.layout import ROOT_INODE
from dfs.messages.common import ROOT, Attributes, Done, Refused
from dfs.messages.metadata import Numbered, Submitted
from dfs.messages.operations import AllocateChunks, Create, DropReplicas, Rename, Unlink
from dfs.rpc.codec import encode
from master import tables as names
from master.commands import ApplyOperations, BeginSession, EndSession
from master.state import queries
from master.state.sessions import PURGES_AT_END, WINDOW
from tests.master.state import invariants
from tests.master.state.machine_driver import FIRST_NS, SESSION, Driver


def create(name: bytes) -> Create:
    return Create(ROOT_INODE, name, 0o644, True, ROOT)


def code(answer: object) -> Code:
    assert isinstance(answer, Refused), answer
    return Code(answer.code)


def stored_answers(machine: Driver) -> int:
    return sum(1 for _ in machine.tables.scan(names.ANSWERS))


def test_a_repeated_number_gets_the_first_answer_and_has_no_second_effect(
    machine: Driver,
) -> None:
    first = machine.submit(1, create(b"a"))
    assert isinstance(first, Attributes)
    machine.submit(2, Rename(ROOT_INODE, b"a", ROOT_INODE, b"b", 0, ROOT))
    before = machine.namespace()
    assert machine.submit(1, create(b"a")) == first  # no EEXIST, no second file
    gone = Rename(ROOT_INODE, b"a", ROOT_INODE, b"b", 0, ROOT)
    assert machine.submit(2, gone) == Done()  # no ENOENT
    assert machine.namespace() == before


def test_refusals_are_kept_too(machine: Driver) -> None:
    refused = machine.submit(1, Unlink(ROOT_INODE, b"a", ROOT))
    machine.submit(2, create(b"a"))
    assert machine.submit(1, Unlink(ROOT_INODE, b"a", ROOT)) == refused
    assert machine.names() == [b"a"]


def test_chunk_answers_are_kept(machine: Driver) -> None:
    inode = machine.file(b"f")
    allocate = AllocateChunks(inode, 0, 1, (), ((1, 2, 3),))
    drop = DropReplicas(inode, 0, 1, 1, (1,))
    first = [machine.submit(10, allocate), machine.submit(11, drop)]
    machine.done(Unlink(ROOT_INODE, b"f", ROOT))
    machine.reap()
    assert [machine.submit(10, allocate), machine.submit(11, drop)] == first


def test_a_number_repeated_within_one_command_is_applied_once(machine: Driver) -> None:
    operations = tuple(Numbered(1, create(b"a")) for _ in range(3))
    submitted = machine.command(ApplyOperations(SESSION, 1, operations))
    assert isinstance(submitted, Submitted)
    assert len(frozenset(submitted.answers)) == 1
    assert isinstance(submitted.answers[0], Attributes)


def test_numbers_may_come_out_of_order(machine: Driver) -> None:
    late = machine.submit(5, create(b"five"))
    early = machine.submit(3, create(b"three"))
    assert isinstance(early, Attributes)
    assert (machine.submit(5, create(b"five")), machine.submit(3, create(b"three"))) == (
        late,
        early,
    )


def test_one_failing_operation_does_not_stop_those_behind_it(machine: Driver) -> None:
    operations = (
        Numbered(1, create(b"a")),
        Numbered(2, create(b"a")),
        Numbered(3, create(b"b")),
    )
    submitted = machine.command(ApplyOperations(SESSION, 1, operations))
    kinds = [type(answer) for answer in submitted.answers]
    assert kinds == [Attributes, Refused, Attributes]


def test_an_unknown_session_is_refused(machine: Driver) -> None:
    operations = (Numbered(1, create(b"a")),)
    for session in (8, 0, -1, 2**64 - 1):
        assert code(machine.command(ApplyOperations(session, 1, operations))) == Code.NO_SESSION
    assert machine.names() == []


def test_answered_numbers_are_forgotten_and_not_applied_again(machine: Driver) -> None:
    for sequence in range(1, 11):
        machine.submit(sequence, create(b"%d" % sequence))
    assert stored_answers(machine) == 10
    machine.submit(11, create(b"11"), answered_below=9)
    assert stored_answers(machine) == 3
    before = machine.namespace()
    assert code(machine.submit(8, create(b"8"))) == Code.NO_SESSION
    assert isinstance(machine.submit(9, create(b"9")), Attributes)
    assert machine.namespace() == before


def test_old_answers_are_deleted_a_few_at_a_time(machine: Driver) -> None:
    operations = tuple(Numbered(n, Unlink(ROOT_INODE, b"x", ROOT)) for n in range(1, 501))
    machine.command(ApplyOperations(SESSION, 1, operations))
    left = stored_answers(machine)
    passes = 0
    while left > 0:
        machine.command(ApplyOperations(SESSION, 501, ()))
        assert left - stored_answers(machine) <= 64
        left, passes = stored_answers(machine), passes + 1
        invariants.check(machine.tables)
    assert passes == 8


def test_numbers_run_in_a_window(machine: Driver) -> None:
    assert code(machine.submit(1 + WINDOW, create(b"a"))) == Code.OVERLOADED
    assert code(machine.submit(0, create(b"a"))) == Code.NO_SESSION
    assert code(machine.submit(-5, create(b"a"))) == Code.NO_SESSION
    assert code(machine.submit(2**64 - 1, create(b"a"))) == Code.OVERLOADED
    assert stored_answers(machine) == 0
    assert isinstance(machine.submit(WINDOW, create(b"a")), Attributes)
    assert isinstance(machine.submit(WINDOW + 1, create(b"b"), answered_below=2), Attributes)


def test_a_session_is_begun_once(machine: Driver) -> None:
    assert code(machine.command(BeginSession(SESSION, "again"))) == Code.UNAVAILABLE
    for number in (0, -1, 2**63, 2**64 - 1):
        assert code(machine.command(BeginSession(number, ""))) == Code.BAD_MESSAGE
    assert machine.command(BeginSession(2**63 - 1, "ü" * 10_000)) == Done()
    assert queries.sessions(machine.tables) == (SESSION, 2**63 - 1)
    session = queries.session(machine.tables, SESSION)
    assert session is not None
    assert (session.client, session.begun_ns > FIRST_NS) == ("test", True)


def test_an_ended_session_leaves_nothing(machine: Driver) -> None:
    machine.submit(1, create(b"a"))
    assert machine.command(EndSession(SESSION)) == Done()
    assert machine.command(EndSession(SESSION)) == Done()
    assert stored_answers(machine) == 0
    assert queries.sessions(machine.tables) == ()
    assert code(machine.submit(2, create(b"b"))) == Code.NO_SESSION
    assert machine.command(BeginSession(SESSION, "again")) == Done()


def test_the_many_answers_of_an_ended_session_are_reaped_in_steps(machine: Driver) -> None:
    count = PURGES_AT_END + 1000
    operations = tuple(Numbered(n, Unlink(ROOT_INODE, b"x", ROOT)) for n in range(1, count + 1))
    machine.command(ApplyOperations(SESSION, 1, operations))
    machine.command(EndSession(SESSION))
    assert stored_answers(machine) == 1000
    assert code(machine.command(BeginSession(SESSION, ""))) == Code.UNAVAILABLE
    for left in (600, 200, 0):
        machine.reap(400)
        assert stored_answers(machine) == left
        invariants.check(machine.tables)
    assert queries.orphans(machine.tables, 10) == ()
    assert machine.command(BeginSession(SESSION, "")) == Done()


def test_sessions_do_not_share_numbers(machine: Driver) -> None:
    machine.command(BeginSession(8, "other"))
    machine.submit(1, create(b"a"))
    other = machine.command(ApplyOperations(8, 1, (Numbered(1, create(b"b")),)))
    assert isinstance(other.answers[0], Attributes)
    assert machine.names() == [b"a", b"b"]


def test_answers_survive_a_round_through_the_codec(machine: Driver) -> None:
    first = machine.submit(1, create(b"a"))
    assert encode(machine.submit(1, create(b"a"))) == encode(first)
