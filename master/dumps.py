"""A running master's dumps: made at intervals or when asked for, verified, kept, handed out.

Every master makes its own, of its own state, so that each disk that survives has some. The state
file is copied first (LMDB copies beside reads and writes, and the copy is of one applied index),
then the copy is written out as a dump (`master.dump`), a frame at a time and at a bounded rate so
that a leader goes on answering, and the dump is read back and compared with its digest before it
gets its name. A whole read of the state is also how damage on the disk is found.

In DATA_DIR/snapshots/, times in UTC:

    snapshot-20240131T235959.123Z.dump   made by the clock; the newest `snapshots_kept` stay
    asked-20240131T235959.123Z.dump      made by `dfs meta dump`; the newest one stays
    copying.mdb, *.dump.new              under way; gone at the next start

Space: each dump takes about a quarter of what its keys and values do; while one is made there is a
copy of the state file beside it. None is begun that would leave less than
`snapshot_reserve_bytes` of the disk, which the log needs more.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import trio

from dfs import __version__
from dfs.config import Master
from dfs.errors import Code, Failure
from dfs.messages.recovery import DumpFile, FetchDump, FindDump
from dfs.rpc import Handlers, Reply, Request
from dfs.runtime import Env
from dfs.runtime.disk import Disk
from master import dump
from master.dump import Header, Reader
from master.raft import RaftNode, formats
from master.raft.membership import applied_index, lineage, stored_members
from master.raft.snapshots import remove_store
from master.store import JOURNAL, META, Store

log = logging.getLogger(__name__)

DIRECTORY = "snapshots"
SUFFIX, PARTIAL = ".dump", ".dump.new"
BY_CLOCK, ASKED = "snapshot", "asked"
COPY = "copying.mdb"
_FIRST_FRACTION = 1 / 12  # of the interval: a master without any snapshot waits less for one
_RETRY_FRACTION = 1 / 12  # and so does one that could not make it


class Dumps:
    """The dumps of one master."""

    def __init__(self, env: Env, raft: RaftNode, store: Store, config: Master) -> None:
        self._env, self._raft, self._store, self._config = env, raft, store, config
        self._limits = config.limits
        self._directory = f"{config.data_dir}/{DIRECTORY}"
        self._making: DumpFile | None = None
        self._failed: tuple[str, Failure] | None = None  # the last that could not be made
        self._nursery: trio.Nursery | None = None

    def handlers(self) -> Handlers:
        return {FindDump: self._find, FetchDump: self._fetch}

    async def run(self) -> None:
        """Make a snapshot whenever one is due, for as long as this master lives."""
        try:
            await self._env.run_blocking(self._prepare, "dump")
        except OSError as error:  # of the disk: it shows again with each dump
            log.error("%s: %s cannot be tidied: %s", self._env.name, self._directory, error)
        async with trio.open_nursery() as self._nursery:
            interval_s = self._limits.snapshot_interval_s
            while interval_s:
                await self._env.clock.sleep(self._due_in_s())
                if self._making is None and not await self._make_one(BY_CLOCK):
                    await self._env.clock.sleep(interval_s * _RETRY_FRACTION)
            await trio.sleep_forever()

    def _prepare(self) -> None:
        self._env.disk.make_directory(self._directory)
        remove_store(self._env.disk, f"{self._directory}/{COPY}")
        for name in self._env.disk.list_directory(self._directory):
            if name.endswith(PARTIAL):
                self._env.disk.unlink(f"{self._directory}/{name}")

    def _due_in_s(self) -> float:
        interval_s = self._limits.snapshot_interval_s
        mine = [name for name in self._names() if name.startswith(f"{BY_CLOCK}-")]
        if not mine:
            return interval_s * _FIRST_FRACTION
        age_s = (self._env.clock.wall_ns() - _time_of(mine[-1])) / 1e9
        return min(max(interval_s - age_s, 1.0), interval_s)

    # -- handlers

    async def _find(self, request: Request) -> DumpFile:
        message: FindDump = request.message
        if message.make:
            return await self._begin()
        names = [name for name in self._names() if name > message.after]
        if not names:
            return DumpFile("")
        return await self._env.run_blocking(partial(self._describe, names[0]), "dump")

    async def _begin(self) -> DumpFile:
        if self._making is None:
            if self._nursery is None:
                raise Failure(Code.UNAVAILABLE, f"{self._env.name} has only just started")
            self._making = DumpFile(self._new_name(ASKED))
            self._nursery.start_soon(self._make_one, ASKED)
        return self._making

    async def _fetch(self, request: Request) -> Reply:
        message: FetchDump = request.message
        if self._making is not None and message.name == self._making.name:
            return Reply(self._making)
        if self._failed is not None and message.name == self._failed[0]:
            failure = self._failed[1]
            raise Failure(failure.code, failure.message, errno=failure.errno)
        if message.name not in self._names():
            text = f"{self._env.name} has no dump {message.name!r} (any more)"
            raise Failure(Code.CONFIG, text)
        return await self._env.run_blocking(partial(self._piece, message), "dump")

    def _piece(self, message: FetchDump) -> Reply:
        about = self._describe(message.name)
        file = self._env.disk.open(f"{self._directory}/{message.name}")
        try:
            left = max(0, about.total_bytes - max(0, message.offset))
            data = bytearray(min(self._limits.dump_piece_bytes, left))
            file.pread_into(memoryview(data), max(0, message.offset))
        except OSError as error:
            raise _refused(error) from None
        finally:
            file.close()
        return Reply(about, [data])

    def _names(self) -> list[str]:
        disk = self._env.disk
        found = disk.list_directory(self._directory) if disk.exists(self._directory) else []
        return [name for name in found if name.endswith(SUFFIX)]

    def _describe(self, name: str) -> DumpFile:
        with reading(self._env.disk, f"{self._directory}/{name}") as (reader, total_bytes):
            header = reader.header
            return DumpFile(name, header.applied, header.time_ns, total_bytes, True)

    # -- making one

    def _new_name(self, kind: str) -> str:
        return f"{kind}-{_stamp(self._env.clock.wall_ns())}{SUFFIX}"

    async def _make_one(self, kind: str) -> bool:
        """Make a dump; whether it was made. Only one at a time."""
        name = self._making.name if self._making is not None else self._new_name(kind)
        self._making = DumpFile(name)
        try:
            await self._make(name)
        except (OSError, Failure) as error:
            failure = error if isinstance(error, Failure) else _refused(error)
            self._failed = name, failure
            log.error("%s: no %s: %s", self._env.name, name, failure.message)
            return False
        else:
            await self._env.run_blocking(partial(self._prune, kind), "dump")
            return True
        finally:
            self._making = None

    async def _make(self, name: str) -> None:
        copy_path = f"{self._directory}/{COPY}"
        self._check_space()
        await self._raft.flush_applied()
        try:
            await self._store.copy_to(self._env, copy_path)
            copy = Store.open(self._env, copy_path, self._config.raft)
            try:
                header = header_of(copy, self._config, self._env.clock.wall_ns())
                await self._write(name, header, copy)
            finally:
                copy.close()
        finally:
            await self._env.run_blocking(partial(remove_store, self._env.disk, copy_path), "dump")
        path = f"{self._directory}/{name}"
        total_bytes = await self._verify(_partial(path))
        self._env.disk.rename(_partial(path), path)
        await self._env.run_blocking(
            partial(self._env.disk.sync_directory, self._directory), "dump"
        )
        text = "%s: %s of the state at %d, %d bytes, verified"
        log.info(text, self._env.name, name, header.applied, total_bytes)

    def _check_space(self) -> None:
        needed = self._store.used_bytes() * 2 + self._limits.snapshot_reserve_bytes
        free = self._env.disk.space(self._directory).free_bytes
        if free < needed:
            text = (
                f"{self._directory} has {free} bytes free, a dump needs {needed} with its reserve"
            )
            raise Failure(Code.DISK, text)

    async def _write(self, name: str, header: Header, copy: Store) -> None:
        disk, path = self._env.disk, _partial(f"{self._directory}/{name}")
        file, at = disk.open(path, write=True, create=True), 0
        frames = dump.frames(header, copy, self._limits.dump_frame_bytes)
        try:
            while (
                frame := await self._env.run_blocking(partial(next, frames, b""), "dump")
            ) != b"":
                await self._env.run_blocking(partial(file.pwrite, [frame], at), "dump")
                at += len(frame)
                self._making = DumpFile(name, header.applied, header.time_ns, at)
                await self._pause()
            await self._env.run_blocking(file.datasync, "dump")
        finally:
            file.close()

    async def _verify(self, path: str) -> int:
        """Read it back; its length. Raises Failure when it is not what was to be written."""
        with reading(self._env.disk, path) as (reader, total_bytes):
            batches = reader.batches()
            while await self._env.run_blocking(partial(next, batches, None), "dump") is not None:
                await self._pause()
            return total_bytes

    async def _pause(self) -> None:
        await self._env.clock.sleep(self._limits.dump_frame_bytes / self._limits.dump_bytes_per_s)

    def _prune(self, kind: str) -> None:
        kept = self._limits.snapshots_kept if kind == BY_CLOCK else 1
        mine = [name for name in self._names() if name.startswith(f"{kind}-")]
        for name in mine[:-kept]:
            self._env.disk.unlink(f"{self._directory}/{name}")


def header_of(store: Store, config: Master, time_ns: int) -> Header:
    """What a dump of that store says of itself."""
    applied = applied_index(store)
    entry = store.get(JOURNAL, formats.pack_u64(applied))
    vote = store.get(META, b"term")
    term = formats.unpack_vote(vote)[0] if vote else 0
    if entry is not None:
        term = formats.unpack_entry(formats.pack_u64(applied), entry)[2]
    members = tuple((m.id, m.address) for m in stored_members(store) if m.present)
    return Header(
        config.cluster,
        config.id,
        applied,
        term,
        time_ns,
        members=members,
        lineage=lineage(store),
        program=__version__,
    )


@contextmanager
def reading(disk: Disk, path: str) -> Iterator[tuple[Reader, int]]:
    """A dump file, opened: a reader that has seen its header, and its length."""
    file = disk.open(path)
    try:
        yield Reader(dump.sequential(file), path), file.size()
    finally:
        file.close()


def _partial(path: str) -> str:
    return path.removesuffix(SUFFIX) + PARTIAL


def _refused(error: OSError) -> Failure:
    return Failure(Code.DISK, f"the disk refused a dump: {error}", errno=error.errno or 0)


def _stamp(time_ns: int) -> str:
    moment = datetime.datetime.fromtimestamp(time_ns // 1_000_000_000, datetime.UTC)
    return f"{moment:%Y%m%dT%H%M%S}.{time_ns // 1_000_000 % 1000:03d}Z"


def _time_of(name: str) -> int:
    """The time in a dump's name, in ns; 0 when it is not one of ours."""
    try:
        stamp = name.split("-")[1].removesuffix(SUFFIX)
        moment = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%S.%fZ")
    except (ValueError, IndexError):
        return 0
    return int(moment.replace(tzinfo=datetime.UTC).timestamp()) * 1_000_000_000
