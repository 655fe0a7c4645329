"""The work of `dfs meta`: fetching dumps from masters, reading them, and what to say about it.

A dump that is written to a file appears there whole and verified, or not at all.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dfs.cli import output
from dfs.cli.masters import ask_all
from dfs.cli.one_master import conversing, leader_or_newest
from dfs.config import Client, Master
from dfs.errors import Code, Failure
from dfs.messages.recovery import DumpFile, FetchDump, FindDump, GetRecovery, RecoveryStatus
from dfs.rpc import Connection
from dfs.runtime import Env
from master import dump
from master.dump import End, Header, Reader
from master.dumps import header_of, reading
from master.opening import STATE, lock_directory
from master.raft.membership import check_format
from master.store import Store

STDOUT = "-"
PARTIAL = ".partial"
POLL_S = 0.2
_FRAME_BYTES = 256 << 10
PIECE_TIMEOUT_S = 60.0
RECOVERY_TIMEOUT_S = 600.0  # the leader looks at every chunk


@dataclass(frozen=True)
class Fetch:
    """Which dump is wanted, and whom to tell how far it is."""

    settings: Client
    timeout_s: float
    master: str  # "": the leader
    snapshot: str  # "": a new one
    tell: Callable[[str], None]


class Output:
    """A file of the user's, or standard output."""

    def __init__(self, env: Env, path: str) -> None:
        self._disk, self.path = env.disk, path
        self._file = None
        if path != STDOUT:
            self._file = env.disk.open(path + PARTIAL, write=True, create=True)
            self._file.truncate(0)
        self._at = 0

    def write(self, data: bytes) -> None:
        if self._file is None:
            sys.stdout.buffer.write(data)
        else:
            self._file.pwrite([data], self._at)
        self._at += len(data)

    def finish(self) -> str:
        """Verify it and give it its name; what to say. Raises Failure or OSError."""
        if self._file is None:
            sys.stdout.buffer.flush()
            return f"{self._at} bytes written; verify them with `dfs meta check`"
        self._file.datasync()
        with reading(self._disk, self.path + PARTIAL) as (reader, total_bytes):
            end = dump.verify(reader)
            applied = reader.header.applied
        self._disk.rename(self.path + PARTIAL, self.path)
        records = sum(end.records)
        return f"{self.path}: state at {applied}, {records} records, {total_bytes} bytes, verified"

    def close(self) -> None:
        """Of what is not finished nothing remains."""
        if self._file is not None:
            self._file.close()
            if self._disk.exists(self.path + PARTIAL):
                self._disk.unlink(self.path + PARTIAL)


# -- dumps


async def dump_offline(env: Env, config: Master, path: str) -> str:
    """Dump a stopped master's state. Raises Failure or OSError."""
    with _stopped(env, config) as store:
        out = Output(env, path)
        try:
            header = header_of(store, config, env.clock.wall_ns())
            for frame in dump.frames(header, store, config.limits.dump_frame_bytes):
                out.write(frame)
            return out.finish()
        finally:
            out.close()


async def dump_online(env: Env, fetch: Fetch, path: str) -> str:
    """Have a master make a dump, or take one that it has, and fetch it. Raises Failure, OSError."""
    settings = fetch.settings
    address = fetch.master or await leader_or_newest(env, settings, min(3.0, fetch.timeout_s))
    out = Output(env, path)

    async def talk(connection: Connection) -> None:
        name = fetch.snapshot or await _made(env, connection, fetch)
        await _copy(connection, name, out)

    try:
        await conversing(env, settings, address, talk)
        return out.finish()
    finally:
        out.close()


async def _made(env: Env, connection: Connection, fetch: Fetch) -> str:
    """The name of a new dump, once it is there."""
    told = (await connection.call(FindDump("", True), timeout_s=PIECE_TIMEOUT_S)).message
    about: DumpFile = told
    fetch.tell(f"{connection.peer} makes {about.name}")
    while not about.ready:
        await env.clock.sleep(POLL_S)
        request = FetchDump(about.name, 0)
        about = (await connection.call(request, timeout_s=PIECE_TIMEOUT_S)).message
    return about.name


async def _copy(connection: Connection, name: str, out: Output) -> None:
    offset, total_bytes = 0, 1
    while offset < total_bytes:
        received = await connection.call(FetchDump(name, offset), timeout_s=PIECE_TIMEOUT_S)
        about: DumpFile = received.message
        if not received.payload:
            raise Failure(Code.UNAVAILABLE, f"{connection.peer}: {name} is not ready")
        out.write(bytes(received.payload))
        offset, total_bytes = offset + len(received.payload), about.total_bytes


async def check(env: Env, path: str) -> dict[str, Any]:
    """Verify a dump; what it is of. Raises Failure or OSError."""
    with reading(env.disk, path) as (reader, total_bytes):
        end = dump.verify(reader)
        return _facts(reader.header, end, total_bytes)


async def check_offline(env: Env, config: Master) -> dict[str, Any]:
    """Verify a stopped master's state, structure and records; what it is. Raises as `check`."""
    with _stopped(env, config) as store:
        frames = dump.frames(header_of(store, config, env.clock.wall_ns()), store, _FRAME_BYTES)
        reader = Reader(_joined(frames), config.data_dir)
        end = dump.verify(reader)
        return _facts(reader.header, end, store.used_bytes())


def _joined(pieces: Iterator[bytes]) -> Callable[[int], bytes]:
    """What a `Reader` reads with, from the pieces of a dump that is being made."""
    pending = bytearray()

    def read(length_bytes: int) -> bytes:
        while len(pending) < length_bytes and (piece := next(pieces, b"")):
            pending.extend(piece)
        data = bytes(pending[:length_bytes])
        del pending[:length_bytes]
        return data

    return read


