"""Replica sets: how they change, what is noted for deletion, and what operators say of servers."""

from __future__ import annotations

import struct

import pytest

from dfs.errors import Code, Failure
from dfs.messages.cluster import ServerMode
from dfs.messages.common import Done, Refused
from dfs.messages.metadata import ChunkLocation
from dfs.messages.operations import AllocateChunks, DropReplicas
from master import tables as names
from master.commands import (
    ChangeReplicas,
    ForgetDeletions,
    ReplicaChange,
    SetMode,
    SetServer,
    StrikeServer,
)
from master.state import queries, records
from master.state.records import Chunk, key2
from tests.master.state import invariants
from tests.master.state.machine_driver import FIRST_NS, Driver

DRAINING, MAINTENANCE, IN_SERVICE = (
    int(m) for m in (ServerMode.DRAINING, ServerMode.MAINTENANCE, ServerMode.IN_SERVICE)
)


def change(machine: Driver, *changes: ReplicaChange) -> None:
    assert machine.command(ChangeReplicas(changes)) == Done()
    invariants.check(machine.tables)


def chunk_of(machine: Driver, inode: int, index: int = 0) -> tuple[int, list[int], int]:
    """(version, servers, losses)."""
    (found,) = machine.chunks(inode, index, 1).chunks
    return found.version, [r.server for r in found.replicas], found.losses


def test_a_change_gives_the_chain_its_order_and_the_next_version(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 1)
    change(machine, ReplicaChange(1, 1, (3, 1, 2)))
    assert chunk_of(machine, inode) == (2, [3, 1, 2], 0)
    change(machine, ReplicaChange(1, 2, (3, 1), lost=True))
    assert chunk_of(machine, inode) == (3, [3, 1], 1)
    assert machine.doomed(2) == (1,)
    change(machine, ReplicaChange(1, 3, (3, 1, 2), lost=True))
    assert chunk_of(machine, inode) == (4, [3, 1, 2], 2)
    assert machine.doomed(2) == ()  # it is a replica again


def test_a_change_applies_to_exactly_its_version(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 2)
    change(machine, ReplicaChange(1, 2, (1,)), ReplicaChange(2, 1, (2, 1)))
    assert chunk_of(machine, inode, 0) == (1, [1, 2, 3], 0)
    assert chunk_of(machine, inode, 1) == (2, [2, 1], 0)
    change(
        machine, ReplicaChange(2, 1, (3,)), ReplicaChange(77, 1, (3,)), ReplicaChange(0, 1, (3,))
    )
    assert chunk_of(machine, inode, 1) == (2, [2, 1], 0)


@pytest.mark.parametrize("servers", [(), (1, 1), (-1,), (2**32,), tuple(range(17))])
def test_a_set_that_cannot_be_refuses_the_whole_command(
    machine: Driver, servers: tuple[int, ...]
) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 2)
    before = machine.namespace()
    refused = machine.command(
        ChangeReplicas((ReplicaChange(1, 1, (1,)), ReplicaChange(2, 1, servers)))
    )
    assert isinstance(refused, Refused)
    assert refused.code == Code.BAD_MESSAGE
    assert machine.namespace() == before


def test_dropping_keeps_as_many_as_the_leader_says(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 1)
    machine.perform(DropReplicas(inode, 0, 1, 1, (1, 2), least=2))
    assert chunk_of(machine, inode) == (1, [1, 2, 3], 0)
    machine.perform(DropReplicas(inode, 0, 1, 1, (1,), least=2))
    assert chunk_of(machine, inode) == (2, [2, 3], 0)
    machine.perform(DropReplicas(inode, 0, 1, 2, (3,), least=2))
    assert chunk_of(machine, inode) == (2, [2, 3], 0)
    machine.perform(DropReplicas(inode, 0, 1, 2, (3,)))  # an older leader knows no least
    assert chunk_of(machine, inode) == (3, [2], 0)
    invariants.check(machine.tables)


def test_a_chunk_that_wants_fewer_may_have_fewer(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 1)
    machine.perform(AllocateChunks(inode, 1, 1, (), ((1,),), wanted=1))
    machine.perform(DropReplicas(inode, 1, 2, 1, (1,), least=2))
    assert chunk_of(machine, inode, 1) == (1, [1], 0)
    change(machine, ReplicaChange(2, 1, (1, 2)))
    machine.perform(DropReplicas(inode, 1, 2, 2, (1,), least=2))
    assert chunk_of(machine, inode, 1) == (3, [2], 0)


def test_deletions_carry_the_time_they_were_noted(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 1)
    change(machine, ReplicaChange(1, 1, (1, 2)))
    assert queries.deletions(machine.tables, 3, 10) == ((1, machine.now_ns),)
    assert queries.deletion_pending(machine.tables, 3, 1)
    assert queries.deletions(machine.tables, 3, 10, after=1) == ()
    machine.command(ForgetDeletions(3, (1,)))
    assert not queries.deletion_pending(machine.tables, 3, 1)


