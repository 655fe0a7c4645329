"""One chunk against what the chunkservers list of it: what is missing, stale, damaged, too many.

Pure. A `Row` is all that is known of one handle at about one time, the chunk map's side and the
servers'. On a live cluster both sides move, so what is found in one row is a suspicion: `confirmed`
says what two later looks have in common while the chunk's version stayed the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dfs.layout import BLOCK_BYTES, CHUNK_BYTES
from dfs.messages.chunks import ListedReplica, ReplicaState
from master.check.findings import Discard, Found, Kind, Settle
from master.state.records import Chunk

_SERVES = (ReplicaState.SETTLED,)


@dataclass(frozen=True, slots=True)
class Place:
    """A chunk of the map, and the file that it is part of."""

    inode: int
    index: int
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Row:
    """One handle: its chunk, if the map has one; the replicas that servers list; who was asked.

    `doomed` are the servers that are to delete their replica anyway. `verified`: those asked have
    read theirs from the disk before they listed it.
    """

    handle: int
    place: Place | None
    listed: Mapping[int, ListedReplica]
    asked: frozenset[int]
    doomed: frozenset[int] = frozenset()
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Servers:
    """What the comparison knows of the cluster: the zone of each live server, and the next handle.

    Whoever is in no zone here is not alive.
    """

    zones: Mapping[int, str]
    next_handle: int


def compare(row: Row, servers: Servers) -> Iterator[Found]:
    """Everything that is amiss with this handle."""
    if row.place is None:
        yield from _of_no_chunk(row, servers)
        return
    place = row.place
    serving: list[ListedReplica] = []
    trouble: list[Found] = []
    for server in place.chunk.servers:
        found = _judge(row, place, server)
        if found is not None:
            trouble.append(found)
        replica = row.listed.get(server)
        if replica is not None and (found is None or found.kind is Kind.DAMAGED_REPLICA):
            serving.append(replica)
    yield from trouble
    yield from _redundancy(row, place, servers, trouble, serving)
    yield from _damage(place, serving)
    yield from _differences(place, serving)
    yield from _surplus(row, place)


def _about(place: Place, kind: Kind, text: str, server: int = 0, *, mend: bool = False) -> Found:
    chunk = place.chunk
    where = f"chunk {chunk.handle:x} (chunk {place.index} of inode {place.inode})"
    return Found(
        kind,
        f"{where}: {text}",
        inode=place.inode,
        offset=place.index * CHUNK_BYTES,
        length_bytes=CHUNK_BYTES,
        handle=chunk.handle,
        server=server,
        mend=Settle(chunk.handle, chunk.version, server) if mend else None,
    )


def _judge(row: Row, place: Place, server: int) -> Found | None:
    """What is wrong with the replica that this server should have."""
    chunk = place.chunk
    if server not in row.asked:
        text = f"chunkserver {server}, which has a replica, cannot be asked"
        return None if chunk.fresh else _about(place, Kind.UNREACHABLE_REPLICA, text, server)
    replica = row.listed.get(server)
    if replica is None:
        text = f"the replica on chunkserver {server} is missing"
        found = _about(place, Kind.MISSING_REPLICA, text, server, mend=True)
        return None if chunk.fresh else found
    if row.verified and not replica.digest:
        text = f"the replica on chunkserver {server} cannot be read"
        return _about(place, Kind.MISSING_REPLICA, text, server, mend=True)
    if replica.version > chunk.version:
        text = f"chunkserver {server} has version {replica.version}, the map {chunk.version}"
        return _about(place, Kind.NEWER_REPLICA, text, server)
    if replica.version < chunk.version:
        text = f"chunkserver {server} has version {replica.version} of {chunk.version}"
        return _about(place, Kind.STALE_REPLICA, text, server, mend=True)
    if replica.state not in _SERVES:
        text = f"the replica on chunkserver {server} is {_state(replica)}"
        return _about(place, Kind.UNSETTLED_REPLICA, text, server, mend=True)
    if replica.damaged_blocks:
        text = f"the replica on chunkserver {server} has {replica.damaged_blocks} damaged blocks"
        return _about(place, Kind.DAMAGED_REPLICA, text, server, mend=True)
    return None


def _state(replica: ListedReplica) -> str:
    try:
        return ReplicaState(replica.state).name.lower()
    except ValueError:
        return f"in state {replica.state}"  # of a newer chunkserver


def _redundancy(
    row: Row,
    place: Place,
    servers: Servers,
    trouble: list[Found],
    serving: list[ListedReplica],
) -> Iterator[Found]:
    chunk = place.chunk
    if not serving and not chunk.fresh:
        yield _about(place, Kind.LOST_CHUNK, "no replica of it can be read")
    if len(chunk.servers) < chunk.wanted:
        text = f"{len(chunk.servers)} replicas where {chunk.wanted} are wanted"
        yield _about(place, Kind.TOO_FEW_COPIES, text)
    used = frozenset(servers.zones[s] for s in chunk.servers if s in servers.zones)
    living = sum(s in servers.zones for s in chunk.servers)
    possible = min(living, len(frozenset(servers.zones.values())))
    if len(used) < possible:
        text = f"its replicas are in {len(used)} zones where {possible} are possible"
        yield _about(place, Kind.SAME_ZONE, text)


def _damage(place: Place, serving: list[ListedReplica]) -> Iterator[Found]:
    """Blocks that are damaged on every replica which serves: lost, range by range."""
    if not serving:
        return
    lost = -1
    for replica in serving:
        lost &= int.from_bytes(replica.damaged, "big")
    longest = max(replica.length_bytes for replica in serving)
    for first, end in _runs(lost):
        begin, stop = first * BLOCK_BYTES, min(end * BLOCK_BYTES, longest)
        yield Found(
            Kind.DAMAGED_RANGE,
            f"bytes {begin} to {stop} of chunk {place.chunk.handle:x} "
            f"(chunk {place.index} of inode {place.inode}) are damaged on every replica",
            inode=place.inode,
            offset=place.index * CHUNK_BYTES + begin,
            length_bytes=stop - begin,
            handle=place.chunk.handle,
        )


def _runs(bitmap: int) -> Iterator[tuple[int, int]]:
    """(first, end) of each run of set bits, rising."""
    block = 0
    while bitmap >> block:
        zeros = bitmap >> block
        first = block + (zeros & -zeros).bit_length() - 1
        ones = ~(bitmap >> first)
        block = first + (ones & -ones).bit_length() - 1
        yield first, block


def _differences(place: Place, serving: list[ListedReplica]) -> Iterator[Found]:
    """Verified replicas that agree in nothing but their version."""
    whole = [r for r in serving if r.digest and not r.damaged_blocks]
    contents = {(r.generation, r.length_bytes, r.digest) for r in whole}
    if len(contents) > 1:
        text = f"its replicas have {len(contents)} different contents"
        yield _about(place, Kind.DIFFERING_REPLICA, text, place.chunk.servers[-1], mend=True)


def _surplus(row: Row, place: Place) -> Iterator[Found]:
    """Replicas on servers that should have none; one that is being made is none yet."""
    for server, replica in sorted(row.listed.items()):
        known = server in place.chunk.servers or server in row.doomed
        if known or replica.state == ReplicaState.JOINING:
            continue
        text = f"chunkserver {server} has a replica (version {replica.version}) that is not wanted"
        found = _about(place, Kind.SURPLUS_REPLICA, text, server)
        yield _discarded(found, row.handle, server)


def _of_no_chunk(row: Row, servers: Servers) -> Iterator[Found]:
    for server, replica in sorted(row.listed.items()):
        if server in row.doomed:
            continue
        text = f"chunkserver {server} has a replica of chunk {row.handle:x}"
        if row.handle >= servers.next_handle:
            text = f"{text}, a handle that was never given out: has the state gone back?"
            yield Found(Kind.FOREIGN_REPLICA, text, handle=row.handle, server=server)
            continue
        text = f"{text} ({replica.length_bytes} bytes), which is no part of any file"
        found = Found(Kind.UNKNOWN_REPLICA, text, handle=row.handle, server=server)
        yield _discarded(found, row.handle, server)


def _discarded(found: Found, handle: int, server: int) -> Found:
    return Found(
        found.kind,
        found.text,
        inode=found.inode,
        offset=found.offset,
        length_bytes=found.length_bytes,
        handle=handle,
        server=server,
        mend=Discard(handle, server),
    )


# -- looking again


def same_moment(before: Row, after: Row) -> bool:
    """Whether nothing has moved between two looks: neither the chunk nor who has which version."""
    return _signature(before) == _signature(after)


def _signature(row: Row) -> tuple[object, ...]:
    chunk = row.place.chunk if row.place is not None else None
    replicas = [(s, r.version, r.state) for s, r in sorted(row.listed.items())]
    return (chunk and (chunk.version, chunk.servers, chunk.fresh), replicas, row.doomed)


def confirmed(before: Row, after: Row, servers: Servers) -> list[Found]:
    """What both looks show, as the later one tells it."""
    seen = frozenset((f.kind, f.server, f.offset) for f in compare(before, servers))
    both = [f for f in compare(after, servers) if (f.kind, f.server, f.offset) in seen]
    written = _contents(before) != _contents(after)
    return [f for f in both if not (written and f.kind is Kind.DIFFERING_REPLICA)]


def _contents(row: Row) -> list[tuple[int, int, str]]:
    """What was verified; it changes while somebody writes."""
    return [(s, r.length_bytes, r.digest) for s, r in sorted(row.listed.items())]
