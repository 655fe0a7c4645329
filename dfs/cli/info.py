"""`dfs info`: where a file's chunks are, and whether its replicas agree.

Each replica is asked for its version, length and digest (a hash of its block checksums), so
replicas whose contents differ show without their data being moved.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import click

from dfs.cli import output
from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.outcome import Outcome
from dfs.errors import Failure
from dfs.layout import CHUNK_BYTES
from dfs.messages.chunks import ReplicaInfo
from dfs.messages.common import Attributes
from dfs.messages.metadata import ChunkLocation, Replica

CHUNKS_PER_REQUEST = 256


@dataclass(frozen=True)
class Inspected:
    """One replica as its server describes it, or why it could not."""

    replica: Replica
    found: ReplicaInfo | None
    problem: str = ""


@dataclass(frozen=True)
class Chunk:
    """A chunk as the master knows it, and its replicas as their servers know them."""

    location: ChunkLocation
    replicas: tuple[Inspected, ...]

    @property
    def problems(self) -> list[str]:
        """What is amiss, a sentence each."""
        found = [r.found for r in self.replicas if r.found is not None]
        problems = [
            f"replica on server {r.replica.server}: {r.problem}" for r in self.replicas if r.problem
        ]
        if any(info.version != self.location.version for info in found):
            problems.append(f"versions differ from the master's {self.location.version}")
        if len({info.digest for info in found}) > 1:
            problems.append("contents of the replicas differ")
        return problems


@click.command("info")
@cluster_options
@click.argument("paths", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON: one array.")
def command(target: Target, paths: tuple[str, ...], as_json: bool) -> int:
    """Show the chunks of files, their replicas, versions and checksums.

    Exit code 1 when replicas differ or cannot be asked.
    """
    return target.run(lambda session: show(session, paths, as_json))


async def show(session: Session, paths: tuple[str, ...], as_json: bool) -> int:
    """Each file in turn; a file whose replicas disagree counts as failed."""
    outcome, made = Outcome(), []
    for path in map(os.fsencode, paths):
        try:
            attributes = await session.tree.find(path)
            chunks = [chunk async for chunk in chunks_of(session, attributes)]
        except Failure as error:
            outcome.fail(error)
            continue
        outcome.failed += any(chunk.problems for chunk in chunks)
        outcome.done += not any(chunk.problems for chunk in chunks)
        made.append(as_dict(path, attributes, chunks))
        if not as_json:
            output.lines(report(path, attributes, chunks))
    if as_json:
        output.emit_json(made)
    return outcome.exit_code()


async def chunks_of(session: Session, attributes: Attributes) -> AsyncIterator[Chunk]:
    """The file's chunks by index, each inspected on all its servers."""
    if not stat.S_ISREG(attributes.mode):
        return
    end = -(-attributes.size_bytes // CHUNK_BYTES)
    for first in range(0, end, CHUNKS_PER_REQUEST):
        count = min(CHUNKS_PER_REQUEST, end - first)
        found = await session.client.chunk_map(attributes.inode, first, count)
        for location in found.chunks:
            inspected = [await _inspect(session, location, r) for r in location.replicas]
            yield Chunk(location, tuple(inspected))


async def _inspect(session: Session, location: ChunkLocation, replica: Replica) -> Inspected:
    if not replica.address:
        return Inspected(replica, None, "the server is not known or gone")
    try:
        found = await session.client.inspect(replica.address, location.handle)
    except Failure as error:
        return Inspected(replica, None, error.message)
    return Inspected(replica, found)


def report(path: bytes, attributes: Attributes, chunks: list[Chunk]) -> list[str]:
    """What a person reads."""
    kind, size = output.kind(attributes.mode), output.human_bytes(attributes.size_bytes)
    summary = f"{size}, {len(chunks)} chunks, data version {attributes.data_version}"
    made = [f"{output.shown(path)}: {kind}, inode {attributes.inode}, {summary}"]
    rows = [["chunk", "handle", "version", "server", "address", "bytes", "digest"]]
    for chunk in chunks:
        rows += [_columns(chunk.location, inspected) for inspected in chunk.replicas]
    if len(rows) > 1:
        made += [f"  {text}" for text in output.table(rows, right=frozenset({0, 5}))]
    for chunk in chunks:
        made += [f"  ! chunk {chunk.location.index}: {problem}" for problem in chunk.problems]
    return made


def _columns(location: ChunkLocation, inspected: Inspected) -> list[str]:
    found = inspected.found
    told = [str(found.length_bytes), f"{found.digest:016x}"] if found else ["?", "?"]
    version = str(found.version if found else location.version)
    where = [str(inspected.replica.server), inspected.replica.address or "?"]
    return [str(location.index), f"{location.handle:#x}", version, *where, *told]


def as_dict(path: bytes, attributes: Attributes, chunks: list[Chunk]) -> dict[str, Any]:
    """What `--json` shows of one file."""
    return {
        "path": os.fsdecode(path),
        "type": output.kind(attributes.mode),
        "inode": attributes.inode,
        "size_bytes": attributes.size_bytes,
        "data_version": attributes.data_version,
        "chunks": [_chunk_dict(chunk) for chunk in chunks],
    }


def _chunk_dict(chunk: Chunk) -> dict[str, Any]:
    location = chunk.location
    return {
        "index": location.index,
        "handle": location.handle,
        "version": location.version,
        "generation": location.generation,
        "cut_bytes": location.cut_bytes,
        "problems": chunk.problems,
        "replicas": [_replica_dict(inspected) for inspected in chunk.replicas],
    }


def _replica_dict(inspected: Inspected) -> dict[str, Any]:
    found = inspected.found
    return {
        "server": inspected.replica.server,
        "address": inspected.replica.address,
        "problem": inspected.problem,
        "version": found.version if found else None,
        "generation": found.generation if found else None,
        "length_bytes": found.length_bytes if found else None,
        "checksum": f"{found.digest:016x}" if found else None,
    }
