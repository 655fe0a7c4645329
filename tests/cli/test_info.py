"""`dfs info`: replicas that disagree are told."""

from __future__ import annotations

from dfs.cli.info import Chunk, Inspected
from dfs.messages.chunks import ReplicaInfo
from dfs.messages.metadata import ChunkLocation, Replica

REPLICAS = tuple(Replica(i, f"s{i}") for i in (1, 2, 3))
LOCATION = ChunkLocation(0, 7, 2, 0, REPLICAS)


def chunk(*digests: int, version: int = 2) -> Chunk:
    found = [ReplicaInfo(7, version, 0, 100, digest) for digest in digests]
    told = (Inspected(r, f) for r, f in zip(REPLICAS, found, strict=True))
    return Chunk(LOCATION, tuple(told))


def test_equal_replicas_have_no_problems() -> None:
    assert chunk(5, 5, 5).problems == []


def test_differing_contents_and_versions_are_told() -> None:
    assert chunk(5, 5, 6).problems == ["contents of the replicas differ"]
    assert chunk(5, 5, 5, version=1).problems == ["versions differ from the master's 2"]


def test_a_replica_that_cannot_be_asked_is_a_problem() -> None:
    silent = Chunk(LOCATION, (Inspected(REPLICAS[0], None, "refused"),))
    assert silent.problems == ["replica on server 1: refused"]
