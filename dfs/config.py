"""Configuration: TOML files read strictly into typed dataclasses.

An unknown key, a missing one, a wrong type or a value out of range is one clear line
(`Failure` CONFIG) that names the file, the key and what would be right. Every limit, timeout and
batch size of the system has its field and default here (C9), none hides in the code that uses it.
Units stand last in the names.

Files: `client.toml` (Client), a master's and a chunkserver's own. The cluster's key is a file of
its own, of which the others give the path, so that configurations can be shown to people.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dfs.errors import Code, Failure

C = TypeVar("C")

ENVIRONMENT_VARIABLE = "DFS_CONFIG"
KEY_MIN_BYTES = 16
LOG_FORMATS = ("text", "json")
_PORT_MAX = 65_535
# Numbers that 0 turns off; every other limit, time and size must be more than that.
_MAY_BE_ZERO = frozenset(
    {
        "apply_flush_s",
        "avoid_server_s",
        "buffer_pool_bytes",
        "cache_bytes",
        "cache_s",
        "debug_sync_delay_ms",
        "deletion_grace_s",
        "hop_margin_s",
        "inline_below_s",
        "inline_flush_below_s",
        "keep_bytes",
        "keep_entries",
        "read_ahead_bytes",
        "repair_bytes_per_s",
        "repair_grace_s",
        "remembered_files",
        "reserve_bytes",
        "scrub_bytes_per_s",
        "scrub_first_s",
        "settle_after_s",
        "slow_memory_s",
        "snapshot_interval_s",
        "unknown_grace_s",
        "verify_below_bytes",
        "write_behind_s",
    }
)


@dataclass(frozen=True)
class Rpc:
    """Bounds of every connection, both sides."""

    max_header_bytes: int = 4 << 20
    max_payload_bytes: int = 8 << 20
    max_in_flight: int = 256  # requests a connection may have unanswered
    max_queued_bytes: int = 32 << 20  # what may wait to be sent on a connection
    max_connections: int = 1024
    handshake_timeout_s: float = 3.0
    connect_timeout_s: float = 2.0
    receive_buffer_bytes: int = 64 << 10  # what one receive may take at a time, per connection
    max_request_bytes: int = 64 << 20  # payloads of unfinished requests, per connection
    buffer_pool_bytes: int = 64 << 20  # idle payload buffers kept for reuse, per node
    idle_probe_s: float = 20.0  # silence after which a peer is asked whether it is there
    probe_timeout_s: float = 3.0  # its time to answer; then the connection counts as dead
    retry_first_s: float = 0.02  # the first backoff at most; doubles up to:
    retry_max_s: float = 1.0
    max_handshakes: int = 64  # not yet proven at a time; the oldest is refused for a newcomer


@dataclass(frozen=True)
class Raft:
    """Timing and sizes of the masters' log (facts: 0.5-1.0 s and 0.1 s give 0.64 s failover)."""

    election_timeout_min_s: float = 0.5
    election_timeout_max_s: float = 1.0
    heartbeat_s: float = 0.1
    lease_fraction: float = 0.9  # of the minimum election timeout
    batch_bytes: int = 4 << 20  # one AppendEntries
    max_command_bytes: int = 1 << 20  # one log entry; well below a batch (H6, H20)
    max_batches_in_flight: int = 2
    max_pending: int = 8192  # proposals waiting to be batched
    compact_entries: int = 20_000  # log length at which it is trimmed (the state is the snapshot)
    keep_entries: int = 10_000  # kept when trimming, for lagging followers (H16)
    map_size_bytes: int = 64 << 30  # address space of the state file, not disk space
    max_commands_per_batch: int = 1024  # proposals packed into one log entry
    compact_bytes: int = 128 << 20  # size of the log in memory that triggers compaction
    keep_bytes: int = 32 << 20  # of log kept for lagging followers, `keep_entries` at the most
    window_bytes: int = 16 << 20  # sent to a follower and not yet acknowledged
    max_inbox: int = 4096  # messages of other masters that wait to be processed
    overlay_bytes: int = 32 << 20  # state changed and not yet on disk
    # Flushes that take less run in the event loop: a thread costs a third of the leader's
    # processor time, and leased reads may wait this long.
    inline_flush_below_s: float = 0.004
    apply_flush_s: float = 0.25  # how long applied state may wait for a flush (the log has it)
    snapshot_piece_bytes: int = 1 << 20  # one FetchSnapshot
    snapshot_timeout_s: float = 10.0  # without a piece for this long, a fetch is given up
    redial_s: float = 0.1  # between attempts to reach another master
    redial_refused_s: float = 10.0  # the same when it has another key
    link_timeout_s: float = 3.0  # a link that brings nothing for this long is closed
    ready_lag_entries: int = 1000  # a master that has more yet to apply is not ready
    verify_below_bytes: int = 512 << 20  # at a start, a state file up to that size is read wholly


