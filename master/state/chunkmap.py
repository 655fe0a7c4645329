"""Reading the chunk map: which chunks a file has, and where they are.

Pure functions over the tables, shared by the operations and the queries. A chunk record may be
dead: cut off by a large truncate and not yet reaped (see `master.state.chunks`). Dead chunks are
holes to everybody who reads through here.
"""

from __future__ import annotations

from collections.abc import Iterator

from dfs.layout import CHUNK_BYTES, FILE_MAX_BYTES
from dfs.messages.metadata import ChunkLocation, ChunkMap, Replica
from master import tables as names
from master.state import records
from master.state.records import Chunk, Inode, key, key2, key_number
from master.tables import Tables

INDEX_END = FILE_MAX_BYTES // CHUNK_BYTES + 1
POINT_READS = 4  # up to so many chunks, single reads are cheaper than a scan


def stored_chunks(tables: Tables, inode: int, first: int, count: int) -> list[tuple[int, Chunk]]:
    """(index, chunk) of all records in [first, first + count), dead ones too, by index."""
    first, end = max(first, 0), min(first + count, INDEX_END)
    if first >= end:
        return []
    if end - first <= POINT_READS:
        return _read_each(tables, inode, first, end)
    found = tables.scan(names.CHUNKS, key2(inode, first), key2(inode, end))
    return [(key_number(k, 8), Chunk.decode(value)) for k, value in found]


def _read_each(tables: Tables, inode: int, first: int, end: int) -> list[tuple[int, Chunk]]:
    found = []
    for index in range(first, end):
        stored = tables.get(names.CHUNKS, key2(inode, index))
        if stored is not None:
            found.append((index, Chunk.decode(stored)))
    return found


def trims(tables: Tables, inode: Inode) -> list[tuple[int, int]]:
    """(first index, epoch) of the inode's trims that are not wholly reaped."""
    if not inode.trims:
        return []
    start, end = records.range_of(inode.number)
    found = tables.scan(names.TRIMS, start, end)
    return [(records.decode_number(value), key_number(k, 8)) for k, value in found]


def is_dead(pending: list[tuple[int, int]], index: int, chunk: Chunk) -> bool:
    """Whether one of the trims cut the chunk off."""
    return any(first <= index and chunk.epoch < epoch for first, epoch in pending)


def live_chunks(
    tables: Tables, inode: Inode, first: int, count: int
) -> Iterator[tuple[int, Chunk]]:
    """(index, chunk) of the file's chunks in [first, first + count), by index."""
    pending = trims(tables, inode)
    for index, chunk in stored_chunks(tables, inode.number, first, count):
        if not is_dead(pending, index, chunk):
            yield index, chunk


def server_entry(tables: Tables, server: int) -> tuple[str, str] | None:
    """(address, zone) of a registered chunkserver."""
    if not 0 <= server < records.SERVER_END:
        return None
    stored = tables.get(names.SERVERS, key(server))
    return None if stored is None else records.decode_server(stored)


def describe(tables: Tables, inode: Inode, first: int, count: int) -> ChunkMap:
    """The answer to whoever asks where those chunks are."""
    addresses: dict[int, str] = {}
    locations = tuple(
        _location(tables, index, chunk, addresses)
        for index, chunk in live_chunks(tables, inode, first, count)
    )
    return ChunkMap(inode.size_bytes, inode.data_version, locations)


def _location(tables: Tables, index: int, chunk: Chunk, addresses: dict[int, str]) -> ChunkLocation:
    for server in chunk.servers:
        if server not in addresses:
            entry = server_entry(tables, server)
            addresses[server] = "" if entry is None else entry[0]
    return ChunkLocation(
        index,
        chunk.handle,
        chunk.version,
        chunk.generation,
        tuple(Replica(server, addresses[server]) for server in chunk.servers),
        chunk.cut_bytes,
        chunk.fresh,
        chunk.losses,
    )
