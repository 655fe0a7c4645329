"""The machine as a whole: determinism (C7), and input that nobody should send."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs.errors import Code, Failure
from dfs.layout import CHUNK_BYTES, ROOT_INODE
from dfs.messages.common import ROOT, Credentials, Done, Refused
from dfs.messages.metadata import Numbered, Submitted
from dfs.messages.operations import (
    AllocateChunks,
    CommitWrite,
    Create,
    DropReplicas,
    MakeDirectory,
    MakeLink,
    MakeNode,
    MakeSymlink,
    Operation,
    RemoveDirectory,
    RemoveXattr,
    Rename,
    SetAttributes,
    SetXattr,
    Unlink,
)
from dfs.rpc.codec import encode
from master import tables as names
from master.commands import (
    ApplyOperations,
    BeginSession,
    CommandBatch,
    EndSession,
    ForgetDeletions,
    ReapOrphans,
    SetServer,
)
from master.state import StateMachine, queries, records
from tests.master.state import invariants
from tests.master.state.machine_driver import ALICE, SESSION, Driver
from tests.master.state.memory_tables import MemoryTables

# -- determinism


def random_log(seed: int, length: int) -> list[bytes]:
    """Log entries of all kinds of commands."""
    choose = random.Random(seed)
    entries, sequence = [encode(CommandBatch(1, (encode(BeginSession(SESSION, "x")),)))], 0
    for number in range(length):
        commands: list[object] = []
        for _ in range(choose.randrange(1, 4)):
            operations = []
            for _ in range(choose.randrange(1, 5)):
                sequence += 1
                operations.append(Numbered(sequence, random_operation(choose)))
            commands.append(ApplyOperations(SESSION, max(1, sequence - 20), tuple(operations)))
        commands.append(ReapOrphans(tuple(range(2, 60)), choose.randrange(100)))
        commands.append(SetServer(choose.randrange(1, 5), f"host:{choose.randrange(9)}", "z"))
        commands.append(ForgetDeletions(choose.randrange(1, 5), tuple(range(1, 30))))
        entries.append(encode(CommandBatch(number * 1000, tuple(encode(c) for c in commands))))
    return entries


def random_operation(choose: random.Random) -> Operation:
    name, other = (b"n%d" % choose.randrange(6) for _ in range(2))
    parent, inode = choose.choice((1, 1, 2, 3)), choose.randrange(1, 30)
    size = choose.randrange(200 * CHUNK_BYTES)
    caller = choose.choice((ROOT, ROOT, ALICE))
    made: list[Operation] = [
        Create(parent, name, 0o644, False, caller),
        MakeDirectory(parent, name, 0o777, caller),
        MakeNode(parent, name, 0o10644, 0, caller),
        MakeSymlink(parent, name, b"t", caller),
        MakeLink(inode, parent, name, caller),
        Unlink(parent, name, caller),
        RemoveDirectory(parent, name, caller),
        Rename(parent, name, choose.choice((1, 2)), other, choose.choice((0, 1, 2)), caller),
        SetAttributes(inode, caller, size_bytes=size),
        SetXattr(inode, b"user." + name, name, 0, caller),
        RemoveXattr(inode, b"user." + name, caller),
        CommitWrite(inode, size, caller),
        AllocateChunks(inode, choose.randrange(50), 150, (), ((1, 2, 3),) * 150),
        DropReplicas(inode, choose.randrange(50), choose.randrange(50), 1, (1, 3)),
    ]
    return choose.choice(made)


def digest_of_log(seed: int) -> str:
    tables = MemoryTables()
    machine = StateMachine(tables)
    for entry in random_log(seed, 100):
        machine.apply(entry)
    invariants.check(tables)
    return queries.state_digest(tables)


def test_equal_logs_make_equal_states_whatever_the_hash_seed() -> None:
    script = "from tests.master.state.test_machine import digest_of_log; print(digest_of_log(5))"
    expected = digest_of_log(5)
    for hash_seed in ("1", "77"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=dict(os.environ, PYTHONHASHSEED=hash_seed, LC_ALL="C"),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected
    assert digest_of_log(6) != expected


def test_how_commands_are_batched_makes_no_difference_but_for_the_time() -> None:
    together, alone = Driver(), Driver()
    operations = [random_operation(random.Random(seed)) for seed in range(300)]
    commands = [
        ApplyOperations(SESSION, 1, (Numbered(n + 1, operation),))
        for n, operation in enumerate(operations)
    ]
    now_ns = together.now_ns
    encoded = tuple(encode(command) for command in commands)
    answers = together.machine.apply(encode(CommandBatch(now_ns, encoded)))
    for command, answer in zip(encoded, answers, strict=True):
        assert alone.machine.apply(encode(CommandBatch(now_ns, (command,)))) == [answer]
    assert alone.tables.copy() == together.tables.copy()


# -- input that nobody should send


@pytest.fixture(scope="module")
def shared() -> Driver:
    """Built once: hostile input must not change it."""
    driver = Driver()
    driver.file(b"file")
    driver.directory(b"directory")
    return driver


def is_refusal(answer: Any) -> bool:
    return isinstance(answer, Refused) and answer.code == Code.BAD_MESSAGE


@given(st.binary(max_size=300))
def test_arbitrary_bytes_change_nothing(shared: Driver, data: bytes) -> None:
    before = shared.tables.copy()
    assert [is_refusal(a) for a in shared.machine.apply(data)] == [True]
    batch = encode(CommandBatch(shared.now_ns, (data, b"")))
    assert [is_refusal(a) for a in shared.machine.apply(batch)] == [True, True]
    assert shared.tables.copy() == before


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x90\x00",  # a map with a list as key
        b"\x92\xcc\xdc\xc7\x00\x05",
        b"\xd4\xff\x00",
        b"\x91" * 2000,
        encode(Done()),
        encode(CommandBatch(-1, ())),
        encode(CommandBatch(2**63, ())),
    ],
)
def test_bytes_that_are_nearly_right_change_nothing(shared: Driver, data: bytes) -> None:
    before = shared.tables.copy()
    assert [is_refusal(a) for a in shared.machine.apply(data)] == [True]
    assert shared.tables.copy() == before


def test_a_message_that_is_no_command_is_refused_and_the_next_one_applied(
    shared: Driver,
) -> None:
    nested = CommandBatch(1, (encode(EndSession(SESSION)),))
    answers = shared.batch(Done(), nested, SetServer(1, "a", ""))
    assert [is_refusal(a) for a in answers] == [True, True, False]
    assert queries.session(shared.tables, SESSION) is not None


NUMBERS = st.one_of(
    st.sampled_from((0, 1, 2, 3, 4, 7, -1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)),
    st.integers(-(2**63), 2**64 - 1),
)
BYTES = st.one_of(
    st.sampled_from((b"", b".", b"..", b"file", b"directory", b"user.a", b"x" * 300)),
    st.binary(max_size=20),
)
CREDENTIALS = st.builds(
    Credentials, NUMBERS, NUMBERS, st.lists(NUMBERS, max_size=2).map(lambda v: tuple(v))
)
MAYBE = st.one_of(st.none(), NUMBERS)
MANY = st.lists(NUMBERS, max_size=4).map(lambda v: tuple(v))
REPLICAS = st.lists(MANY, max_size=4).map(lambda v: tuple(v))
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Create, NUMBERS, BYTES, NUMBERS, st.booleans(), CREDENTIALS),
    st.builds(MakeNode, NUMBERS, BYTES, NUMBERS, NUMBERS, CREDENTIALS),
    st.builds(MakeDirectory, NUMBERS, BYTES, NUMBERS, CREDENTIALS),
    st.builds(MakeSymlink, NUMBERS, BYTES, BYTES, CREDENTIALS),
    st.builds(MakeLink, NUMBERS, NUMBERS, BYTES, CREDENTIALS),
    st.builds(Unlink, NUMBERS, BYTES, CREDENTIALS),
    st.builds(RemoveDirectory, NUMBERS, BYTES, CREDENTIALS),
    st.builds(Rename, NUMBERS, BYTES, NUMBERS, BYTES, NUMBERS, CREDENTIALS),
    st.builds(
        SetAttributes, NUMBERS, CREDENTIALS, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, st.booleans()
    ),
    st.builds(SetXattr, NUMBERS, BYTES, BYTES, NUMBERS, CREDENTIALS),
    st.builds(RemoveXattr, NUMBERS, BYTES, CREDENTIALS),
    st.builds(CommitWrite, NUMBERS, NUMBERS, CREDENTIALS, MAYBE, MANY, MANY),
    st.builds(AllocateChunks, NUMBERS, NUMBERS, NUMBERS, MANY, REPLICAS),
    st.builds(DropReplicas, NUMBERS, NUMBERS, NUMBERS, NUMBERS, MANY),
)
SESSIONS = st.one_of(st.just(SESSION), NUMBERS)
COMMANDS: st.SearchStrategy[object] = st.one_of(
    st.builds(
        ApplyOperations,
        SESSIONS,
        st.one_of(st.just(1), NUMBERS),
        st.lists(st.builds(Numbered, NUMBERS, OPERATIONS), max_size=4).map(lambda v: tuple(v)),
    ),
    st.builds(BeginSession, NUMBERS, st.text(max_size=10)),
    st.builds(ReapOrphans, MANY, NUMBERS),
    st.builds(SetServer, NUMBERS, st.text(max_size=10), st.text(max_size=10)),
    st.builds(ForgetDeletions, NUMBERS, MANY),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(COMMANDS, max_size=8), NUMBERS)
def test_commands_with_any_values_are_answered_and_leave_a_sound_state(
    commands: list[object], now_ns: int
) -> None:
    driver = Driver()
    driver.file(b"file")
    driver.directory(b"directory")
    data = encode(CommandBatch(now_ns, tuple(encode(c) for c in commands)))
    answers = driver.machine.apply(data)
    if len(answers) == 1 and is_refusal(answers[0]):
        return
    for command, answer in zip(commands, answers, strict=True):
        expected = Submitted if isinstance(command, ApplyOperations) else Done
        assert isinstance(answer, expected | Refused)
        encode(answer)
    invariants.check(driver.tables)


@settings(max_examples=200, deadline=None)
@given(OPERATIONS)
def test_a_refused_operation_changes_nothing(operation: Operation) -> None:
    driver = Driver()
    driver.file(b"file")
    driver.directory(b"directory")
    before = driver.namespace()
    if isinstance(driver.perform(operation), Refused):
        assert driver.namespace() == before
    invariants.check(driver.tables)


def test_the_root_is_there_after_the_first_command(machine: Driver) -> None:
    root = machine.attributes(ROOT_INODE)
    assert (root.inode, root.mode, root.nlink) == (1, 0o40755, 2)
    invariants.check(machine.tables)


def test_records_of_an_unknown_format_end_the_machine(machine: Driver) -> None:
    inode = machine.file(b"f")
    stored = machine.tables.get(names.INODES, records.key(inode))
    assert stored is not None
    machine.tables.put(names.INODES, records.key(inode), b"\x02" + stored[1:])
    with pytest.raises(Failure) as caught:
        machine.perform(SetAttributes(inode, ROOT, mode=0o600))
    assert caught.value.code == Code.DISK