@dataclass(frozen=True)
class Metrics:
    """The HTTP endpoint for metrics and health (`metrics_listen`)."""

    max_connections: int = 16  # at a time; the oldest is ended for a newcomer
    max_request_bytes: int = 8192
    request_timeout_s: float = 5.0  # for a whole request, its answer taken
    cache_s: float = 1.0  # for how long what was told once is told again
    loop_probe_s: float = 0.5  # between two looks at how late the event loop runs
    disk_probe_s: float = 10.0  # between two looks at how full a master's disk is


@dataclass(frozen=True)
class Log:
    """What keeps a log readable when one thing goes wrong a thousand times."""

    similar_lines: int = 10  # warnings of one kind in an interval; further ones are only counted
    similar_interval_s: float = 60.0
    max_kinds: int = 1024  # kinds that are told apart at a time


@dataclass(frozen=True)
class MasterLimits:
    session_ttl_s: float = 30.0
    max_sessions: int = 10_000
    max_operations_per_submit: int = 1024
    max_directory_page: int = 2048
    max_chunks_per_request: int = 1024
    chunk_replicas: int = 3
    min_replicas: int = 2
    heartbeat_s: float = 1.0
    server_timeout_s: float = 5.0  # without a heartbeat for this long a chunkserver counts as dead
    server_silence_s: float = 2.5  # without a heartbeat for this long it is given no orders
    servers_return_s: float = 2.5  # a new leader waits so long for known chunkservers to register
    reap_batch: int = 256  # orphans, chunks and deletions handled in one command
    reap_interval_s: float = 1.0
    check_slice: int = 256  # records that `dfs fsck` goes over at a time, off the event loop
    check_share: float = 0.5  # of the time that it works at the most
    check_page: int = 1024  # chunks, and replicas of each server, compared at a time
    check_findings: int = 1000  # of each kind, named one by one; more are only counted
    check_confirm_s: float = 2.0  # between two looks at what is suspicious
    check_looks: int = 5  # at what keeps changing, before it is left undecided
    check_batch: int = 256  # suspicious chunks looked at again at a time
    check_timeout_s: float = 5.0  # a chunkserver's time to list a page
    check_verify_timeout_s: float = 60.0  # and to read a replica from its disk
    check_abandoned_s: float = 30.0  # a check that nobody follows for so long is given up
    deletion_grace_s: float = 60.0  # how long a replica that its chunk does not need is kept
    deletion_grace_full_s: float = 5.0  # the same on a server with less than this free:
    nearly_full_fraction: float = 0.05
    raise_timeout_s: float = 0.75  # for settling a chunk that a client waits for, before it asks on
    settle_wait_s: float = 1.0  # for more replicas to come back before a chunk is settled without
    lost_wait_s: float = 60.0  # the same when those that are here lost unsynced data with the power
    settle_timeout_s: float = 15.0  # one order to settle; the source may have a whole chunk to send
    settle_retry_s: float = 0.1  # after a first failure; doubles up to:
    settle_retry_max_s: float = 30.0
    settles_at_once: int = 32  # those that a client waits for do not count
    settles_per_server: int = 8  # by one source
    repair_grace_s: float = 60.0  # how long a dead server is waited for before it is replaced
    repair_rejoin_s: float = 5.0  # for which a server that a client dropped is not taken back
    repair_interval_s: float = 1.0  # between two looks at what is to be repaired
    repair_scan_chunks: int = 512  # looked through at a time, in the leader's event loop
    repair_queue: int = 1024  # chunks that wait in each class; the rest is found again
    repair_copies_at_once: int = 16
    repair_changes_at_once: int = 32  # chunks worked on, those that need no copy too
    copies_per_server: int = 2  # to it and from it
    repair_bytes_per_s: int = 200 << 20  # copied in the whole cluster; 0: no bound
    repair_busy_bytes_per_s: int = 4 << 20  # from here on clients count as busy; repair then gets:
    repair_share: float = 0.3  # of what both move together
    repair_floor_bytes_per_s: int = 16 << 20  # but not less than this
    repair_timeout_s: float = 20.0  # a copy may take that much longer than at its rate
    repair_retry_s: float = 5.0  # after a first failure of a chunk; doubles up to:
    repair_retry_max_s: float = 120.0
    repair_rate_window_s: float = 30.0  # over which the rate is taken for the estimate of the end
    rebalance_band: float = 0.05  # of their space that servers may differ by
    rebalance_bytes_per_s: int = 50 << 20  # the part of the above that evening out may take
    rebalance_copies_at_once: int = 2
    drain_page: int = 1024  # replicas of a disk asked for at a time
    snapshot_interval_s: float = 3600.0  # between two dumps of the metadata into snapshots/; 0: off
    snapshots_kept: int = 24  # the newest ones
    snapshot_reserve_bytes: int = 256 << 20  # no dump is made when it would leave less of the disk
    # Of uncompressed metadata, while a running master dumps: a fifth of a processor's time.
    dump_bytes_per_s: int = 8 << 20
    dump_frame_bytes: int = 256 << 10  # of it in a frame of a dump
    dump_piece_bytes: int = 1 << 20  # one FetchDump; one transaction of a load


