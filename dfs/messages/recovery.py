"""Dumps of the metadata and the recovery of a cluster, asked by operators. Wire ids 190 to 194."""

from __future__ import annotations

from dfs.rpc.codec import message


@message(190)
class FindDump:
    """A dump that the master asked has: the first with a name after `after`. Answers DumpFile.

    With `make` it begins a new one instead, unless one is being made already, and names that.
    """

    after: str
    make: bool = False


@message(191)
class DumpFile:
    """`name` is "" when there is none. One that is not `ready` is so long by now."""

    name: str
    applied_index: int = 0
    time_ns: int = 0
    total_bytes: int = 0
    ready: bool = False


@message(192)
class FetchDump:
    """A piece of a dump. Answers DumpFile; payload: the bytes, none while it is not ready.

    DISK, or whatever kept it from being made; CONFIG when there is none of that name (any more).
    """

    name: str
    offset: int


@message(193)
class GetRecovery:
    """How far a recovery is (`master.recovery`); with `finish`, end it. Answers RecoveryStatus."""

    finish: bool = False


@message(194)
class RecoveryStatus:
    """`under_way` False: there is none (any more).

    `servers`: of each registered chunkserver (id, 1 once it has reported everything, replicas,
    unknown replicas, their bytes, replicas older than their chunk). `missing_chunks` have no
    replica that was reported; `missing` are the first of them: (inode, index, handle).
    """

    under_way: bool
    source: str = ""  # of the state: a dump, or one master
    since_ns: int = 0
    adopted: int = 0  # versions that were taken from replicas
    servers: tuple[tuple[int, ...], ...] = ()
    chunks: int = 0
    missing_chunks: int = 0
    missing: tuple[tuple[int, ...], ...] = ()
