"""A state that becomes that of a new group: whole or not at all, and safe from what was before."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from dfs.config import Master, Raft
from dfs.errors import Code, Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.common import ROOT
from dfs.messages.metadata import Numbered
from dfs.messages.operations import CommitWrite, MakeDirectory
from dfs.rpc.codec import encode
from dfs.runtime import WriteBatch
from dfs.runtime.real import RealEnv
from master import dump, refounding
from master import tables as names
from master.commands import (
    Adoption,
    AdoptReplicas,
    ApplyOperations,
    BeginSession,
    CommandBatch,
    EndRecovery,
)
from master.dump import Header
from master.raft import formats
from master.raft.membership import applied_index, founding, lineage, stored_members
from master.state import queries, records, recovery
from master.state.records import Chunk, key, key2
from master.state.recovery import JUMP, Recovering
from master.store import JOURNAL, META, Store
from tests.master.state import invariants
from tests.master.state.machine_driver import SESSION, Driver
from tests.master.state.memory_tables import MemoryTables
from tests.master.test_dump import many_inodes, peak_bytes

HEADER = Header("cluster", 2, 77, 3, 1_000_000_000, members=((1, "a:1"), (2, "b:2")))


def config_for(directory: Path, id: int = 5) -> Master:
    masters = {str(id): "127.0.0.1:7000"}
    return Master("cluster", id, "127.0.0.1:7000", str(directory), "", masters)


def write_dump(path: Path, tables: MemoryTables, header: Header = HEADER) -> bytes:
    data = b"".join(dump.frames(header, tables, 500))
    path.write_bytes(data)
    return data


def a_state() -> Driver:
    machine = Driver()
    for n in range(5):
        inode = machine.file(b"file %d" % n)
        machine.allocate(inode, 0, 2)
        machine.perform(CommitWrite(inode, CHUNK_BYTES + 1000, ROOT, 1, (), ()))
    machine.remove(b"file 4")
    return machine


def load(directory: Path, path: Path, id: int = 5) -> refounding.Founded:
    env = RealEnv("t")
    try:
        return trio.run(refounding.load, env, config_for(directory, id), str(path))
    finally:
        env.disk.unlock_all()


@pytest.fixture
def loaded(tmp_path: Path) -> Store:
    """The store of a master whose group was founded from a dump of `a_state`."""
    write_dump(tmp_path / "dump", a_state().tables)
    load(tmp_path / "data", tmp_path / "dump")
    return Store.open(RealEnv("t"), str(tmp_path / "data" / "state.mdb"), Raft())


def test_the_new_group_is_this_master_alone_and_replaces_the_old_one(loaded: Store) -> None:
    (member,) = stored_members(loaded)
    assert (member.id, member.present) == (5, True)
    assert formats.unpack_founding(founding(loaded)) == [member]
    assert member.nonce == loaded.get(META, b"nonce")
    assert lineage(loaded) > HEADER.lineage
    assert applied_index(loaded) == 77
    log = [formats.unpack_entry(*pair) for pair in loaded.scan(JOURNAL)]
    assert [(index, term) for _, index, term in log] == [(76, 3), (77, 3)]
    vote = loaded.get(META, b"term")
    assert vote is not None
    assert formats.unpack_vote(vote) == (4, None)


def test_the_state_is_consistent_and_nothing_old_can_be_mistaken(loaded: Store) -> None:
    before = a_state().tables
    invariants.check(loaded)
    assert queries.counts(loaded).sessions == 0
    assert not list(loaded.scan(names.ANSWERS))
    for (k, old), (k2, new) in zip(
        before.scan(names.CHUNKS), loaded.scan(names.CHUNKS), strict=True
    ):
        was, is_now = Chunk.decode(old), Chunk.decode(new)
        assert k == k2
        assert is_now.generation == was.generation + JUMP
        index = records.key_number(k, 8)
        assert is_now.cut_bytes == (CHUNK_BYTES if index == 0 else 1000)
        assert (is_now.version, is_now.servers) == (was.version, was.servers)
    inode = queries.lookup(before, 1, b"file 0").inode
    old_version = queries.attributes(before, inode).data_version
    assert queries.attributes(loaded, inode).data_version == old_version + JUMP
    state = recovery.recovering(loaded)
    assert state is not None
    assert state.source == "the dump of master 2 at 77"


@pytest.mark.parametrize("part", ["head", "middle", "end", "cut"])
def test_a_damaged_dump_leaves_the_directory_empty(tmp_path: Path, part: str) -> None:
    data = bytearray(write_dump(tmp_path / "dump", a_state().tables))
    at = {"head": 30, "middle": len(data) // 2, "end": len(data) - 3, "cut": -1}[part]
    damaged = data[: len(data) // 2] if part == "cut" else data
    damaged[at] ^= 1
    (tmp_path / "dump").write_bytes(damaged)
    with pytest.raises(Failure, match="damaged") as caught:
        load(tmp_path / "data", tmp_path / "dump")
    assert caught.value.code is Code.CORRUPT
    assert not (tmp_path / "data" / "state.mdb").exists()
    write_dump(tmp_path / "dump", a_state().tables)
    assert load(tmp_path / "data", tmp_path / "dump").applied == 77


def test_a_load_needs_the_same_cluster_and_a_free_empty_directory(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", a_state().tables)
    write_dump(tmp_path / "other", a_state().tables, Header("other", 1, 5, 1, 1))
    with pytest.raises(Failure, match="of cluster 'other'"):
        load(tmp_path / "data", tmp_path / "other")
    env = RealEnv("running")
    env.disk.lock(str(tmp_path / "data" / "lock"))
    with pytest.raises(Failure, match="stop master 5 first"):
        load(tmp_path / "data", tmp_path / "dump")
    env.disk.unlock_all()
    load(tmp_path / "data", tmp_path / "dump")
    with pytest.raises(Failure, match="holds a master's state already"):
        load(tmp_path / "data", tmp_path / "dump")


def recover(directory: Path) -> refounding.Founded:
    env = RealEnv("t")
    return trio.run(refounding.recover, env, config_for(directory))


def test_a_survivor_applies_all_that_its_log_holds(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", a_state().tables)
    load(tmp_path / "data", tmp_path / "dump")
    path = str(tmp_path / "data" / "state.mdb")
    store = Store.open(RealEnv("t"), path, Raft())
    before, old_nonce = lineage(store), store.get(META, b"nonce")
    operation = Numbered(1, MakeDirectory(1, b"at the end of the log", 0o755, ROOT))
    commands = (encode(BeginSession(9, "c")), encode(ApplyOperations(9, 1, (operation,))))
    entry = bytes([formats.COMMANDS]) + encode(CommandBatch(5, commands))
    store.write_now(WriteBatch({JOURNAL: dict([formats.pack_entry((entry, 78, 4))])}))
    store.close()

    founded = recover(tmp_path / "data")
    assert (founded.applied, founded.entries) == (77, 1)
    store = Store.open(RealEnv("t"), path, Raft())
    assert queries.lookup(store, 1, b"at the end of the log").mode & 0o777 == 0o755
    invariants.check(store)
    assert queries.counts(store).sessions == 0
    assert applied_index(store) == 78
    assert lineage(store) > before
    assert store.get(META, b"nonce") != old_nonce
    store.close()
    # What it was before is still there, and would do as the state again.
    kept = Store.open(RealEnv("t"), founded.replaced, Raft())
    assert applied_index(kept) == 77
    assert kept.get(META, b"nonce") == old_nonce


def test_a_recovery_that_fails_changes_nothing(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", a_state().tables)
    load(tmp_path / "data", tmp_path / "dump")
    path = tmp_path / "data" / "state.mdb"
    store = Store.open(RealEnv("t"), str(path), Raft())
    gap = formats.pack_entry((bytes([formats.NO_OP]), 99, 4))
    store.write_now(WriteBatch({JOURNAL: dict([gap])}))
    store.close()
    before = path.read_bytes()
    with pytest.raises(Failure, match=r"the Raft log .* is damaged"):
        recover(tmp_path / "data")
    assert path.read_bytes() == before
    assert not list(path.parent.glob("state.mdb.replaced*"))


def test_an_empty_state_can_be_loaded(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", MemoryTables(), Header("cluster", 1, 1, 0, 1))
    assert load(tmp_path / "data", tmp_path / "dump").inodes == 1
    store = Store.open(RealEnv("t"), str(tmp_path / "data" / "state.mdb"), Raft())
    invariants.check(store)
    assert applied_index(store) == 2


def test_a_large_dump_is_loaded_in_little_memory(tmp_path: Path) -> None:
    tables = MemoryTables()
    _write(tables, many_inodes(1, 50_000))
    write_dump(tmp_path / "dump", tables)
    assert sum(len(k) + len(v) for k, v in tables.scan(names.INODES)) > 6 << 20
    founded: list[refounding.Founded] = []
    peak = peak_bytes(lambda: founded.append(load(tmp_path / "data", tmp_path / "dump")))
    assert founded[0].inodes == 50_000
    assert peak < 6 << 20  # all of it, as Python objects, would take several times more


# -- the commands of a recovery


@pytest.fixture
def recovering() -> Driver:
    """A machine whose state was just loaded, with one chunk: handle 1 at version 1 on 1, 2, 3."""
    machine = Driver()
    machine.allocate(machine.file(b"file"), 0, 1)
    for batch in recovery.begin(machine.tables, Recovering(1, 0, "a test")):
        _write(machine.tables, batch)
    return machine


def _write(tables: MemoryTables, batch: WriteBatch) -> None:
    for table, changes in batch.tables.items():
        for k, value in changes.items():
            if value is None:
                tables.delete(table, k)
            else:
                tables.put(table, k, value)


def adopt(machine: Driver, *adoptions: Adoption) -> tuple[int, tuple[int, ...]]:
    """The chunk's version and servers afterwards."""
    machine.command(AdoptReplicas(adoptions))
    invariants.check(machine.tables)
    found = queries.chunk_by_handle(machine.tables, 1)
    assert found is not None
    return found[2].version, found[2].servers