@dataclass(frozen=True)
class Master:
    """`dfs master run --config FILE`."""

    cluster: str
    id: int
    listen: str
    data_dir: str
    key_file: str
    masters: dict[str, str]  # id -> address, this one included; used until the first start only
    advertise: str = ""  # the address others reach it at; "" means `listen`
    rpc: Rpc = field(default_factory=Rpc)
    raft: Raft = field(default_factory=Raft)
    limits: MasterLimits = field(default_factory=MasterLimits)
    metrics_listen: str = ""  # host:port for /metrics, /health and /ready; "" for none
    metrics: Metrics = field(default_factory=Metrics)
    log_format: str = "text"  # or "json": one object per line
    log: Log = field(default_factory=Log)
    debug_sync_delay_ms: float = 0.0  # makes every fsync that much slower, to test with


@dataclass(frozen=True)
class ChunkserverLimits:
    max_open_replicas: int = 512
    report_page: int = 4096
    downstream_timeout_s: float = 2.5
    reserve_bytes: int = 64 << 20  # kept free on each disk
    unknown_grace_s: float = 60.0  # how long a replica unknown to the master is kept
    hop_margin_s: float = 0.25  # what each further link of a chain adds to the timeout above
    inline_below_s: float = 0.02  # a disk is waited for in the event loop while it is that fast
    slow_memory_s: float = 2.0  # and after it was slower, in threads, for this long at least
    settle_after_s: float = 30.0  # age at which written data is synced though nobody asked
    control_timeout_s: float = 2.0  # the master's time to answer
    max_chain: int = 8  # links of a write chain
    heartbeat_s: float = 1.0  # until the master has said how often
    verify_bytes_per_s: int = 128 << 20  # read of a replica that `dfs fsck --deep` has verified
    suspect_after_s: float = 1.5  # what a writer has to report a broken chain itself
    settle_packet_bytes: int = 1 << 20  # sent at a time to make another replica equal
    stop_sync_s: float = 5.0  # an orderly stop syncs what was written for so long at most
    scrub_bytes_per_s: int = 20 << 20  # read of each disk to verify it; 0: no scrub
    scrub_min_bytes_per_s: int = 1 << 20  # the same while clients keep the disk busy
    scrub_first_s: float = 60.0  # after a start, the scrub lets clients and settling go first
    scrub_interval_s: float = 14 * 86_400.0  # from the beginning of one pass to that of the next
    scrub_read_bytes: int = 1 << 20  # one read
    scrub_save_s: float = 60.0  # of a pass, what a crash may lose
    max_checks: int = 1024  # replicas that readers have complained of and that wait for a check
    quarantine_bytes: int = 1 << 30  # kept aside on each disk; beyond, the oldest blocks go
    quarantine_page: int = 256  # files listed in one answer
    read_errors_max: int = 16  # blocks that cannot be read before a disk counts as failed
    max_suspicions: int = 16_384  # damaged replicas remembered to be reported
    suspicion_batch: int = 256  # reported in one message
    suspicion_repeat_s: float = 30.0  # what was reported and not dealt with is so again


