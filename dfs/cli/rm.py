"""`dfs rm`: remove files and directories."""

from __future__ import annotations

import errno
import os
import stat
import sys
from dataclasses import dataclass

import click
import trio

from dfs.cli import output
from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.outcome import Outcome
from dfs.cli.tree import Place, join, naming
from dfs.errors import Failure, os_failure
from dfs.messages.common import Attributes
from dfs.messages.operations import RemoveDirectory, Unlink


@click.command("rm")
@cluster_options
@click.argument("paths", nargs=-1, required=True)
@click.option("-r", "-R", "--recursive", is_flag=True, help="Directories and all below them.")
@click.option("-f", "--force", is_flag=True, help="No error for what does not exist.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before removing directories.")
def command(target: Target, paths: tuple[str, ...], recursive: bool, force: bool, yes: bool) -> int:
    """Remove files, with -r directories. Asks before removing directories from a terminal."""
    if recursive and not yes and not force and sys.stdin.isatty():
        names = ", ".join(output.printable(path) for path in paths)
        click.confirm(f"Remove {names} and everything below?", abort=True, err=True)
    return target.run(lambda session: remove_all(session, paths, recursive, force))


async def remove_all(session: Session, paths: tuple[str, ...], recursive: bool, force: bool) -> int:
    """Remove each path."""
    outcome = Outcome()
    for path in map(os.fsencode, paths):
        try:
            await _remove(session, path, recursive, force, outcome)
        except Failure as error:
            outcome.fail(error)
    return outcome.exit_code()


async def _remove(
    session: Session, path: bytes, recursive: bool, force: bool, outcome: Outcome
) -> None:
    try:
        place = await session.tree.place(path)
        found = await session.tree.find(path.rstrip(b"/"), follow=False)
    except Failure as error:
        if force and error.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        raise
    if not stat.S_ISDIR(found.mode):
        await _unlink(session, place)
        outcome.succeed()
    elif recursive:
        await remove_tree(session, place, found, outcome)
    else:
        raise os_failure(errno.EISDIR, f"{output.quoted(path)} (-r removes directories)")


@dataclass(frozen=True)
class _Directory:
    place: Place
    attributes: Attributes


async def remove_tree(session: Session, place: Place, found: Attributes, outcome: Outcome) -> None:
    """Remove a directory and all below: first every file, then the directories, deepest first."""
    pending, emptied = [_Directory(place, found)], []
    slots = trio.Semaphore(session.settings.limits.parallel_files)
    async with trio.open_nursery() as nursery:
        while pending:
            directory = pending.pop()
            emptied.append(directory)
            try:
                inode, path = directory.attributes.inode, directory.place.path
                async for entry in session.tree.entries(directory.attributes, path):
                    below = Place(inode, entry.name, join(path, entry.name))
                    if stat.S_ISDIR(entry.attributes.mode):
                        pending.append(_Directory(below, entry.attributes))
                        continue
                    await slots.acquire()
                    nursery.start_soon(_unlink_counted, session, below, outcome, slots)
            except Failure as error:
                outcome.fail(error)
    for directory in reversed(emptied):
        await _remove_directory(session, directory.place, outcome)


async def _unlink_counted(
    session: Session, place: Place, outcome: Outcome, slots: trio.Semaphore
) -> None:
    try:
        await _unlink(session, place)
        outcome.succeed()
    except Failure as error:
        # Gone already: another client removed it, which is what was wanted.
        if error.errno != errno.ENOENT:
            outcome.fail(error)
    finally:
        slots.release()


async def _unlink(session: Session, place: Place) -> None:
    with naming(place.path):
        await session.client.perform(Unlink(place.parent, place.name, session.caller))


async def _remove_directory(session: Session, place: Place, outcome: Outcome) -> None:
    operation = RemoveDirectory(place.parent, place.name, session.caller)
    try:
        with naming(place.path):
            await session.client.perform(operation)
        outcome.succeed()
    except Failure as error:
        if error.errno != errno.ENOENT:
            outcome.fail(error)