def test_records_of_the_first_format_are_still_read(machine: Driver) -> None:
    """A state written by the program before: chunks without losses, deletions without a time."""
    old = struct.pack(">B3QqI?BB3I", 1, 5, 7, 2, -1, 4, True, 3, 3, 9, 8, 7)
    assert Chunk.decode(old) == Chunk(5, 7, 2, None, 4, True, 3, (9, 8, 7), 0)
    assert records.decode_deletion(b"\x01") == 0
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 1)
    machine.tables.put(
        names.CHUNKS,
        key2(inode, 0),
        struct.pack(">B3QqI?BB3I", 1, 1, 1, 0, -1, 0, True, 3, 3, 1, 2, 3),
    )
    change(machine, ReplicaChange(1, 1, (2, 1), lost=True))
    assert chunk_of(machine, inode) == (2, [2, 1], 1)


def test_a_record_of_a_later_format_is_not_guessed_at() -> None:
    for read in (Chunk.decode, records.decode_deletion):
        with pytest.raises(Failure, match="format 3"):
            read(b"\x03" + bytes(60))


def test_losses_survive_a_client_dropping_a_replica(machine: Driver) -> None:
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 1)
    change(machine, ReplicaChange(1, 1, (1, 2, 3), lost=True))
    answer = machine.perform(DropReplicas(inode, 0, 1, 2, (2,)))
    assert [c.losses for c in answer.chunks] == [1]
    assert isinstance(answer.chunks[0], ChunkLocation)


def test_chunks_are_paged_in_order(machine: Driver) -> None:
    first, second = machine.file(b"f"), machine.file(b"g")
    machine.allocate(first, 3, 2)
    machine.allocate(second, 0, 1)
    pages, after = [], (0, 0)
    while page := queries.chunks_after(machine.tables, after, 2):
        pages.append([(inode, index) for inode, index, _ in page])
        after = page[-1][:2]
    assert pages == [[(first, 3), (first, 4)], [(second, 0)]]


# -- modes


def test_modes_of_servers_and_disks(machine: Driver) -> None:
    machine.command(SetServer(4, "four:1", "z"))
    assert machine.command(SetMode(4, "", MAINTENANCE, FIRST_NS * 2)) == Done()
    assert machine.command(SetMode(4, "/disk/ü", DRAINING, 0)) == Done()
    modes = queries.modes(machine.tables)
    assert {k: (m.mode, m.until_ns) for k, m in modes.items()} == {
        (4, ""): (MAINTENANCE, FIRST_NS * 2),
        (4, "/disk/ü"): (DRAINING, 0),
    }
    assert modes[4, "/disk/ü"].since_ns == machine.now_ns
    assert machine.command(SetMode(4, "", IN_SERVICE, 0)) == Done()
    assert list(queries.modes(machine.tables)) == [(4, "/disk/ü")]
    invariants.check(machine.tables)


@pytest.mark.parametrize(
    "command",
    [
        SetMode(5, "", DRAINING, 0),
        SetMode(-1, "", DRAINING, 0),
        SetMode(4, "", 3, 0),
        SetMode(4, "", DRAINING, -1),
        SetMode(4, "/" + "x" * 500, DRAINING, 0),
    ],
)
def test_modes_that_cannot_be(machine: Driver, command: SetMode) -> None:
    machine.command(SetServer(4, "four:1", "z"))
    assert isinstance(machine.command(command), Refused)
    assert queries.modes(machine.tables) == {}


def test_a_server_is_struck_once_no_chunk_needs_it(machine: Driver) -> None:
    for server in (1, 2, 3):
        machine.command(SetServer(server, f"cs{server}:1", "z"))
        machine.command(SetMode(server, "", DRAINING, 0))
    inode = machine.file(b"f")
    machine.allocate(inode, 0, 1)
    assert isinstance(machine.command(StrikeServer(3)), Refused)
    # Also within one entry of the log: the sets are as the commands before have left them.
    moved = ChangeReplicas((ReplicaChange(1, 1, (1, 2)),))
    assert machine.batch(moved, StrikeServer(3), StrikeServer(99))[1:] == [Done(), Done()]
    invariants.check(machine.tables)
    assert [server for server, _, _ in queries.servers(machine.tables)] == [1, 2]
    assert list(queries.modes(machine.tables)) == [(1, ""), (2, "")]
    assert machine.doomed(3) == ()
    back = ChangeReplicas((ReplicaChange(1, 2, (1, 2, 3)),))
    assert isinstance(machine.batch(back, StrikeServer(3))[1], Refused)
