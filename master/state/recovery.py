"""The state while a cluster recovers: what it came from may be older than what the servers hold.

A state that was loaded from a dump, or that one surviving master has alone, may lack the last
changes of the cluster that was. So from then on (`begin`), until an operator ends it
(`end_recovery`), the key "recovering" of `settings` is there, and the leader makes the chunk map
follow what the chunkservers report (`adopt_replicas`, `master.recovery`).

`begin` changes the state so that nothing from before can be mistaken for something from after:

    sessions      end, with all their answers: nobody is sure what their clients were told
    inodes        the next one, and every `data_version`, go up by JUMP: a client that lived through
                  it may know a later file under the same number, or later data of the same version
    chunks        the next handle goes up by JUMP: servers may hold later chunks. Each chunk's
                  generation goes up by JUMP and a cut to the file's size is pending: what was
                  written beyond it later must read as zeros when the file grows again

"recovering" (format 1): i64 when it began (ns since 1970 UTC), u64 versions adopted so far, then
in UTF-8 what the state came from.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from dfs.errors import Code, Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.common import Done
from dfs.runtime import WriteBatch
from master import tables as names
from master.commands import Adoption, AdoptReplicas, EndRecovery
from master.state import records
from master.state.digest import Pair
from master.state.records import Chunk, Counters, Inode, Orphan, OrphanKind, key, key2, key_number
from master.state.replicas import REPLICAS_MAX
from master.state.transaction import Transaction
from master.tables import Tables

RECOVERING_KEY = b"recovering"
JUMP = 2**40
PAGE = 4096  # records rewritten in one transaction

_RECOVERING = struct.Struct(">BqQ")


@dataclass(frozen=True, slots=True)
class Recovering:
    """A recovery under way."""

    since_ns: int
    adopted: int
    source: str

    def encode(self) -> bytes:
        head = _RECOVERING.pack(records.FORMAT, self.since_ns, self.adopted)
        return head + self.source.encode()


def recovering(tables: Tables) -> Recovering | None:
    """The recovery under way, or None."""
    stored = tables.get(names.SETTINGS, RECOVERING_KEY)
    if stored is None:
        return None
    records.check_format(stored, "settings")
    _, since_ns, adopted = _RECOVERING.unpack_from(stored)
    return Recovering(since_ns, adopted, stored[_RECOVERING.size :].decode())


# -- commands


def adopt_replicas(transaction: Transaction, command: AdoptReplicas) -> Done:
    """Chunks take higher versions, and the servers that have them. Only while recovering."""
    state = recovering(transaction.tables)
    if state is None:
        return Done()
    raised = sum(_adopt(transaction, adoption) for adoption in command.adoptions)
    changed = replace(state, adopted=state.adopted + raised)
    transaction.tables.put(names.SETTINGS, RECOVERING_KEY, changed.encode())
    return Done()


def _adopt(transaction: Transaction, adoption: Adoption) -> bool:
    """Whether the chunk has a higher version by it."""
    tables = transaction.tables
    if not (0 < adoption.handle < records.NUMBER_END and 0 <= adoption.server < records.SERVER_END):
        return False
    place = tables.get(names.HANDLES, key(adoption.handle))
    if place is None or not adoption.version < records.NUMBER_END:
        return False
    chunk_key = key2(*records.decode_handle(place))
    stored = tables.get(names.CHUNKS, chunk_key)
    if stored is None:
        return False
    chunk, server = Chunk.decode(stored), adoption.server
    old, raised = chunk.servers, adoption.version > chunk.version
    if raised:
        chunk.version, chunk.servers = adoption.version, (server,)
    elif adoption.version == chunk.version and adoption.joins and server not in old:
        chunk.servers = (*old, server)[:REPLICAS_MAX]
    if chunk.servers != old or raised:
        transaction.count_replica_set(chunk.wanted, old, -1)
        transaction.count_replica_set(chunk.wanted, chunk.servers, 1)
        tables.put(names.CHUNKS, chunk_key, chunk.encode())
        # It was to be deleted once, and has become a replica again since.
        tables.delete(names.DELETIONS, key2(server, chunk.handle))
    return raised


def end_recovery(transaction: Transaction, command: EndRecovery) -> Done:
    """From now on the chunk map is the truth. Without a recovery nothing changes."""
    transaction.tables.delete(names.SETTINGS, RECOVERING_KEY)
    return Done()


# -- the beginning, on a store that nobody serves


def begin(tables: Tables, state: Recovering) -> Iterator[WriteBatch]:
    """The changes, some at a time, each to be written before the next is asked for."""
    yield from _without_sessions(tables)
    yield from _rewritten(tables, names.INODES, _fresh_inode)
    yield from _rewritten(tables, names.CHUNKS, lambda k, v: _fresh_chunk(tables, k, v))
    stored = tables.get(names.COUNTERS, records.COUNTERS_KEY)
    assert stored is not None, "the state has no counters"
    counters = Counters.decode(stored)
    counters.next_inode += JUMP
    counters.next_handle += JUMP
    counters.sessions = 0
    if max(counters.next_inode, counters.next_handle) >= records.NUMBER_END:
        raise Failure(Code.CONFIG, "this cluster was founded anew too often: numbers run out")
    batch = WriteBatch()
    batch.put(names.COUNTERS, records.COUNTERS_KEY, counters.encode())
    batch.put(names.SETTINGS, RECOVERING_KEY, state.encode())
    yield batch


def _without_sessions(tables: Tables) -> Iterator[WriteBatch]:
    for table in (names.SESSIONS, names.ANSWERS):
        for page in _pages(tables, table):
            yield WriteBatch({table: dict.fromkeys(k for k, _ in page)})
    for page in _pages(tables, names.ORPHANS):
        answers = [k for k, v in page if Orphan.decode(v).kind == OrphanKind.ANSWERS]
        yield WriteBatch({names.ORPHANS: dict.fromkeys(answers)})


def _rewritten(
    tables: Tables, table: str, fresh: Callable[[bytes, bytes], bytes]
) -> Iterator[WriteBatch]:
    for page in _pages(tables, table):
        yield WriteBatch({table: {k: fresh(k, v) for k, v in page}})


def _fresh_inode(inode_key: bytes, value: bytes) -> bytes:
    inode = Inode.decode(key_number(inode_key), value)
    inode.data_version += JUMP
    return inode.encode()


def _fresh_chunk(tables: Tables, chunk_key: bytes, value: bytes) -> bytes:
    chunk, stored = Chunk.decode(value), tables.get(names.INODES, chunk_key[:8])
    size_bytes = 0 if stored is None else Inode.decode(0, stored).size_bytes
    within = min(CHUNK_BYTES, max(0, size_bytes - key_number(chunk_key, 8) * CHUNK_BYTES))
    chunk.generation += JUMP
    chunk.cut_bytes = within if chunk.cut_bytes is None else min(within, chunk.cut_bytes)
    return chunk.encode()


def _pages(tables: Tables, table: str) -> Iterator[list[Pair]]:
    """All records, some at a time; those given may be changed before the next are asked for."""
    start = b""
    while page := list(islice(tables.scan(table, start), PAGE)):
        yield page
        start = page[-1][0] + b"\0"