@contextmanager
def _stopped(env: Env, config: Master) -> Iterator[Store]:
    """The state of a master that does not run, its structure verified. Raises Failure, OSError."""
    lock_directory(env, config)
    state = f"{config.data_dir}/{STATE}"
    if not env.disk.exists(state):
        raise Failure(Code.CONFIG, f"{config.data_dir} holds no master's state")
    env.disk.verify_key_value(state)
    store = Store.open(env, state, config.raft)
    try:
        check_format(store)
        yield store
    finally:
        store.close()


def _facts(header: Header, end: End, total_bytes: int) -> dict[str, Any]:
    made = dataclasses.asdict(header)
    made["members"] = [{"id": id, "address": address} for id, address in header.members]
    made.pop("tables")
    return {
        **made,
        "file_bytes": total_bytes,
        "bytes": end.bytes,
        "records": dict(dump.counts(header, end)),
        "digest": end.digest,
    }


def described(path: str, facts: dict[str, Any]) -> list[str]:
    """What `dfs meta check` tells a person."""
    records = ", ".join(f"{count} {table}" for table, count in facts["records"].items() if count)
    masters = ", ".join(f"{m['id']} at {m['address']}" for m in facts["members"])
    return [
        f"{path} is sound.",
        f"cluster  {facts['cluster']}, dumped by master {facts['master']} (dfs {facts['program']})",
        f"state    at {facts['applied']} of {output.timestamp(facts['time_ns'])}",
        f"masters  {masters}",
        f"holds    {records}",
        f"size     {output.human_bytes(facts['file_bytes'])},"
        f" {output.human_bytes(facts['bytes'])} of keys and values",
        f"digest   {facts['digest']}",
    ]


# -- snapshots


async def snapshots(env: Env, settings: Client, timeout_s: float) -> list[dict[str, Any]]:
    """Of each master: its address, its dumps by name, and why it could not be asked."""
    found = []
    for answer in await ask_all(env, settings, timeout_s):
        row: dict[str, Any] = {"address": answer.address, "problem": answer.problem, "dumps": []}
        row["master"] = answer.status.master if answer.status is not None else 0
        if answer.status is not None:
            try:
                dumps = await conversing(env, settings, answer.address, _list)
                row["dumps"] = [dataclasses.asdict(about) for about in dumps]
            except Failure as failure:
                row["problem"] = failure.message
        found.append(row)
    return found


async def _list(connection: Connection) -> list[DumpFile]:
    found: list[DumpFile] = []
    after = ""
    while True:
        received = await connection.call(FindDump(after), timeout_s=PIECE_TIMEOUT_S)
        about: DumpFile = received.message
        if not about.name:
            return found
        found.append(about)
        after = about.name


def listed(masters: list[dict[str, Any]]) -> list[str]:
    """What `dfs meta snapshots` tells a person."""
    rows = [["master", "name", "made", "state at", "size"]]
    for master in masters:
        for about in master["dumps"]:
            made, size = (
                output.timestamp(about["time_ns"]),
                output.human_bytes(about["total_bytes"]),
            )
            index = str(about["applied_index"])
            rows.append([str(master["master"]), about["name"], made, index, size])
    lines = output.table(rows, right=frozenset({3, 4}))
    for master in masters:
        sizes = [about["total_bytes"] for about in master["dumps"]]
        told = master["problem"] or f"{len(sizes)} dumps, {output.human_bytes(sum(sizes))}"
        lines.append(f"{master['address']}: {told}")
    return lines


# -- recovery


async def recovery(
    env: Env, settings: Client, timeout_s: float, *, finish: bool = False
) -> RecoveryStatus:
    """What the leader says about a recovery; with `finish` it is ended. Raises Failure."""

    async def ask(connection: Connection) -> RecoveryStatus:
        received = await connection.call(GetRecovery(finish), timeout_s=RECOVERY_TIMEOUT_S)
        status: RecoveryStatus = received.message
        return status

    address = await leader_or_newest(env, settings, min(3.0, timeout_s))
    return await conversing(env, settings, address, ask)


def unreported(status: RecoveryStatus) -> list[int]:
    """The chunkservers that have not reported everything they have."""
    return [row[0] for row in status.servers if not row[1]]


def recovery_report(status: RecoveryStatus) -> list[str]:
    """What a person reads of it."""
    if not status.under_way:
        return ["no recovery is under way"]
    began = output.timestamp(status.since_ns)
    lines = [f"recovering since {began}, from {status.source}", ""]
    rows = [["chunkserver", "reported", "replicas", "unknown", "bytes of them", "behind"]]
    for server, complete, replicas, unknown, unknown_bytes, behind in status.servers:
        counts = [str(replicas), str(unknown), output.human_bytes(unknown_bytes), str(behind)]
        rows.append([str(server), "all" if complete else "NOT YET", *counts])
    lines += output.table(rows, right=frozenset({2, 3, 4, 5}))
    lines += ["", f"{status.chunks} chunks; {status.adopted} took a newer version from replicas"]
    unknown = sum(row[3] for row in status.servers)
    if unknown:
        lines.append(
            f"{unknown} unknown replicas: data written to new chunks after the state was saved;"
            " they are kept until the recovery ends, then deleted after their grace period"
        )
    if status.missing_chunks:
        known = "" if not unreported(status) else " so far"
        lines.append(f"{status.missing_chunks} chunks have no replica{known}:")
        lines += [f"  inode {i} chunk {at} (handle {h:x})" for i, at, h in status.missing]
    waiting = unreported(status)
    if waiting:
        names = ", ".join(map(str, waiting))
        lines.append(f"! wait for chunkservers {names}: nothing can be read before they reported")
    return lines
