"""A group of masters founded anew, with the state of a dump or of one surviving master.

Both work on a stopped master's data directory and make it the only member of a new group, which
grows again by `dfs master add`. The new state is built in a file of its own, `refounding.mdb`, and
takes its place in one rename once everything is in it; what goes wrong before changes nothing.

    load      the records of a verified dump, into an empty data directory
    recover   a copy of this master's state, with all of its log applied: nobody is left to say
              which entries at its end were committed, and each may have been acknowledged. The old
              file is kept beside it as `state.mdb.replaced-TIME`

What the new group must never do is take part in the old one, whose other members may yet return:

    lineage   a higher one (`master.raft.formats`). Masters tell each other theirs in the hello: one
              of a lower lineage ends with a message. Chunkservers remember the highest they have
              registered with, and refuse the others
    nonce     a new one: a copy of the old disk is another disk
    members   this one alone. Ids may be given out again, since nobody of this lineage had them
    term      one higher than any that the old log knows here
    log       two entries without content at the end of what is applied, so that masters that are
              added fetch a snapshot

The state itself is changed as `master.state.recovery` says.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from dfs.config import Master
from dfs.errors import Code, Failure
from dfs.runtime import Env, WriteBatch
from master.dump import Header, Reader, verify
from master.dumps import header_of, reading
from master.opening import STATE, lock_directory
from master.raft import formats
from master.raft.formats import Member
from master.raft.journal import StoreJournal
from master.raft.membership import applied_index, check_format, founding
from master.raft.snapshots import remove_store
from master.state import StateMachine, queries, recovery
from master.state.recovery import Recovering
from master.state.transaction import Transaction
from master.store import JOURNAL, MEMBERS, META, RAFT_TABLES, Store

log = logging.getLogger(__name__)

WORK, REPLACED = "refounding.mdb", "state.mdb.replaced"


@dataclass(frozen=True, slots=True)
class Founded:
    """What the new group begins with."""

    applied: int  # of the source
    entries: int  # of the log that were applied in addition
    inodes: int
    chunks: int
    replaced: str = ""  # where the old state is


async def load(env: Env, config: Master, path: str) -> Founded:
    """Found a group with the state of a dump. Raises Failure or OSError: then nothing is there."""
    disk = env.disk
    lock_directory(env, config)
    if disk.exists(f"{config.data_dir}/{STATE}"):
        text = f"{config.data_dir} holds a master's state already; load into an empty data_dir"
        raise Failure(Code.CONFIG, text)
    with reading(disk, path) as (reader, _):
        header, end = reader.header, verify(reader)
    if header.cluster != config.cluster:
        text = f"{path} is of cluster {header.cluster!r}, {config.data_dir} of {config.cluster!r}"
        raise Failure(Code.CONFIG, text)
    work = _new_work(env, config)
    try:
        # Read a second time, since it was too long to be kept; so it is verified again, too.
        with reading(disk, path) as (reader, _):
            _store_all(work, reader, config.limits.dump_piece_bytes)
        if reader.end != end:
            raise Failure(Code.CORRUPT, f"{path} was changed while it was loaded")
        source = f"the dump of master {header.master} at {header.applied}"
        counts = await _refound(env, config, work, header, source)
    finally:
        work.close()
    _take_place(env, config)
    return Founded(header.applied, 0, counts.inodes, counts.chunks)


async def recover(env: Env, config: Master) -> Founded:
    """Found a group with this master's own state, in a directory that the caller has claimed.

    Raises Failure or OSError: then nothing is changed.
    """
    disk, path = env.disk, f"{config.data_dir}/{STATE}"
    if not disk.exists(path):
        raise Failure(Code.CONFIG, f"{config.data_dir} holds no master's state")
    now_ns = env.clock.wall_ns()
    replaced = f"{config.data_dir}/{REPLACED}-{now_ns}"
    work_path = f"{config.data_dir}/{WORK}"
    remove_store(disk, work_path)
    disk.verify_key_value(path)
    old = Store.open(env, path, config.raft)
    try:
        _check_survivor(old, config)
        await old.copy_to(env, work_path)
        founded = await _recover_copy(env, config, work_path, now_ns)
        await old.copy_to(env, replaced)
    finally:
        old.close()
    _take_place(env, config)
    return replace(founded, replaced=replaced)


async def _recover_copy(env: Env, config: Master, path: str, now_ns: int) -> Founded:
    work = Store.open(env, path, config.raft)
    try:
        applied = applied_index(work)
        entries = await _apply_log(env, work)
        header = header_of(work, config, now_ns)
        source = f"master {config.id} alone, at {header.applied}"
        counts = await _refound(env, config, work, header, source)
    finally:
        work.close()
    return Founded(applied, entries, counts.inodes, counts.chunks)


def _new_work(env: Env, config: Master) -> Store:
    path = f"{config.data_dir}/{WORK}"
    remove_store(env.disk, path)
    return Store.open(env, path, config.raft)


def _store_all(store: Store, reader: Reader, batch_bytes: int) -> None:
    batch, size_bytes = WriteBatch(), 0
    for table, pairs in reader.batches():
        batch.tables.setdefault(table, {}).update(pairs)
        size_bytes += sum(len(key) + len(value) for key, value in pairs)
        if size_bytes >= batch_bytes:  # each write is a transaction with its own fsync
            store.write_now(batch)
            batch, size_bytes = WriteBatch(), 0
    store.write_now(batch)


def _check_survivor(store: Store, config: Master) -> None:
    check_format(store)
    if not founding(store):
        raise Failure(Code.CONFIG, f"master {config.id} never was a member: it has no state")
    problem = StoreJournal(store).problem(applied_index(store))
    if problem is not None:
        raise Failure(Code.DISK, f"the Raft log in {config.data_dir} is damaged: {problem}")


async def _apply_log(env: Env, store: Store) -> int:
    """Apply what the log holds beyond the state; how many entries."""
    machine, count = StateMachine(store), 0
    for command, index, _ in StoreJournal(store).after(applied_index(store)):
        if command[0] == formats.COMMANDS:
            machine.apply(command[1:])
        store.put(META, b"applied", formats.pack_u64(index))
        count += 1
        if store.full:
            await store.flush(env)
    await store.flush(env)
    return count


async def _refound(
    env: Env, config: Master, store: Store, header: Header, source: str
) -> queries.Counts:
    """Turn the store's state into that of a new group, of which this master is the only member."""
    now_ns = env.clock.wall_ns()
    Transaction(store, now_ns).commit()  # a state that nothing was ever done to has no root yet
    await store.flush(env)
    for batch in recovery.begin(store, Recovering(now_ns, 0, source)):
        store.write_now(batch)
    store.write_now(_raft_tables(env, config, store, header, now_ns))
    return queries.counts(store)


