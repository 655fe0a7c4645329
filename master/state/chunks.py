"""Operations on chunks: allocation, cuts, truncation. (Replica sets: `replicas`.)

**Trims.** A truncate must be atomic and cheap whatever the file's size. It drops up to
`DROPS_AT_ONCE` chunks itself. When there are more, it records a *trim*: the inode's `trim_epoch`
rises to e, and (inode, e) -> first index is stored. From then on every chunk record of that inode
with an index from there on and an older epoch is dead, which all readers respect; chunks allocated
later carry the new epoch and live. An orphan of kind TRIM, under an inode number of its own, makes
`ReapOrphans` drop the dead records in bounded steps.

**Cuts.** A truncate into the middle of a chunk raises the chunk's generation and leaves a cut
pending; the next writer carries it out on the replicas and says so in its CommitWrite. A file that
grows by `SetAttributes` is cut at its old end first: beyond it may lie what a client wrote and
never committed, which must not reappear where zeros are due.

Every record of `chunks` has one of `handles` and counts in `replica_sets`, in the inode's `chunks`
and in the counters. A dropped replica is noted in `deletions` until its server has deleted it.
"""

from __future__ import annotations

import errno

from dfs.errors import Code, Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.metadata import ChunkMap
from dfs.messages.operations import AllocateChunks
from master import tables as names
from master.state import chunkmap, records, replicas
from master.state.records import Chunk, Inode, Orphan, OrphanKind, key, key2
from master.state.refusals import check_regular, refusal
from master.state.transaction import Transaction

DROPS_AT_ONCE = 128  # chunks that one truncate drops itself: 8 GiB of file
CHUNKS_PER_OPERATION = 4096


def allocate_chunks(transaction: Transaction, operation: AllocateChunks) -> ChunkMap:
    """Chunks that are missing in the range get the next of `replicas` each.

    With fewer of them than chunks are missing (the file changed since the leader looked), refuses
    with UNAVAILABLE, which is not stored: the client asks again under the same number.
    """
    inode = transaction.inode(operation.inode)
    check_regular(inode)
    first, count = operation.first_index, operation.count
    _check_range(first, count)
    for servers in operation.replicas:
        replicas.check_servers(servers)
    if not 0 <= operation.wanted <= replicas.REPLICAS_MAX:
        raise refusal(errno.EINVAL, f"{operation.wanted} replicas of a chunk")
    pending = chunkmap.trims(transaction.tables, inode)
    stored = chunkmap.stored_chunks(transaction.tables, inode.number, first, count)
    dead = [(i, c) for i, c in stored if chunkmap.is_dead(pending, i, c)]
    missing = _missing(first, count, stored, dead)
    if len(missing) > len(operation.replicas):
        text = f"inode {inode.number}: {len(missing)} chunks are missing, more than expected"
        raise Failure(Code.UNAVAILABLE, text)
    for index, chunk in dead:
        drop(transaction, inode, index, chunk)
    for index, servers in zip(missing, operation.replicas, strict=False):
        _add(transaction, inode, index, servers, max(operation.wanted, len(servers)))
    return chunkmap.describe(transaction.tables, inode, first, count)


def _check_range(first: int, count: int) -> None:
    if first < 0 or not 0 <= count <= CHUNKS_PER_OPERATION:
        raise refusal(errno.EINVAL, f"chunks from {first}, {count} of them")
    if first + count > chunkmap.INDEX_END:
        raise refusal(errno.EFBIG, f"chunks from {first}, {count} of them")


def _missing(
    first: int, count: int, stored: list[tuple[int, Chunk]], dead: list[tuple[int, Chunk]]
) -> list[int]:
    present = frozenset(i for i, _ in stored) - frozenset(i for i, _ in dead)
    return [index for index in range(first, first + count) if index not in present]


def _add(
    transaction: Transaction, inode: Inode, index: int, servers: tuple[int, ...], wanted: int
) -> None:
    counters = transaction.counters
    handle = counters.next_handle
    counters.next_handle = handle + 1
    counters.chunks += 1
    chunk = Chunk(handle, 1, 0, None, inode.trim_epoch, True, wanted, servers)
    replicas.store(transaction, inode.number, index, chunk)
    transaction.tables.put(names.HANDLES, key(handle), records.encode_handle(inode.number, index))
    transaction.count_replica_set(chunk.wanted, servers, 1)
    inode.chunks += 1
    transaction.changed(inode)


def drop(transaction: Transaction, inode: Inode, index: int, chunk: Chunk) -> None:
    """The chunk is gone; its replicas are to be deleted."""
    tables = transaction.tables
    tables.delete(names.CHUNKS, key2(inode.number, index))
    tables.delete(names.HANDLES, key(chunk.handle))
    for server in chunk.servers:
        replicas.note_deletion(transaction, server, chunk.handle)
    transaction.count_replica_set(chunk.wanted, chunk.servers, -1)
    transaction.counters.chunks -= 1
    inode.chunks -= 1
    transaction.changed(inode)


