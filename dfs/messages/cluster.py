"""Masters, chunkservers and operators among themselves. Wire ids 140 to 199.

A chunkserver keeps one connection to the leading master: it registers, reports its replicas in
pages, and then sends heartbeats; over the same connection the master calls it back
(`SettleChunk`, `FetchReplica`, `DeleteReplicas`). Masters exchange Raft messages and snapshots.
"""

from __future__ import annotations

import enum

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
    damaged_blocks: int = 0  # found by scrub or by readers and not yet mended
    quarantined_files: int = 0
    scrubbed_ns: int = 0  # when the last complete pass ended, 0 for never
    scrub_fraction: float = 0.0  # of the present pass, 0 when none runs


@message(141)
class RegisterServer:
    """A chunkserver introduces itself to the leader. Answers Registered.

    Refused with CONFIG when another live server uses the id, the cluster name is not this one, or
    the server has seen the group of masters that replaced this one.
    """

    server: int
    address: str
    zone: str
    cluster: str
    disks: tuple[DiskReport, ...]
    lineage: int = 0  # the highest that the server has seen, see `Registered`


@message(142)
class Registered:
    """`lineage` says which group of masters this is: one founded anew has a higher number than
    the one that it replaced, which then gets no server any more."""

    heartbeat_s: float
    lineage: int = 0


@message(143)
class ReplicaReport:
    handle: int
    version: int
    length_bytes: int
    state: int = 0  # a `chunks.ReplicaState`
    damaged: bool = False  # has blocks that do not match their checksums


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

    `client_bytes` and `repair_bytes` were read and written since the server started.
    UNAVAILABLE when the leader does not know the server (it must register again).
    """

    server: int
    disks: tuple[DiskReport, ...]
    stalled_s: float
    client_bytes: int = 0
    repair_bytes: int = 0


# -- master to chunkserver


# 147 and 148 were orders to raise versions without settling; they are not to be used again.


@message(149)
class DeleteReplicas:
    """Delete these replicas; unknown ones are fine. Answers Done when all are gone."""

    handles: tuple[int, ...]


@message(150)
class SettleChunk:
    """To the source: make the replicas at `chain` equal to this one and raise all to `version`.

    Those of `chain` that are also in `joining` are not replicas of the chunk yet. Answers Settled;
    CHAIN_BROKEN or DISK (`detail`: the address of the server that failed), NO_REPLICA,
    STALE_VERSION when this replica has a higher version already.
    """

    handle: int
    version: int
    chain: tuple[str, ...]
    joining: tuple[str, ...] = ()


@message(151)
class Settled:
    """`copied_bytes` were sent to the other replicas. `damaged`: blocks that no replica has."""

    length_bytes: int
    digest: int
    copied_bytes: int
    damaged: bytes = b""


@message(152)
class FetchReplica:
    """Copy a chunk from one of `sources` into a new replica, in state JOINING. Answers Done.

    What is here of that chunk already is kept where it matches. Reads at most `bytes_per_s`
    (0: without bound). Ends when the caller gives up. Errors name the source in `detail`.
    """

    handle: int
    version: int
    sources: tuple[str, ...]
    bytes_per_s: int = 0


@message(153)
class Suspicion:
    """Why the replicas of a chunk may differ, or one of them is bad."""

    handle: int
    version: int
    damaged: bool = False  # the reporting server's own replica has damaged blocks
    address: str = ""  # the link that failed, "" for none


@message(154)
class ReportSuspicions:
    """A chunkserver asks the leader to have chunks settled. Answers Done."""

    server: int
    suspicions: tuple[Suspicion, ...]


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


# -- whoever looks for the leader


@message(163)
class GetMasters:
    """Ask the leader who the masters are. Answers Masters."""


@message(164)
class Masters:
    """The present members' addresses, in the order of their ids."""

    addresses: tuple[str, ...]


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
    # Of the chunks that lack replicas on live servers (`under_replicated`), those that have
    endangered: int = 0  # one, and
    unreadable: int = 0  # none.
    copies: int = 0  # how many replicas a new chunk gets; 0: not told
    gathering: bool = False  # a new leader, to whom known chunkservers may still come
    recovering: str = ""  # from what, while a recovery is under way (GetRecovery)


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


# -- operators: servers, disks, repair


class ServerMode(enum.IntEnum):
    """What an operator has said of a server or of one of its disks."""

    IN_SERVICE = 0
    DRAINING = 1  # its replicas are to be moved elsewhere, and it gets no new ones
    MAINTENANCE = 2  # will be back: its absence starts no repair; gets no new replicas


@message(179)
class SetServerMode:
    """Change the mode of a server (`disk` "") or of one of its disks. Answers Done.

    CONFIG for an unknown server or disk. `seconds` bounds a maintenance; 0: until taken back.
    """

    server: int
    mode: int  # a ServerMode
    disk: str = ""
    seconds: float = 0.0


@message(180)
class RemoveServer:
    """Strike a server that holds no replica from the registry. Answers Done.

    CONFIG, with how many chunks still have a replica there, otherwise. A server that is alive is
    to be stopped first.
    """

    server: int


@message(181)
class GetRepairStatus:
    """Answers RepairStatus, from the leader."""


@message(182)
class RepairClass:
    """One class of the queue. `name`: settling, endangered, under-replicated, draining, misplaced,
    rebalancing, surplus, deletions."""

    name: str
    chunks: int  # waiting and running
    running: int
    bytes: int  # to be copied, as far as known


@message(183)
class ServerRepair:
    """What an operator has said of a server or disk (`disk` ""), and how far it is."""

    server: int
    disk: str
    mode: int
    replicas: int
    until_s: float = 0.0  # left of a maintenance
    dead_for_s: float = 0.0
    repaired_in_s: float = 0.0  # left of a dead server's grace


@message(184)
class RepairStatus:
    classes: tuple[RepairClass, ...]
    servers: tuple[ServerRepair, ...]
    bytes_per_s: float  # copied lately
    cap_bytes_per_s: int  # what it may copy just now; 0: no bound
    eta_s: float  # until the queue is empty at this rate; -1: unknown
    copied_bytes: int = 0  # since this leader leads
    unreadable: int = 0  # chunks of which no complete replica is known
    stuck: str = ""  # why what waits cannot be done now (no server has room, ...); "" when it can
