"""A state machine with a session, as tests drive it: one operation, one answer."""

from __future__ import annotations

import errno
from typing import Any

from dfs.layout import ROOT_INODE
from dfs.messages.common import ROOT, Attributes, Credentials, Done, Refused
from dfs.messages.metadata import ChunkMap, Numbered, Submitted
from dfs.messages.operations import (
    AllocateChunks,
    Create,
    MakeDirectory,
    Operation,
    RemoveDirectory,
    Rename,
    SetAttributes,
    Unlink,
)
from dfs.rpc.codec import encode
from master.commands import ApplyOperations, BeginSession, CommandBatch, ReapOrphans
from master.state import StateMachine, queries
from tests.master.state.memory_tables import MemoryTables

SESSION = 7
FIRST_NS = 1_700_000_000_000_000_000
ALICE = Credentials(1000, 1000, (2000,))
BOB = Credentials(1001, 1001, ())


def error_name(number: int) -> str:
    """The errno's name; Python knows EOPNOTSUPP by its other one."""
    name = errno.errorcode[number]
    return "EOPNOTSUPP" if name == "ENOTSUP" else name


class Driver:
    """Steps the time by one second per command, numbers the operations."""

    def __init__(self) -> None:
        self.tables = MemoryTables()
        self.machine = StateMachine(self.tables)
        self.now_ns = FIRST_NS
        self.sequence = 0
        assert self.command(BeginSession(SESSION, "test")) == Done()

    def batch(self, *commands: object) -> list[Any]:
        self.now_ns += 1_000_000_000
        encoded = tuple(encode(c) for c in commands)
        return self.machine.apply(encode(CommandBatch(self.now_ns, encoded)))

    def command(self, command: object) -> Any:
        (answer,) = self.batch(command)
        return answer

    def submit(self, sequence: int, operation: Operation, answered_below: int = 1) -> Any:
        numbered = (Numbered(sequence, operation),)
        submitted = self.command(ApplyOperations(SESSION, answered_below, numbered))
        if not isinstance(submitted, Submitted):
            return submitted
        return submitted.answers[0]

    def perform(self, operation: Operation) -> Any:
        self.sequence += 1
        return self.submit(self.sequence, operation, self.sequence)

    # -- what most tests need

    def fails(self, operation: Operation) -> str:
        """The errno's name with which the operation is refused, having changed nothing."""
        before = self.namespace()
        answer = self.perform(operation)
        assert isinstance(answer, Refused), f"{operation} answered {answer}"
        assert self.namespace() == before
        return error_name(answer.errno)

    def namespace(self) -> dict[str, dict[bytes, bytes]]:
        """All tables but those that note the passing of commands."""
        passing = ("sessions", "answers", "counters")
        return {t: v for t, v in self.tables.copy().items() if t not in passing}

    def done(self, operation: Operation) -> None:
        assert self.perform(operation) == Done()

    def file(
        self,
        name: bytes,
        parent: int = ROOT_INODE,
        mode: int = 0o644,
        caller: Credentials = ROOT,
    ) -> int:
        answer = self.perform(Create(parent, name, mode, True, caller))
        assert isinstance(answer, Attributes), answer
        return answer.inode

    def directory(
        self,
        name: bytes,
        parent: int = ROOT_INODE,
        mode: int = 0o755,
        caller: Credentials = ROOT,
    ) -> int:
        answer = self.perform(MakeDirectory(parent, name, mode, caller))
        assert isinstance(answer, Attributes), answer
        return answer.inode

    def set(
        self,
        inode: int,
        caller: Credentials = ROOT,
        **fields: Any,
    ) -> Attributes:
        answer = self.perform(SetAttributes(inode, caller, **fields))
        assert isinstance(answer, Attributes), answer
        return answer

    def remove(self, name: bytes, parent: int = ROOT_INODE, caller: Credentials = ROOT) -> None:
        self.done(Unlink(parent, name, caller))

    def remove_directory(self, name: bytes, parent: int = ROOT_INODE) -> None:
        self.done(RemoveDirectory(parent, name, ROOT))

    def rename(
        self,
        old: tuple[int, bytes],
        new: tuple[int, bytes],
        flags: int = 0,
        caller: Credentials = ROOT,
    ) -> None:
        self.done(Rename(*old, *new, flags, caller))

    def allocate(self, inode: int, first: int, count: int, servers: int = 3) -> ChunkMap:
        replicas = (tuple(range(1, servers + 1)),) * count
        answer = self.perform(AllocateChunks(inode, first, count, (), replicas))
        assert isinstance(answer, ChunkMap), answer
        return answer

    def chunks(self, inode: int, first: int = 0, count: int = 1 << 20) -> ChunkMap:
        return queries.chunk_map(self.tables, inode, first, count)

    def doomed(self, server: int, limit: int = 1 << 20) -> tuple[int, ...]:
        """The chunks whose replicas the server is to delete."""
        return tuple(h for h, _ in queries.deletions(self.tables, server, limit))

    def attributes(self, inode: int) -> Attributes:
        return queries.attributes(self.tables, inode)

    def names(self, inode: int = ROOT_INODE) -> list[bytes]:
        page = queries.read_directory(self.tables, inode, 2, 1 << 20)
        return [entry.name for entry in page.entries]

    def reap(self, max_chunks: int = 1 << 16) -> None:
        """Free all orphans there are now."""
        orphans = queries.orphans(self.tables, 1 << 20)
        assert self.command(ReapOrphans(orphans, max_chunks)) == Done()