# -- truncation


def truncate(transaction: Transaction, inode: Inode, size_bytes: int) -> None:
    """The file's bytes from `size_bytes` on are no more. The inode's size is the caller's."""
    index, within = divmod(size_bytes, CHUNK_BYTES)
    if within:
        _cut(transaction, inode, index, within)
        index += 1
    _drop_from(transaction, inode, index)


def _drop_from(transaction: Transaction, inode: Inode, index: int) -> None:
    """All chunks from that index on are no part of the file any more."""
    if not inode.chunks:
        return
    # Dead records of earlier trims count as work, too.
    beyond = _first_chunks(transaction, inode, index, DROPS_AT_ONCE + 1)
    if len(beyond) > DROPS_AT_ONCE:
        _trim(transaction, inode, index)
        return
    for at, chunk in beyond:
        drop(transaction, inode, at, chunk)


def clear_beyond_end(transaction: Transaction, inode: Inode) -> None:
    """The file is about to grow: nothing that chunks hold beyond its end is part of it."""
    index, within = divmod(inode.size_bytes, CHUNK_BYTES)
    if within:
        for _, chunk in chunkmap.live_chunks(transaction.tables, inode, index, 1):
            if chunk.cut_bytes is None or chunk.cut_bytes > within:
                _cut(transaction, inode, index, within)
        index += 1
    _drop_from(transaction, inode, index)


def _first_chunks(
    transaction: Transaction, inode: Inode, first: int, limit: int
) -> list[tuple[int, Chunk]]:
    """At most `limit` records from that index on."""
    end = key2(inode.number, chunkmap.INDEX_END)
    found = []
    for k, value in transaction.tables.scan(names.CHUNKS, key2(inode.number, first), end):
        found.append((records.key_number(k, 8), Chunk.decode(value)))
        if len(found) == limit:
            break
    return found


def _cut(transaction: Transaction, inode: Inode, index: int, within: int) -> None:
    for _, chunk in chunkmap.live_chunks(transaction.tables, inode, index, 1):
        chunk.generation += 1
        chunk.cut_bytes = within if chunk.cut_bytes is None else min(within, chunk.cut_bytes)
        replicas.store(transaction, inode.number, index, chunk)


def finish_cuts(transaction: Transaction, inode: Inode, cuts: tuple[int, ...]) -> None:
    """The cuts named (index, generation in turn) are carried out, unless a newer one came."""
    for index, generation in zip(cuts[::2], cuts[1::2], strict=True):
        for _, chunk in chunkmap.live_chunks(transaction.tables, inode, index, 1):
            if chunk.generation == generation and chunk.cut_bytes is not None:
                chunk.cut_bytes = None
                replicas.store(transaction, inode.number, index, chunk)


def note_written(transaction: Transaction, inode: Inode, written: tuple[int, ...]) -> None:
    """The chunks named (index, handle in turn) have their replicas and are fresh no more."""
    for index, handle in zip(written[::2], written[1::2], strict=True):
        for _, chunk in chunkmap.live_chunks(transaction.tables, inode, index, 1):
            if chunk.handle == handle and chunk.fresh:
                chunk.fresh = False
                replicas.store(transaction, inode.number, index, chunk)


def _trim(transaction: Transaction, inode: Inode, first: int) -> None:
    inode.trim_epoch += 1
    inode.trims += 1
    epoch = inode.trim_epoch
    transaction.changed(inode)
    transaction.tables.put(names.TRIMS, key2(inode.number, epoch), records.encode_number(first))
    orphan = Orphan(OrphanKind.TRIM, inode.number, epoch, first)
    transaction.add_orphan(transaction.take_number(), orphan)


def drop_some(transaction: Transaction, inode: Inode, limit: int) -> int:
    """Drop up to `limit` chunks of an orphan, whichever come first; how many it were."""
    found = _first_chunks(transaction, inode, 0, limit) if inode.chunks and limit else []
    for index, chunk in found:
        drop(transaction, inode, index, chunk)
    return len(found)


def reap_trim(transaction: Transaction, orphan: Orphan, limit: int) -> tuple[int, bool]:
    """Go on with a trim for up to `limit` records, at least 1: (records seen, whether it ended).

    Moves the orphan's third number, the first index not seen.
    """
    inode = transaction.find_inode(orphan.first)
    if inode is None:
        transaction.tables.delete(names.TRIMS, key2(orphan.first, orphan.second))
        return 1, True
    found = _first_chunks(transaction, inode, orphan.third, limit)
    for index, chunk in found:
        if chunk.epoch < orphan.second:
            drop(transaction, inode, index, chunk)
    if len(found) == limit:
        orphan.third = found[-1][0] + 1
        return len(found), False
    transaction.tables.delete(names.TRIMS, key2(orphan.first, orphan.second))
    inode.trims -= 1
    transaction.changed(inode)
    return len(found), True
