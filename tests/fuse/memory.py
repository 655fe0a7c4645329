"""A file system in memory behind the client library's interface, for mounts without a cluster.

The namespace is the masters' real state machine over tables in memory, so errnos are the real
ones; contents are blocks in dictionaries. As in the client library, sizes and times of written
files are known to the "master" only once flushed, and merged into what this client answers.
"""

from __future__ import annotations

import logging
import stat
from dataclasses import dataclass, field, replace

import trio

from dfs.errors import Code, Failure, os_failure
from dfs.layout import ROOT_INODE
from dfs.messages.common import ROOT, Attributes, Credentials, Done, Refused
from dfs.messages.metadata import (
    Answer,
    DirectoryEntry,
    DirectoryPage,
    FsInfo,
    Numbered,
    Submitted,
)
from dfs.messages.operations import (
    CommitWrite,
    Create,
    Operation,
    SetAttributes,
)
from dfs.rpc.codec import encode
from dfs.runtime import Buffer, Clock
from master.commands import ApplyOperations, BeginSession, CommandBatch, ReapOrphans
from master.state import StateMachine, queries
from tests.master.state.memory_tables import MemoryTables

log = logging.getLogger(__name__)

BLOCK_BYTES = 4096
SESSION = 7
REAP_AT_ONCE = 64


