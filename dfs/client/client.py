"""The client of one cluster: what a mount or a command does with files, as typed calls.

Owns the table of open inodes and what is remembered of closed ones (`History`): the data version
last known, so that caches survive a reopening, the chunks written but not synced, since fsync
covers what an earlier handle has written, and errors that nobody has heard of. Every call retries
over failovers for `limits.retry_for_s`.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import trio

from dfs import config as configuration
from dfs.client.budget import ByteBudget
from dfs.client.chunk_map import ChunkLocations
from dfs.client.chunk_write import ChunkWriter
from dfs.client.file_state import FileState, History
from dfs.client.grid import Grid
from dfs.client.leader import Leader
from dfs.client.meter import ClientMeter
from dfs.client.open_file import OpenFile
from dfs.client.patience import Patience
from dfs.client.read_cache import ReadCache
from dfs.client.servers import Servers
from dfs.client.services import Aging, Services, Ticks
from dfs.client.session import Session
from dfs.client.write_back import WriteBack
from dfs.errors import Failure
from dfs.messages.chunks import InspectReplica, ReplicaInfo
from dfs.messages.common import Attributes, Credentials
from dfs.messages.metadata import (
    Answer,
    ChunkMap,
    DirectoryEntry,
    DirectoryPage,
    FsInfo,
    GetAttributes,
    GetChunks,
    GetXattr,
    LinkTarget,
    ListXattrs,
    Lookup,
    ReadDirectory,
    ReadLink,
    StatFs,
    XattrNames,
    XattrValue,
)
from dfs.messages.operations import Create, Operation, SetAttributes
from dfs.rpc import Endpoint, Identity, Pool
from dfs.runtime import Env

log = logging.getLogger(__name__)

A = TypeVar("A")


class Client:
    """An open session with a cluster. Made by `open_client`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._files: dict[int, FileState] = {}
        self._remembered: OrderedDict[int, History] = OrderedDict()

    @property
    def root_inode(self) -> int:
        return self._services.session.root_inode

    @property
    def session(self) -> int:
        """The session's id; changes when an expired session had to be replaced."""
        return self._services.session.id

    @property
    def services(self) -> Services:
        """What its files share; for whoever shows how it is doing."""
        return self._services

    @property
    def open_count(self) -> int:
        """How many inodes are open."""
        return len(self._files)

    # -- names and attributes

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        """The inode under that name, with this client's unflushed size and times. ENOENT."""
        return await self._ask_attributes(Lookup(parent, name))

    async def attributes(self, inode: int) -> Attributes:
        """The inode's attributes, with this client's unflushed size and times. ENOENT."""
        return await self._ask_attributes(GetAttributes(inode))

    async def read_directory(self, inode: int, after_cookie: int, limit: int) -> DirectoryPage:
        """Entries after the cookie (0: from the start), at most `limit`."""
        asked_at = self._services.ticks.next()
        page = await self._ask(ReadDirectory(inode, after_cookie, limit), DirectoryPage)
        if not self._files:
            return page
        entries = tuple(self._merged_entry(entry, asked_at) for entry in page.entries)
        return DirectoryPage(entries, page.complete)

    async def read_link(self, inode: int) -> bytes:
        """The target of a symlink. EINVAL."""
        answer = await self._services.leader.call(ReadLink(inode), LinkTarget)
        return answer.target

    async def get_xattr(self, inode: int, name: bytes, caller: Credentials) -> bytes:
        """An extended attribute's value. ENODATA."""
        answer = await self._services.leader.call(GetXattr(inode, name, caller), XattrValue)
        return answer.value

    async def list_xattrs(self, inode: int, caller: Credentials) -> tuple[bytes, ...]:
        """The names of the inode's extended attributes."""
        answer = await self._services.leader.call(ListXattrs(inode, caller), XattrNames)
        return answer.names

    async def stat_fs(self) -> FsInfo:
        """Space and inodes of the whole file system."""
        return await self._services.leader.call(StatFs(), FsInfo)

    # -- changes

    async def perform(self, operation: Operation) -> Answer:
        """Carry out one change, exactly once over failovers. Raises Failure when refused.

        A caller that is cancelled does not know whether the change was made.
        """
        if isinstance(operation, SetAttributes):
            return await self.set_attributes(operation)
        answer = await self._services.session.perform(operation)
        if isinstance(operation, Create) and isinstance(answer, Attributes):
            return self._learn(answer, self._services.ticks.next())
        return answer

    async def set_attributes(self, operation: SetAttributes) -> Attributes:
        """chmod, chown, utimens and truncate, in order with this client's buffered writes."""
        file = self._files.get(operation.inode)
        if file is not None:
            file.must_not_be_lost()
            return await file.set_attributes(operation)
        answer = await self._services.session.perform(operation)
        assert isinstance(answer, Attributes)
        if operation.size_bytes is not None:
            locations = ChunkLocations(self._services, answer.inode, answer.size_bytes)
            writer = ChunkWriter(self._services, locations)
            await writer.finish_truncate(answer.size_bytes)
        return answer

    # -- files

    async def open_file(self, inode: int, caller: Credentials, *, write: bool) -> OpenFile:
        """Open an existing inode for reading, or also for writing. ENOENT when it is gone.

        Whether the caller may is the business of whoever asks (the kernel, or `paths`).
        """
        asked_at = self._services.ticks.next()
        attributes = await self._services.session.open_inode(inode)
        return self._opened(attributes, caller, asked_at, write=write)

    async def create_file(self, operation: Create) -> OpenFile:
        """open(O_CREAT): create the file (or find it, unless exclusive) and open it to write.

        What is found may be of another kind than a regular file; see `OpenFile.attributes`.
        """
        asked_at = self._services.ticks.next()
        answer = await self._services.session.perform(operation, keep_open=True)
        assert isinstance(answer, Attributes)
        created = operation.exclusive
        return self._opened(answer, operation.caller, asked_at, write=True, created=created)

    def is_open(self, inode: int) -> bool:
        """Whether any handle of the inode is open here."""
        return inode in self._files

    # -- what the command line shows

    async def chunk_map(self, inode: int, first_index: int, count: int) -> ChunkMap:
        """Where the file's chunks are."""
        return await self._services.leader.call(GetChunks(inode, first_index, count), ChunkMap)

    async def inspect(self, address: str, handle: int) -> ReplicaInfo:
        """What one chunkserver says of its replica of a chunk. NO_REPLICA."""
        timeout_s = self._services.limits.data_timeout_s
        message = InspectReplica(handle)
        received = await self._services.pool.call(address, message, timeout_s=timeout_s)
        assert isinstance(received.message, ReplicaInfo)
        return received.message

    async def cluster_call(self, message: object) -> Any:
        """Any request to the leader, retried like the others; its answer."""
        return await self._services.leader.call(message, object)

    # -- inside

    async def _ask(self, message: object, answer: type[A]) -> A:
        """A question whose answer our commits may overtake."""
        self._services.ticks.asking += 1
        try:
            return await self._services.leader.call(message, answer)
        finally:
            self._services.ticks.asking -= 1

    async def _ask_attributes(self, message: object) -> Attributes:
        asked_at = self._services.ticks.next()
        answer = await self._ask(message, Attributes)
        return self._learn(answer, asked_at)

    def _learn(self, attributes: Attributes, asked_at: int) -> Attributes:
        """Let an open file know what the master says, and add what the master does not know."""
        file = self._files.get(attributes.inode)
        if file is None:
            return attributes
        file.take(attributes, asked_at)
        return file.merged(attributes, asked_at)

    def _merged_entry(self, entry: DirectoryEntry, asked_at: int) -> DirectoryEntry:
        file = self._files.get(entry.attributes.inode)
        if file is None:
            return entry
        merged = file.merged(entry.attributes, asked_at)
        return DirectoryEntry(entry.name, entry.cookie, merged)

    def _opened(
        self,
        attributes: Attributes,
        caller: Credentials,
        asked_at: int,
        *,
        write: bool,
        created: bool = False,
    ) -> OpenFile:
        file = self._files.get(attributes.inode)
        if file is None:
            file, unchanged = self._begin(attributes, created=created)
        else:
            unchanged = file.take(attributes, asked_at)
        file.handles += 1
        shown = file.merged(attributes, asked_at)
        return OpenFile(file, shown, caller, unchanged=unchanged, write=write)

    def _begin(self, attributes: Attributes, *, created: bool) -> tuple[FileState, bool]:
        inode = attributes.inode
        known = self._remembered.pop(inode, None) or History()
        unchanged = known.version == attributes.data_version
        if not unchanged:
            known.others_synced = False
            self._services.cache.drop(inode)
        file = FileState(self._services, attributes, known, self._released, created=created)
        self._files[inode] = file
        return file, unchanged

    def _released(self, file: FileState) -> None:
        """The last handle is closed and everything written."""
        if self._files.get(file.inode) is not file:
            return
        del self._files[file.inode]
        self._remembered[file.inode] = file.history()
        while len(self._remembered) > self._services.limits.remembered_files:
            inode, history = self._remembered.popitem(last=False)
            if history.unsynced:
                self._services.nursery.start_soon(self._sync_closed, inode, history)

    def send_all(self) -> None:
        """Let all written data go out: somebody waits for room."""
        for file in list(self._files.values()):
            file.send_all()

    def lose_files(self) -> None:
        """The session has expired: what is open is lost."""
        lost, self._files = self._files, {}
        for file in lost.values():
            file.lose()

    async def flush_all(self) -> None:
        """Return when nothing is left to be written, or cannot be."""
        async with trio.open_nursery() as nursery:
            for file in list(self._files.values()):
                nursery.start_soon(file.flush)

    async def sync_all(self) -> None:
        """Make durable whatever was written here, to files closed since as well: sync(2).

        Raises the Failure of one of the files where that cannot be had; their own handles hear of
        it too.
        """
        failures: list[Failure] = []
        due = [(f.history(), f.sync_own) for f in self._files.values()]
        due += [
            (h, partial(self._sync_closed, inode, h))
            for inode, h in self._remembered.items()
            if h.unsynced
        ]
        following = iter(due)

        async def sync_some() -> None:
            for history, sync in following:
                errors = history.errors.count
                await sync()
                if history.errors.count > errors:
                    failures.append(history.errors.newest())

        async with trio.open_nursery() as nursery:
            for _ in range(min(len(due), self._services.limits.max_in_flight)):
                nursery.start_soon(sync_some)
        if failures:
            raise failures[0]

    async def _sync_closed(self, inode: int, history: History) -> None:
        locations = ChunkLocations(self._services, inode, 0)
        await WriteBack(self._services, inode, locations, history.unsynced, history.errors).sync()

    def log_untold(self) -> None:
        """At the end: the errors that no program was told of, so that a person is."""
        known = {inode: file.history() for inode, file in self._files.items()}
        for inode, history in (*known.items(), *self._remembered.items()):
            errors = history.errors
            if errors.raised < errors.count:
                text = errors.newest().message
                log.error("%s: inode %d: data was lost: %s", self._services.env.name, inode, text)


