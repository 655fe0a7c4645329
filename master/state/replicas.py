"""Changes of chunks' replica sets.

Every one of them raises the chunk's version, so that a replica that missed it cannot be taken for
current; before any replica serves the new version they are settled (`master.settling`). Whoever
leaves a set is noted in `deletions` until its server has deleted the replica; whoever joins is not
noted there any more.
"""

from __future__ import annotations

from dfs.errors import Code, Failure
from dfs.messages.common import Done
from dfs.messages.metadata import ChunkMap
from dfs.messages.operations import DropReplicas
from master import tables as names
from master.commands import ChangeReplicas, ReplicaChange
from master.state import chunkmap, records
from master.state.records import Chunk, key, key2
from master.state.refusals import check_regular
from master.state.transaction import Transaction

REPLICAS_MAX = 16
LOSSES_MAX = 2**32 - 1


def check_servers(servers: tuple[int, ...]) -> None:
    """Raise BAD_MESSAGE for what cannot be a replica set."""
    valid = all(0 <= server < records.SERVER_END for server in servers)
    distinct = len(frozenset(servers)) == len(servers)
    if not (valid and distinct and 0 < len(servers) <= REPLICAS_MAX):
        raise Failure(Code.BAD_MESSAGE, f"{servers} cannot be the replicas of a chunk")


def store(transaction: Transaction, inode: int, index: int, chunk: Chunk) -> None:
    transaction.tables.put(names.CHUNKS, key2(inode, index), chunk.encode())


def note_deletion(transaction: Transaction, server: int, handle: int) -> None:
    value = records.encode_deletion(transaction.now_ns)
    transaction.tables.put(names.DELETIONS, key2(server, handle), value)


def drop_replicas(transaction: Transaction, operation: DropReplicas) -> ChunkMap:
    """Failed servers leave a chunk's set, unless that is out of date or leaves too few."""
    inode = transaction.inode(operation.inode)
    check_regular(inode)
    tables, index = transaction.tables, operation.index
    for _, chunk in chunkmap.live_chunks(tables, inode, index, 1):
        remaining = tuple(s for s in chunk.servers if s not in operation.failed)
        current = chunk.handle == operation.handle and chunk.version == operation.version
        enough = len(remaining) >= max(1, min(operation.least, chunk.wanted))
        if current and enough and len(remaining) < len(chunk.servers):
            _change(transaction, inode.number, index, chunk, remaining)
    return chunkmap.describe(tables, inode, index, 1)


def change_replicas(transaction: Transaction, command: ChangeReplicas) -> Done:
    """Apply what still applies. Raises BAD_MESSAGE, before anything is changed."""
    for change in command.changes:
        check_servers(change.servers)
    for change in command.changes:
        _apply(transaction, change)
    return Done()


def _apply(transaction: Transaction, change: ReplicaChange) -> None:
    tables = transaction.tables
    stored = tables.get(names.HANDLES, key(change.handle)) if _is_handle(change.handle) else None
    if stored is None:
        return
    inode, index = records.decode_handle(stored)
    value = tables.get(names.CHUNKS, key2(inode, index))
    if value is None:
        return
    chunk = Chunk.decode(value)
    if chunk.version == change.version:
        chunk.losses = min(chunk.losses + change.lost, LOSSES_MAX)
        _change(transaction, inode, index, chunk, change.servers)


def _is_handle(handle: int) -> bool:
    return 0 < handle < records.NUMBER_END


def _change(
    transaction: Transaction, inode: int, index: int, chunk: Chunk, servers: tuple[int, ...]
) -> None:
    transaction.count_replica_set(chunk.wanted, chunk.servers, -1)
    transaction.count_replica_set(chunk.wanted, servers, 1)
    for server in chunk.servers:
        if server not in servers:
            note_deletion(transaction, server, chunk.handle)
    for server in servers:
        if server not in chunk.servers:
            transaction.tables.delete(names.DELETIONS, key2(server, chunk.handle))
    chunk.servers = servers
    chunk.version += 1
    store(transaction, inode, index, chunk)