def test_the_highest_version_wins_with_all_who_have_it(recovering: Driver) -> None:
    assert adopt(recovering, Adoption(1, 3, 2, True)) == (3, (2,))
    assert adopt(recovering, Adoption(1, 2, 3, True)) == (3, (2,))
    assert adopt(recovering, Adoption(1, 3, 1, True), Adoption(1, 3, 1, True)) == (3, (2, 1))
    assert adopt(recovering, Adoption(1, 5, 9, True)) == (5, (9,))
    state = recovery.recovering(recovering.tables)
    assert state is not None
    assert state.adopted == 2


def test_a_version_that_the_map_had_itself_gets_no_new_servers(recovering: Driver) -> None:
    assert adopt(recovering, Adoption(1, 1, 9)) == (1, (1, 2, 3))


def test_a_deletion_of_what_is_a_replica_again_is_forgotten(recovering: Driver) -> None:
    doomed = key2(9, 1)
    recovering.tables.put(names.DELETIONS, doomed, records.encode_blob(b""))
    assert adopt(recovering, Adoption(1, 2, 9, True)) == (2, (9,))
    assert recovering.tables.get(names.DELETIONS, doomed) is None


@pytest.mark.parametrize(
    "adoption",
    [
        Adoption(7, 3, 2, True),
        Adoption(-1, 3, 2, True),
        Adoption(1, 2**63, 2, True),
        Adoption(1, 3, -1, True),
        Adoption(1, 3, 2**32, True),
    ],
)
def test_what_cannot_be_is_left_out(recovering: Driver, adoption: Adoption) -> None:
    assert adopt(recovering, adoption) == (1, (1, 2, 3))


def test_nothing_is_adopted_once_it_is_over(recovering: Driver) -> None:
    recovering.command(EndRecovery())
    assert recovery.recovering(recovering.tables) is None
    assert adopt(recovering, Adoption(1, 3, 2, True)) == (1, (1, 2, 3))


def test_sessions_of_before_are_not_known(recovering: Driver) -> None:
    assert queries.session(recovering.tables, SESSION) is None
    assert recovering.tables.get(names.SESSIONS, key(SESSION)) is None