def _raft_tables(env: Env, config: Master, store: Store, header: Header, now_ns: int) -> WriteBatch:
    batch = WriteBatch()
    for table in RAFT_TABLES:
        for key, _ in store.scan(table):
            batch.delete(table, key)
    vote = store.get(META, b"term")
    term = max(header.term, formats.unpack_vote(vote)[0] if vote else 0)
    applied = max(header.applied, 2)
    for index in (applied - 1, applied):
        entry = (bytes([formats.NO_OP]), index, term)
        batch.put(JOURNAL, *formats.pack_entry(entry))
    nonce = env.random.token(formats.NONCE_BYTES)
    me = Member(config.id, config.masters[str(config.id)], nonce)
    batch.put(MEMBERS, *formats.pack_member(me))
    batch.put(META, b"format", formats.FORMAT)
    batch.put(META, b"nonce", nonce)
    batch.put(META, b"term", formats.pack_vote(term + 1, None))
    batch.put(META, b"commit", formats.pack_u64(applied))
    batch.put(META, b"applied", formats.pack_u64(applied))
    batch.put(META, b"founding", formats.pack_founding([me]))
    batch.put(META, b"lineage", formats.pack_u64(max(now_ns, header.lineage + 1)))
    return batch


def _take_place(env: Env, config: Master) -> None:
    """The work is done: it becomes the state."""
    disk, path = env.disk, f"{config.data_dir}/{STATE}"
    for name in (f"{config.data_dir}/{WORK}-lock", f"{path}-lock"):
        if disk.exists(name):
            disk.unlink(name)
    disk.rename(f"{config.data_dir}/{WORK}", path)
    disk.sync_directory(config.data_dir)
    log.info("%s: founded anew in %s", env.name, config.data_dir)