@dataclass(frozen=True)
class Chunkserver:
    """`dfs chunkserver run --config FILE`."""

    cluster: str
    id: int
    listen: str
    data_dirs: tuple[str, ...]
    key_file: str
    masters: tuple[str, ...]  # addresses
    advertise: str = ""
    zone: str = "default"
    rpc: Rpc = field(default_factory=Rpc)
    limits: ChunkserverLimits = field(default_factory=ChunkserverLimits)
    metrics_listen: str = ""  # host:port for /metrics, /health and /ready; "" for none
    metrics: Metrics = field(default_factory=Metrics)
    log_format: str = "text"  # or "json": one object per line
    log: Log = field(default_factory=Log)
    debug_sync_delay_ms: float = 0.0


@dataclass(frozen=True)
class ClientLimits:
    packet_bytes: int = 1 << 20  # one WriteChunk
    write_window_bytes: int = 8 << 20  # sent and not yet acknowledged, per file
    dirty_bytes: int = 64 << 20  # written and not yet sent, per mount
    read_ahead_bytes: int = 8 << 20  # per open file
    cache_bytes: int = 128 << 20  # read-ahead data kept, per mount
    metadata_timeout_s: float = 2.0  # one attempt
    data_timeout_s: float = 2.6  # a server's silence; longer than a chain's timeouts (C6: 3 s)
    slow_timeout_s: float = 15.0  # one request to a server that is not silent
    retry_for_s: float = 60.0  # then the call fails with EIO
    max_in_flight: int = 64  # packets per file; operations in one Submit
    submits_in_flight: int = 4  # batches of operations sent and not yet answered
    submit_bytes: int = 256 << 10  # operations in one batch; below the masters' max_command_bytes
    sequence_window: int = 1024  # span of operation numbers with an answer still due
    probe_timeout_s: float = 0.25  # for a server that has just failed to show that it is there
    leader_search_s: float = 0.25  # between two attempts to find the leader, at most
    read_timeout_s: float = 1.5  # a server's silence while there are other replicas to ask
    write_behind_s: float = 2.0  # age at which written data goes out without a flush
    avoid_server_s: float = 10.0  # for how long a server that failed is asked last
    remembered_files: int = 65_536  # closed files whose data version and unsynced chunks are kept
    sync_chunks: int = 65_536  # of a file that others wrote, synced by one fsync: 4 TiB
    close_timeout_s: float = 60.0  # for flushing everything when the client ends
    parallel_files: int = 8  # files that one command of the command line works on at a time
    watch_interval_s: float = 1.0  # between two looks of a command that waits for the cluster


@dataclass(frozen=True)
class Mount:
    """What a mount asks of its kernel."""

    max_tasks: int = 32  # requests of the kernel handled at a time
    read_ahead_kb: int = 1024  # the kernel's own 128 KiB would cut large reads into eight
    invalidation_queue: int = 65_536  # cached names and inodes the kernel is yet to be told of
    sync_timeout_s: float = 60.0  # for making durable what was written, when the mount ends
    quiet_s: float = 0.05  # without a write for so long, the kernel has handed over what it had
    stop_timeout_s: float = 10.0  # how long the kernel's last requests may hold up the end


@dataclass(frozen=True)
class Client:
    """`client.toml`: how to reach a cluster."""

    cluster: str
    key_file: str
    masters: tuple[str, ...]  # addresses
    rpc: Rpc = field(default_factory=Rpc)
    limits: ClientLimits = field(default_factory=ClientLimits)
    mount: Mount = field(default_factory=Mount)
    metrics_listen: str = ""  # host:port for /metrics, /health and /ready; of a mount; "" for none
    metrics: Metrics = field(default_factory=Metrics)
    log_format: str = "text"  # or "json": one object per line
    log: Log = field(default_factory=Log)


def load(cls: type[C], path: str) -> C:
    """Read a TOML file into `cls`. Relative paths in it are relative to the file's directory.

    Raises Failure(CONFIG).
    """
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise Failure(Code.CONFIG, f"{path}: {error.strerror}", errno=error.errno or 0) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failure(Code.CONFIG, f"{path}: not valid TOML: {error}") from None
    made = from_table(cls, table, path)
    _check_addresses(made, path)
    _check_log_format(made, path)
    return _with_absolute_paths(made, os.path.dirname(os.path.abspath(path)))


