"""Masters, chunkservers and operators among themselves. Wire ids 140 to 199.

A chunkserver keeps one connection to the leading master: it registers, reports its replicas in
pages, and then sends heartbeats; over the same connection the master calls it back
(`RaiseVersions`, `DeleteReplicas`). Masters exchange Raft messages and snapshots.
"""

from __future__ import annotations

from dfs.rpc.codec import message

# -- chunkserver to master


@message(140)
class DiskReport:
    """One data directory of a chunkserver."""

    path: str
    total_bytes: int
    free_bytes: int
    replicas: int
    healthy: bool
    problem: str = ""


@message(141)
class RegisterServer:
    """A chunkserver introduces itself to the leader. Answers Registered.

    Refused with CONFIG when another live server uses the id or the cluster name is not this one.
    """

    server: int
    address: str
    zone: str
    cluster: str
    disks: tuple[DiskReport, ...]


@message(142)
class Registered:
    heartbeat_s: float


@message(143)
class ReplicaReport:
    handle: int
    version: int
    length_bytes: int


@message(144)
class ReportReplicas:
    """One page of the full report after registering; `last` ends it. Answers ReportAnswer."""

    server: int
    replicas: tuple[ReplicaReport, ...]
    last: bool


@message(145)
class ReportAnswer:
    """What of the page the master does not know or knows newer: to be deleted by the server."""

    delete: tuple[int, ...]


@message(146)
class Heartbeat:
    """`stalled_s`: for how long the server's data path has made no progress. Answers Done.

    UNAVAILABLE when the leader does not know the server (it must register again).
    """

    server: int
    disks: tuple[DiskReport, ...]
    stalled_s: float


# -- master to chunkserver


@message(147)
class VersionChange:
    handle: int
    version: int


@message(148)
class RaiseVersions:
    """Replicas of these chunks take the new version (never lower one). Answers Done."""

    changes: tuple[VersionChange, ...]


@message(149)
class DeleteReplicas:
    """Delete these replicas; unknown ones are fine. Answers Done when all are gone."""

    handles: tuple[int, ...]


# -- master to master


@message(160)
class RaftMessage:
    """One message of pysyncobj; the payload is its msgpack form. A notice, without answer."""

    sender: int


@message(161)
class FetchSnapshot:
    """A piece of the newest snapshot file. Answers SnapshotPiece; payload: the bytes.

    `index` 0 asks for the newest; then the index that the first answer named, or UNAVAILABLE
    when that one is gone.
    """

    index: int
    offset: int


@message(162)
class SnapshotPiece:
    index: int
    total_bytes: int
    digest: int  # xxh3_64 of the whole file


# -- operators


@message(170)
class GetClusterStatus:
    """Answers ClusterStatus, from any master (of what it knows itself)."""


@message(171)
class MasterStatus:
    id: int
    address: str
    state: str  # leader, follower, candidate or unknown
    reachable: bool


@message(172)
class ServerStatus:
    id: int
    address: str
    zone: str
    alive: bool
    disks: tuple[DiskReport, ...]
    replicas: int


@message(173)
class ClusterStatus:
    cluster: str
    master: int  # who answers
    leader: int  # 0: none known
    leader_address: str
    term: int
    commit_index: int
    applied_index: int
    masters: tuple[MasterStatus, ...]
    servers: tuple[ServerStatus, ...]
    sessions: int
    inodes: int
    chunks: int
    under_replicated: int
    state_digest: str = ""  # hash of the whole replicated state at applied_index (GetStateDigest)


@message(174)
class GetStateDigest:
    """ClusterStatus with `state_digest` filled in: reads the whole state. Any master answers."""


@message(175)
class AddMaster:
    """Add a master to the Raft group; one change at a time. Answers Done."""

    id: int
    address: str


@message(176)
class RemoveMaster:
    """Answers Done."""

    id: int


@message(177)
class TransferLeadership:
    """The leader hands over to `id` (0: the most up-to-date other). Answers Done."""

    id: int


@message(178)
class CreateSnapshot:
    """The master asked writes a snapshot and compacts its log. Answers Done."""
