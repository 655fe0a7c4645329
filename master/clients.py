"""What the leader answers clients: sessions, reads from its own state, and numbered changes.

Reads are answered inline while the leader's lease holds; changes become commands of the Raft log
and are answered once applied. A master that does not lead answers NOT_LEADER with the leader's
address. Decides nothing about the namespace itself: that is `master.state`.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from dfs.config import MasterLimits
from dfs.errors import Code, Failure, os_failure
from dfs.layout import ROOT_INODE
from dfs.messages.common import Attributes, Done, Refused
from dfs.messages.metadata import (
    Answer,
    ChunkMap,
    CloseInode,
    CloseSession,
    DirectoryPage,
    FsInfo,
    GetAttributes,
    GetChunks,
    GetXattr,
    KeepSession,
    LinkTarget,
    ListXattrs,
    Lookup,
    Numbered,
    OpenInode,
    OpenSession,
    ReadDirectory,
    ReadLink,
    RegisterOpens,
    SessionOpened,
    StatFs,
    Submit,
    Submitted,
    XattrNames,
    XattrValue,
)
from dfs.messages.operations import AllocateChunks, Create, DropReplicas, SetAttributes
from dfs.rpc import Handlers, Request
from dfs.runtime import Env
from master.chunkservers import Chunkservers
from master.commands import ApplyOperations, BeginSession, EndSession
from master.janitor import Janitor
from master.meter import MasterMeter
from master.raft import RaftNode
from master.sessions import LiveSessions
from master.settling import Settling
from master.state import queries
from master.tables import Tables

log = logging.getLogger(__name__)

SESSION_ID_BYTES = 8


class Clients:
    """The handlers of everything that a client asks."""

    def __init__(
        self,
        env: Env,
        raft: RaftNode,
        tables: Tables,
        sessions: LiveSessions,
        chunkservers: Chunkservers,
        settling: Settling,
        janitor: Janitor,
        cluster: str,
        limits: MasterLimits,
        meter: MasterMeter,
    ) -> None:
        self._env, self._raft, self._tables = env, raft, tables
        self._sessions, self._chunkservers, self._janitor = sessions, chunkservers, janitor
        self._settling, self._cluster = settling, cluster
        self._limits, self._meter = limits, meter

    def handlers(self) -> Handlers:
        return {
            OpenSession: self._open_session,
            KeepSession: self._reading(self._keep_session),
            CloseSession: self._close_session,
            RegisterOpens: self._register_opens,
            OpenInode: self._reading(self._open_inode),
            CloseInode: self._close_inode,
            Submit: self._submit,
            Lookup: self._reading(self._lookup),
            GetAttributes: self._reading(self._get_attributes),
            ReadDirectory: self._reading(self._read_directory),
            ReadLink: self._reading(self._read_link),
            GetXattr: self._reading(self._get_xattr),
            ListXattrs: self._reading(self._list_xattrs),
            GetChunks: self._reading(self._get_chunks),
            StatFs: self._reading(self._stat_fs),
        }

    def _reading(self, answer: Callable[[Any], Any]) -> Callable[[Request], Any]:
        """A handler that answers from this master's state, which only a leased leader may."""

        def handle(request: Request) -> object:
            self._must_lead()
            return answer(request.message)

        return handle

    def _must_lead(self) -> None:
        if self._raft.may_read():
            return
        if self._raft.is_leader():
            raise Failure(Code.UNAVAILABLE, f"{self._env.name} leads but holds no lease yet")
        raise self._raft.not_leader()

    # -- sessions

    async def _open_session(self, request: Request) -> SessionOpened:
        message: OpenSession = request.message
        self._must_lead()
        if len(self._sessions) >= self._limits.max_sessions:
            raise Failure(Code.OVERLOADED, f"{self._limits.max_sessions} sessions are open already")
        session = int.from_bytes(self._env.random.token(SESSION_ID_BYTES)) >> 1
        # Known here before it is committed: should the client give up meanwhile, it expires.
        self._sessions.begin(session, self._now())
        answer = await self._raft.propose(BeginSession(session, message.client))
        if isinstance(answer, Refused):
            raise Failure(Code.UNAVAILABLE, f"session not opened: {answer.message}")
        log.info("%s: session %#x opened for %s", self._env.name, session, message.client)
        self._sessions.connected(session, request.connection.closed)
        return SessionOpened(session, self._limits.session_ttl_s, ROOT_INODE, self._cluster)

    def _keep_session(self, message: KeepSession) -> Done:
        self._sessions.touch(message.session, self._now())
        return Done()

    async def _close_session(self, request: Request) -> Done:
        message: CloseSession = request.message
        self._must_lead()
        await self._raft.propose(EndSession(message.session))
        self._sessions.end(message.session)
        self._janitor.wake()
        extra = {"session": f"{message.session:x}"}
        log.info("%s: session %#x closed", self._env.name, message.session, extra=extra)
        return Done()

    def _register_opens(self, request: Request) -> Done:
        message: RegisterOpens = request.message
        self._must_lead()
        self._sessions.connected(message.session, request.connection.closed)
        self._sessions.register(message.session, message.inodes, self._now())
        return Done()

    def _open_inode(self, message: OpenInode) -> Attributes:
        self._sessions.touch(message.session, self._now())
        if self._janitor.is_reaping(message.inode):
            raise os_failure(errno.ENOENT, f"inode {message.inode}")
        attributes = queries.attributes(self._tables, message.inode)
        self._sessions.open(message.session, message.inode)
        return attributes

    def _close_inode(self, request: Request) -> None:
        """A notice; a stray one (late, or meant for an older leader) changes nothing."""
        message: CloseInode = request.message
        if self._raft.is_leader():
            self._sessions.release(message.session, message.inode)

    # -- reads

    def _lookup(self, message: Lookup) -> Attributes:
        return queries.lookup(self._tables, message.parent, message.name)

    def _get_attributes(self, message: GetAttributes) -> Attributes:
        return queries.attributes(self._tables, message.inode)

    def _read_directory(self, message: ReadDirectory) -> DirectoryPage:
        limit = max(1, min(message.limit, self._limits.max_directory_page))
        return queries.read_directory(self._tables, message.inode, message.after_cookie, limit)

    def _read_link(self, message: ReadLink) -> LinkTarget:
        return LinkTarget(queries.read_link(self._tables, message.inode))

    def _get_xattr(self, message: GetXattr) -> XattrValue:
        value = queries.get_xattr(self._tables, message.inode, message.name, message.caller)
        return XattrValue(value)

    def _list_xattrs(self, message: ListXattrs) -> XattrNames:
        return XattrNames(queries.list_xattrs(self._tables, message.inode, message.caller))

    def _get_chunks(self, message: GetChunks) -> ChunkMap:
        count = max(0, min(message.count, self._limits.max_chunks_per_request))
        return queries.chunk_map(self._tables, message.inode, message.first_index, count)

    def _stat_fs(self, message: StatFs) -> FsInfo:
        total, free = self._chunkservers.space()
        return FsInfo(total, free, queries.counts(self._tables).inodes)

    # -- changes

    def _submit(self, request: Request) -> Awaitable[Submitted]:
        message: Submit = request.message
        self._must_lead()
        if len(message.operations) > self._limits.max_operations_per_submit:
            limit = self._limits.max_operations_per_submit
            raise Failure(Code.BAD_MESSAGE, f"more than {limit} operations in one request")
        self._sessions.touch(message.session, self._now())
        return self._apply(self._sparing_tails(message))

    def _sparing_tails(self, message: Submit) -> Submit:
        """What lies beyond a file's end may be the uncommitted data of a session that lives."""
        operations = tuple(
            Numbered(n.sequence, dataclasses.replace(n.operation, keep_tail=True))
            if isinstance(n.operation, SetAttributes)
            and n.operation.size_bytes is not None
            and self._sessions.is_open_elsewhere(message.session, n.operation.inode)
            else n
            for n in message.operations
        )
        return dataclasses.replace(message, operations=operations)

    async def _apply(self, message: Submit) -> Submitted:
        """Commit the operations; those that cannot even be proposed are refused on their own.

        A refusal from here leaves no trace under the operation's number: when it is retryable, the
        client sends the same number again.
        """
        refused: dict[int, Refused] = {}
        operations = []
        for numbered in message.operations:
            try:
                operations.append(self._filled_in(numbered))
            except Failure as error:
                refused[numbered.sequence] = _refusal(error)
        answers = await self._commit(message, tuple(operations)) if operations else {}
        answers |= refused
        return Submitted(tuple(answers[n.sequence] for n in message.operations))

    async def _commit(self, message: Submit, operations: tuple[Numbered, ...]) -> dict[int, Answer]:
        command = ApplyOperations(message.session, message.answered_below, operations)
        submitted = await self._raft.propose(command)
        if isinstance(submitted, Refused):
            raise Failure(Code(submitted.code), submitted.message, errno=submitted.errno)
        assert isinstance(submitted, Submitted)
        answers: dict[int, Answer] = {}
        changed: list[int] = []
        for numbered, answer in zip(operations, submitted.answers, strict=True):
            self._meter.answered(numbered.operation, answer)
            changed += self._follow_up(message.session, numbered, answer)
            answers[numbered.sequence] = answer
        if changed:
            await self._settling.until_settled(changed, self._limits.raise_timeout_s)
        return answers

    def _filled_in(self, numbered: Numbered) -> Numbered:
        """The operation with what the leader decides of it.

        Where the chunks of an AllocateChunks go that do not exist, and how many replicas a
        DropReplicas must leave.
        """
        operation = numbered.operation
        if isinstance(operation, DropReplicas):
            least = self._limits.min_replicas
            return Numbered(numbered.sequence, dataclasses.replace(operation, least=least))
        if not isinstance(operation, AllocateChunks):
            return numbered
        count = min(operation.count, self._limits.max_chunks_per_request)
        known = queries.chunk_map(self._tables, operation.inode, operation.first_index, count)
        missing = count - len(known.chunks)
        replicas = self._chunkservers.place(missing, operation.avoid) if missing > 0 else ()
        wanted = self._limits.chunk_replicas
        filled = dataclasses.replace(operation, count=count, replicas=replicas, wanted=wanted)
        return Numbered(numbered.sequence, filled)

    def _follow_up(self, session: int, numbered: Numbered, answer: Answer) -> list[int]:
        """What follows from a change that is committed; the chunks that are to be settled."""
        operation = numbered.operation
        if isinstance(operation, Create) and isinstance(answer, Attributes):
            self._sessions.open(session, answer.inode)
        if isinstance(operation, DropReplicas) and isinstance(answer, ChunkMap):
            return self._dropped(operation, answer)
        return []

    def _dropped(self, operation: DropReplicas, answer: ChunkMap) -> list[int]:
        changed = []
        for chunk in answer.chunks:
            if chunk.handle == operation.handle and chunk.version == operation.version + 1:
                self._settling.changed(chunk.handle, chunk.version, urgent=True)
                changed.append(chunk.handle)
        return changed

    def _now(self) -> float:
        return self._env.clock.boottime()


def _refusal(error: Failure) -> Refused:
    return Refused(int(error.code), error.errno, error.message, error.detail)