@asynccontextmanager
async def open_client(
    env: Env, config: configuration.Client, description: str
) -> AsyncIterator[Client]:
    """Open a session with the cluster and keep it; on exit flush everything and end the session.

    `description` tells people at the master who this is (host, pid, mount point). Raises Failure
    when no master can be reached or the key is wrong. Unclosed files are flushed at exit within
    `limits.close_timeout_s`, but their errors are only logged: close files before.
    """
    key = configuration.load_key(config.key_file)
    endpoint = Endpoint(env, key, Identity("client", 0, ""), config.rpc)
    try:
        async with trio.open_nursery() as nursery:
            client = _assemble(env, config, Pool(endpoint, nursery), nursery, description)
            services = client._services
            try:
                await services.session.open(nursery)
                nursery.start_soon(services.session.keep)
                nursery.start_soon(services.aging.run)
                nursery.start_soon(services.patience.run)
                yield client
            finally:
                with trio.CancelScope(shield=True):
                    await _end(env, client, services)
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        alone = group.exceptions[0]  # what the user's own block raised, mostly
        raise alone from alone.__cause__


def _assemble(
    env: Env, config: configuration.Client, pool: Pool, nursery: trio.Nursery, description: str
) -> Client:
    limits = config.limits
    meter = ClientMeter()
    leader = Leader(env, pool, config.masters, limits, config.rpc, meter)
    services = Services(
        env=env,
        limits=limits,
        rpc=config.rpc,
        pool=pool,
        leader=leader,
        session=Session(env, leader, limits, config.rpc, description, meter),
        servers=Servers(env, limits.avoid_server_s),
        patience=Patience(env),
        dirty_budget=ByteBudget(limits.dirty_bytes, lambda: client.send_all()),
        cache=ReadCache(limits.cache_bytes),
        grid=Grid(limits.packet_bytes),
        aging=Aging(env, limits.write_behind_s),
        ticks=Ticks(),
        meter=meter,
        nursery=nursery,
    )
    client = Client(services)
    services.session.on_lost = client.lose_files
    return client


async def _end(env: Env, client: Client, services: Services) -> None:
    with env.clock.move_on_after(services.limits.close_timeout_s) as scope:
        await client.flush_all()
    if scope.cancelled_caught:
        log.error("%s: not everything written could be flushed in time", env.name)
    client.log_untold()
    await services.session.end()


__all__ = ["Client", "open_client"]
