"""`dfs local down`: unmount, then end the chunkservers, then the masters; or remove everything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence

import trio

from dfs.errors import Code, Failure
from dfs.local import mounts, processes, state
from dfs.local.layout import CHUNKSERVER, MASTER, MOUNT, Member, Root
from dfs.runtime import Env

_UNMOUNT_S = 30.0  # it flushes what was written
_END_S = 10.0

Tell = Callable[[str], None]


async def down(env: Env, root: Root, tell: Tell, *, force: bool = False) -> None:
    """End what runs. Raises Failure when a mount is in use, unless `force` detaches it."""
    with state.locked(root):
        members = _known_members(root)
        for member in members:
            if member.role == MOUNT:
                await _end_mount(env, root, member, force, tell)
        for role in (CHUNKSERVER, MASTER):
            await _end_all(env, root, [m for m in members if m.role == role], tell)


def purge(root: Root) -> None:
    """Remove ROOT and all data in it. Only what looks like a cluster's root is removed."""
    if not os.path.exists(root.state):
        raise Failure(Code.CONFIG, f"{root.path} holds no cluster ({root.state} is missing)")
    shutil.rmtree(root.path)


def _known_members(root: Root) -> list[Member]:
    """Everything that was ever started and not forgotten: by pid file, whatever the state says."""
    try:
        names = sorted(os.listdir(root.run))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        role, _, number = name.removesuffix(".json").rpartition("-")
        if role in (MASTER, CHUNKSERVER, MOUNT) and number.isdigit():
            found.append(Member(role, int(number)))
    return found


async def _end_mount(env: Env, root: Root, member: Member, force: bool, tell: Tell) -> None:
    directory = _mount_point(root, member)
    process = processes.running(root, member)
    if directory is not None and mounts.mounted_at(directory) is not None:
        answers = process is not None and await mounts.answers(env, directory, _END_S)
        if process is None and await mounts.answers(env, directory, _END_S):
            return  # somebody else's mount by now
        tell(f"unmounting {directory}")
        try:
            await mounts.unmount(env, directory, _UNMOUNT_S, lazy=not answers)
        except Failure:
            if not force:
                raise
            await mounts.unmount(env, directory, _UNMOUNT_S, lazy=True)
        else:
            # It may have much to flush: only then is it told to hurry.
            if process is not None and answers:
                await processes.ended(env, process, _UNMOUNT_S)
    if process is not None:
        await _end(env, member, process, tell)


def _mount_point(root: Root, member: Member) -> str | None:
    """Where the member is mounted, None if that is not known any more (it unmounts itself)."""
    try:
        known = state.load(root)
    except Failure as failure:
        if failure.code is not Code.CONFIG:
            raise
        return None
    return known.mounts.get(member.id) if known else None


async def _end_all(env: Env, root: Root, members: Sequence[Member], tell: Tell) -> None:
    found = [(member, processes.running(root, member)) for member in members]
    alive = [(member, process) for member, process in found if process is not None]
    if alive:
        tell(f"stopping {', '.join(member.name for member, _ in alive)}")
    async with trio.open_nursery() as nursery:
        for member, process in alive:
            nursery.start_soon(_end, env, member, process, tell)


async def _end(env: Env, member: Member, process: processes.Process, tell: Tell) -> None:
    if not await processes.end(env, process, _END_S):
        tell(f"{member.name} did not stop within {_END_S:.0f} s and was killed")