@dataclass
class Contents:
    """The bytes of a file, sparse."""

    blocks: dict[int, bytearray] = field(default_factory=dict)

    def read(self, offset: int, length_bytes: int) -> bytes:
        pieces = []
        while length_bytes > 0:
            index, within = divmod(offset, BLOCK_BYTES)
            length = min(BLOCK_BYTES - within, length_bytes)
            block = self.blocks.get(index)
            pieces.append(bytes(block[within : within + length]) if block else bytes(length))
            offset, length_bytes = offset + length, length_bytes - length
        return b"".join(pieces)

    def write(self, offset: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        while len(view):
            index, within = divmod(offset, BLOCK_BYTES)
            length = min(BLOCK_BYTES - within, len(view))
            block = self.blocks.get(index)
            if block is None:
                block = self.blocks[index] = bytearray(BLOCK_BYTES)
            block[within : within + length] = view[:length]
            offset, view = offset + length, view[length:]

    def cut(self, length_bytes: int) -> None:
        last, within = divmod(length_bytes, BLOCK_BYTES)
        for index in [i for i in self.blocks if i > last or (i == last and within == 0)]:
            del self.blocks[index]
        if last in self.blocks:
            self.blocks[last][within:] = bytes(BLOCK_BYTES - within)


@dataclass
class State:
    """What all handles of an inode share."""

    contents: Contents = field(default_factory=Contents)
    handles: int = 0
    end_bytes: int = 0  # of what is written and not yet flushed
    written_ns: int | None = None
    known_version: int = -1
    writer: Credentials = ROOT


class MemoryFile:
    """An open handle."""

    def __init__(
        self, client: MemoryClient, state: State, attributes: Attributes, *, unchanged: bool
    ) -> None:
        self.attributes = attributes
        self.unchanged = unchanged
        self._client = client
        self._state = state

    @property
    def inode(self) -> int:
        return self.attributes.inode

    async def read(self, offset: int, length_bytes: int) -> bytes | memoryview:
        size = self._client.stat(self.inode).size_bytes
        return self._state.contents.read(offset, max(0, min(length_bytes, size - offset)))

    async def write(self, offset: int, data: Buffer) -> None:
        log.debug("inode %d at %d: written %r", self.inode, offset, bytes(data[:5]))
        self._state.contents.write(offset, data)
        self._state.end_bytes = max(self._state.end_bytes, offset + len(data))
        self._state.written_ns = self._client.now_ns()

    async def flush(self) -> None:
        self._client.events.append(("flush", self.inode))
        self._client.commit(self.inode)

    async def sync(self) -> None:
        self._client.events.append(("sync", self.inode))
        self._client.commit(self.inode)

    async def close(self) -> None:
        self._client.events.append(("close", self.inode))
        self._client.commit(self.inode)
        self._state.handles -= 1
        self._client.reap()


class MemoryClient:
    """One client of a file system that lives in this object. `events` notes flushes and syncs."""

    def __init__(self, clock: Clock) -> None:
        self.root_inode = ROOT_INODE
        self.session = SESSION
        self.events: list[tuple[str, int]] = []
        self.calls: list[str] = []  # what went to the "master"
        self._clock = clock
        self._tables = MemoryTables()
        self._machine = StateMachine(self._tables)
        self.states: dict[int, State] = {}
        self._sequence = 0
        self._apply(BeginSession(SESSION, "memory"))

    def now_ns(self) -> int:
        return self._clock.wall_ns()

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        await self._ask("lookup")
        return self._merged(queries.lookup(self._tables, parent, name))

    async def attributes(self, inode: int) -> Attributes:
        await self._ask("attributes")
        return self.stat(inode)

    def stat(self, inode: int) -> Attributes:
        return self._merged(queries.attributes(self._tables, inode))

    async def read_directory(self, inode: int, after_cookie: int, limit: int) -> DirectoryPage:
        await self._ask("read_directory")
        page = queries.read_directory(self._tables, inode, after_cookie, limit)
        entries = tuple(
            DirectoryEntry(e.name, e.cookie, self._merged(e.attributes)) for e in page.entries
        )
        return DirectoryPage(entries, page.complete)

    async def read_link(self, inode: int) -> bytes:
        await self._ask("read_link")
        return queries.read_link(self._tables, inode)

    async def get_xattr(self, inode: int, name: bytes, caller: Credentials) -> bytes:
        await self._ask("get_xattr")
        return queries.get_xattr(self._tables, inode, name, caller)

    async def list_xattrs(self, inode: int, caller: Credentials) -> tuple[bytes, ...]:
        await self._ask("list_xattrs")
        return queries.list_xattrs(self._tables, inode, caller)

    async def stat_fs(self) -> FsInfo:
        await self._ask("stat_fs")
        return FsInfo(1 << 40, 1 << 39, queries.counts(self._tables).inodes)

    async def perform(self, operation: Operation) -> Answer:
        await self._ask(type(operation).__name__)
        answer = self._submit(operation)
        self.reap()
        return answer

    async def set_attributes(self, operation: SetAttributes) -> Attributes:
        await self._ask("set_attributes")
        self.commit(operation.inode)
        answer = self._submit(operation)
        assert isinstance(answer, Attributes)
        if operation.size_bytes is not None:
            self._state(operation.inode).contents.cut(operation.size_bytes)
        return self._merged(answer)

    async def open_file(self, inode: int, caller: Credentials, *, write: bool) -> MemoryFile:
        await self._ask("open_file")
        return self._open(self.stat(inode), caller)

    async def create_file(self, operation: Create) -> MemoryFile:
        await self._ask("create_file")
        answer = self._submit(operation)
        assert isinstance(answer, Attributes)
        return self._open(self._merged(answer), operation.caller)

    async def sync_all(self) -> None:
        self.events.append(("sync all", 0))
        for inode in list(self.states):
            self.commit(inode)

    def is_open(self, inode: int) -> bool:
        return inode in self.states and self.states[inode].handles > 0

    # -- within

    async def _ask(self, what: str) -> None:
        """A request to the "master": never answered without letting other tasks run."""
        self.calls.append(what)
        await trio.lowlevel.checkpoint()

    def _open(self, attributes: Attributes, caller: Credentials) -> MemoryFile:
        if not stat.S_ISREG(attributes.mode):
            raise os_failure(21, f"inode {attributes.inode}")
        state = self._state(attributes.inode)
        state.handles += 1
        state.writer = caller
        unchanged = state.known_version == attributes.data_version
        state.known_version = attributes.data_version
        return MemoryFile(self, state, attributes, unchanged=unchanged)

    def _state(self, inode: int) -> State:
        return self.states.setdefault(inode, State())

    def commit(self, inode: int) -> None:
        """Tell the "master" of what was written."""
        state = self._state(inode)
        if state.written_ns is None:
            return
        commit = CommitWrite(inode, state.end_bytes, state.writer, state.written_ns)
        state.end_bytes, state.written_ns = 0, None
        self._submit(commit)
        state.known_version = queries.attributes(self._tables, inode).data_version

    def reap(self) -> None:
        """Free what has no name and is not open."""
        found = queries.orphans(self._tables, REAP_AT_ONCE)
        closed = tuple(inode for inode in found if not self.is_open(inode))
        if closed:
            self._apply(ReapOrphans(closed, 1 << 10))
            for inode in closed:
                self.states.pop(inode, None)

    def _merged(self, attributes: Attributes) -> Attributes:
        attributes = self._with_space(attributes)
        state = self.states.get(attributes.inode)
        if state is None or state.written_ns is None:
            return attributes
        size = max(attributes.size_bytes, state.end_bytes)
        written = state.written_ns
        return replace(attributes, size_bytes=size, mtime_ns=written, ctime_ns=written)

    def _with_space(self, attributes: Attributes) -> Attributes:
        state = self.states.get(attributes.inode)
        blocks = len(state.contents.blocks) if state else 0
        return replace(attributes, allocated_bytes=blocks * BLOCK_BYTES)

    def _submit(self, operation: Operation) -> Answer:
        self._sequence += 1
        numbered = (Numbered(self._sequence, operation),)
        submitted = self._apply(ApplyOperations(SESSION, self._sequence, numbered))
        assert isinstance(submitted, Submitted)
        answer = submitted.answers[0]
        if isinstance(answer, Refused):
            code = Code(answer.code)
            raise Failure(code, answer.message, errno=answer.errno, detail=answer.detail)
        return answer

    def _apply(self, command: object) -> object:
        [answer] = self._machine.apply(encode(CommandBatch(self.now_ns(), (encode(command),))))
        assert isinstance(answer, Done | Submitted), answer
        return answer
