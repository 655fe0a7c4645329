"""Operations on names, made and recorded for `namespace_model`, and the judgement on all of them.

Owns the operations of one workload: those on its own directories, which nobody else uses, so that
they are judged alone. An operation whose session was lost ends with `UNKNOWN`: it took effect
before its client was told so, or never will (exactly once, beyond the end of a session).
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import Any

from dfs.client import Client
from dfs.messages.common import ROOT, Attributes
from dfs.messages.operations import (
    Create,
    MakeDirectory,
    MakeLink,
    MakeSymlink,
    Operation,
    RemoveDirectory,
    RemoveXattr,
    Rename,
    RenameFlags,
    SetAttributes,
    SetXattr,
    Unlink,
)
from tests.simulation import linearize, namespace_model
from tests.simulation.history import Op
from tests.simulation.namespace_model import (
    DIRECTORY,
    FILE,
    READS,
    SYMLINK,
    UNKNOWN,
    Names,
    Shown,
)
from tests.simulation.stage import Stage
from tests.simulation.workloads.common import recorded

KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK}
ATTRIBUTE = b"user.x"
LIST_MAX = 100
STATES_SHOWN = 3
Place = tuple[int, bytes]


class Recorder:
    """What a workload's clients do with names. `who` is the client's name in the history."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.ops: list[Op] = []

    # -- changes of names

    async def create(
        self, who: str, client: Client, place: Place, mode: int, *, exclusive: bool
    ) -> Op:
        operation = Create(*place, mode, exclusive, ROOT)
        return await self._change(who, client, operation, "create", *place, mode, exclusive)

    async def mkdir(self, who: str, client: Client, place: Place, mode: int) -> Op:
        return await self._change(
            who, client, MakeDirectory(*place, mode, ROOT), "mkdir", *place, mode
        )

    async def symlink(self, who: str, client: Client, place: Place) -> Op:
        operation = MakeSymlink(*place, b"target", ROOT)
        return await self._change(who, client, operation, "symlink", *place)

    async def link(self, who: str, client: Client, inode: int, kind: str, place: Place) -> Op:
        operation = MakeLink(inode, *place, ROOT)
        return await self._change(who, client, operation, "link", inode, kind, *place)

    async def unlink(self, who: str, client: Client, place: Place) -> Op:
        return await self._change(who, client, Unlink(*place, ROOT), "unlink", *place)

    async def rmdir(self, who: str, client: Client, place: Place) -> Op:
        return await self._change(who, client, RemoveDirectory(*place, ROOT), "rmdir", *place)

    async def rename(
        self, who: str, client: Client, old: Place, new: Place, flags: RenameFlags
    ) -> Op:
        operation = Rename(*old, *new, int(flags), ROOT)
        if flags == RenameFlags.EXCHANGE:
            return await self._change(who, client, operation, "exchange", *old, *new)
        return await self._change(who, client, operation, "rename", *old, *new, bool(flags))

    # -- changes of inodes

    async def chmod(self, who: str, client: Client, inode: int, mode: int) -> Op:
        operation = SetAttributes(inode, ROOT, mode=mode)
        return await self._change(who, client, operation, "chmod", inode, mode)

    async def setxattr(self, who: str, client: Client, inode: int, value: bytes, flags: int) -> Op:
        operation = SetXattr(inode, ATTRIBUTE, value, flags, ROOT)
        return await self._change(who, client, operation, "setxattr", inode, value, flags)

    async def removexattr(self, who: str, client: Client, inode: int) -> Op:
        operation = RemoveXattr(inode, ATTRIBUTE, ROOT)
        return await self._change(who, client, operation, "removexattr", inode)

    async def _change(
        self, who: str, client: Client, operation: Operation, action: str, *arguments: Any
    ) -> Op:
        async with recorded(self._stage, who, action, *arguments, judged=True) as op:
            self.ops.append(op)
            answer = await client.perform(operation)
            if isinstance(answer, Attributes):
                op.answer = (_shown(answer),)
        if op.is_open:
            self._stage.history.end(op, errno=UNKNOWN)
            self._stage.reach["names.lost_with_session"] += 1
        return op

    # -- looks

    async def lookup(self, who: str, client: Client, place: Place) -> Shown | None:
        """What is there, None for nothing."""
        async with recorded(self._stage, who, "lookup", *place, judged=True) as op:
            self.ops.append(op)
            op.answer = (_shown(await client.lookup(*place)),)
        return op.answer[0] if op.answer else None

    async def list(self, who: str, client: Client, directory: int) -> tuple[Shown, ...]:
        """What is in the directory."""
        async with recorded(self._stage, who, "list", directory, judged=True) as op:
            self.ops.append(op)
            page = await client.read_directory(directory, 0, LIST_MAX)
            found = [_shown(e.attributes, e.name) for e in page.entries]
            found = [shown for shown in found if shown.name not in (b".", b"..")]
            op.answer = tuple(sorted(found, key=lambda shown: shown.name))
        return op.answer or ()

    async def stat(self, who: str, client: Client, inode: int) -> None:
        async with recorded(self._stage, who, "stat", inode, judged=True) as op:
            self.ops.append(op)
            op.answer = (_shown(await client.attributes(inode)),)

    async def getxattr(self, who: str, client: Client, inode: int) -> None:
        async with recorded(self._stage, who, "getxattr", inode, judged=True) as op:
            self.ops.append(op)
            op.answer = await client.get_xattr(inode, ATTRIBUTE, ROOT)

    async def look_at_all(self, who: str, client: Client, roots: Iterable[int]) -> None:
        """Everything there is: names, attributes, values."""
        waiting = list(roots)
        while waiting:
            for shown in await self.list(who, client, waiting.pop()):
                if shown.kind == DIRECTORY:
                    waiting.append(shown.inode)
                if shown.kind != SYMLINK:
                    await self.getxattr(who, client, shown.inode)

    # -- judgement

    def judge(self, roots: Iterable[int]) -> None:
        """Everything recorded must be linearizable from empty directories."""
        ops = [op for op in self.ops if not (op.action in READS and _is_unknown(op))]
        verdict = linearize.check(ops, Names(tuple(roots)), namespace_model.step)
        reach = self._stage.reach
        reach["checked.names"] += len(ops)
        reach["checked.names_effort"] += verdict.effort
        reach["undecided.names"] += verdict.undecided
        reach["names.open"] += sum(op.is_open for op in ops)
        if verdict.stuck is not None:
            concerned = verdict.concerned(namespace_model.related)
            self._stage.broken("names are linearizable", _explained(verdict), concerned)


def _explained(verdict: linearize.Verdict[Names]) -> str:
    states = "; or ".join(_described(state) for state in verdict.states[:STATES_SHOWN])
    more = len(verdict.states) - STATES_SHOWN
    return (
        f"no order of the operations explains {verdict.stuck}; before it ended there was {states}"
        f"{f' (and {more} other possibilities)' if more > 0 else ''}"
    )


def _described(state: Names) -> str:
    shown = (
        f"{entry.directory}/{entry.name.decode()}: {entry.kind} {entry.inode},"
        f" mode {state.trait(entry.inode).mode:o}, value {state.trait(entry.inode).value!r}"
        for entry in state.entries
    )
    return "{" + "; ".join(shown) + "}"


def _is_unknown(op: Op) -> bool:
    return op.is_open or op.errno == UNKNOWN


def _shown(attributes: Attributes, name: bytes = b"") -> Shown:
    kind = KINDS[stat.S_IFMT(attributes.mode)]
    mode = stat.S_IMODE(attributes.mode)
    return Shown(attributes.inode, kind, attributes.nlink, mode, name)