def from_table(cls: type[C], table: dict[str, Any], about: str) -> C:
    """Check a parsed table against a dataclass. `about` names its origin in errors."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
    unknown = sorted(set(table) - set(fields))
    if unknown:
        known = ", ".join(sorted(fields))
        raise Failure(Code.CONFIG, f"{about}: unknown key {unknown[0]!r}; known are {known}")
    values = {k: _value(hints[k], v, f"{about}: {k}") for k, v in table.items()}
    for name, spec in fields.items():
        optional = (
            spec.default is not dataclasses.MISSING
            or spec.default_factory is not dataclasses.MISSING
        )
        if name not in values and not optional:
            raise Failure(Code.CONFIG, f"{about}: {name!r} is missing")
    return cls(**values)


def _value(hint: Any, value: Any, about: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise Failure(Code.CONFIG, f"{about}: a table is due")
        return from_table(hint, value, about)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(_value(args[0], v, about) for v in _of_type(list, value, about))
    if origin is dict:
        items = _of_type(dict, value, about).items()
        return {k: _value(args[1], v, f"{about}.{k}") for k, v in items}
    return _scalar(hint, value, about)


def _scalar(hint: Any, value: Any, about: str) -> Any:
    if hint is float and type(value) is int:
        value = float(value)
    value = _of_type(hint, value, about)
    if hint in (int, float):
        _check_number(value, about)
    return value


def _check_number(value: float, about: str) -> None:
    if not math.isfinite(value):
        raise Failure(Code.CONFIG, f"{about}: {value} is not a finite number")
    if value < 0:
        raise Failure(Code.CONFIG, f"{about}: {value} is negative")
    if value == 0 and about.rpartition(" ")[2] not in _MAY_BE_ZERO:
        raise Failure(Code.CONFIG, f"{about}: 0 is too small")


def _of_type(hint: Any, value: Any, about: str) -> Any:
    if isinstance(hint, types.GenericAlias) or type(value) is not hint:
        raise Failure(Code.CONFIG, f"{about}: {hint.__name__} is due, not {type(value).__name__}")
    return value


def _check_addresses(made: object, about: str) -> None:
    masters = getattr(made, "masters", ())
    if not masters:
        raise Failure(Code.CONFIG, f"{about}: masters: at least one is due")
    addresses = [("masters", a) for a in (masters.values() if _is_table(masters) else masters)]
    own = ("listen", "advertise", "metrics_listen")
    addresses += [(n, getattr(made, n)) for n in own if getattr(made, n, "")]
    for name, address in addresses:
        check_address(address, f"{about}: {name}")
    if _is_table(masters):
        _check_master_ids(masters, getattr(made, "id", 0), about)


def check_address(address: str, about: str) -> None:
    """Raise Failure(CONFIG) unless that is host:port. `about` names where it was said."""
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) <= _PORT_MAX):
        raise Failure(Code.CONFIG, f"{about}: {address!r} is not host:port")


def _check_log_format(made: object, about: str) -> None:
    log_format = getattr(made, "log_format", "text")
    if log_format not in LOG_FORMATS:
        text = f"{about}: log_format: {log_format!r} is none of {', '.join(LOG_FORMATS)}"
        raise Failure(Code.CONFIG, text)


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _check_master_ids(masters: dict[str, str], own: int, about: str) -> None:
    for key in masters:
        if not (key.isascii() and key.isdigit() and int(key) > 0):
            raise Failure(
                Code.CONFIG, f"{about}: masters: {key!r} is not a master's id (1, 2, ...)"
            )
    if str(own) not in masters:
        text = f"{about}: masters: this master's id {own} is not among them"
        raise Failure(Code.CONFIG, text)


def _with_absolute_paths(made: C, base: str) -> C:
    changes: dict[str, Any] = {}
    for name in ("key_file", "data_dir"):
        if hasattr(made, name):
            changes[name] = os.path.join(base, getattr(made, name))
    if hasattr(made, "data_dirs"):
        changes["data_dirs"] = tuple(os.path.join(base, d) for d in made.data_dirs)
    return typing.cast(C, dataclasses.replace(typing.cast(Any, made), **changes))


def load_key(path: str) -> bytes:
    """The cluster's key: the file's bytes without trailing white space. Raises Failure(CONFIG)."""
    try:
        with open(path, "rb") as file:
            key = file.read().strip()
    except OSError as error:
        raise Failure(Code.CONFIG, f"key file {path}: {error.strerror}") from None
    if len(key) < KEY_MIN_BYTES:
        raise Failure(Code.CONFIG, f"key file {path}: {KEY_MIN_BYTES} bytes at least are due")
    return key
