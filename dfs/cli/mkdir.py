"""`dfs mkdir`: make directories."""

from __future__ import annotations

import errno
import os
import stat

import click

from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.outcome import Outcome
from dfs.cli.tree import naming
from dfs.errors import Failure, os_failure
from dfs.messages.operations import MakeDirectory


def octal_mode(text: str) -> int:
    """Permission bits written in octal."""
    try:
        mode = int(text, 8)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not an octal number") from None
    if not 0 <= mode <= 0o7777:
        raise click.BadParameter(f"{text!r} is not between 0 and 7777")
    return mode


@click.command("mkdir")
@cluster_options
@click.argument("paths", nargs=-1, required=True)
@click.option("-p", "--parents", is_flag=True, help="Parents too; no error where it exists.")
@click.option("-m", "--mode", type=octal_mode, help="Permissions in octal, whatever the umask.")
def command(target: Target, paths: tuple[str, ...], parents: bool, mode: int | None) -> int:
    """Make directories."""
    return target.run(lambda session: make_all(session, paths, parents, mode))


async def make_all(
    session: Session, paths: tuple[str, ...], parents: bool, mode: int | None
) -> int:
    """Make each of the directories."""
    outcome = Outcome()
    for path in map(os.fsencode, paths):
        try:
            if parents:
                await make_with_parents(session, path, mode)
            else:
                await make(session, path, mode)
            outcome.succeed()
        except Failure as error:
            outcome.fail(error)
    return outcome.exit_code()


async def make(session: Session, path: bytes, mode: int | None = None) -> None:
    """One directory; Failure EEXIST, ENOENT, EACCES naming the path."""
    place = await session.tree.place(path)
    permissions = 0o777 & ~session.umask if mode is None else mode
    operation = MakeDirectory(place.parent, place.name, permissions, session.caller)
    with naming(path):
        await session.client.perform(operation)


async def make_with_parents(session: Session, path: bytes, mode: int | None = None) -> None:
    """The directory and what is missing above it; `mode` is for the last one alone."""
    parts = [part for part in path.split(b"/") if part]
    for depth in range(1, len(parts) + 1):
        last = depth == len(parts)
        await _make_unless_there(session, b"/" + b"/".join(parts[:depth]), mode if last else None)


async def _make_unless_there(session: Session, path: bytes, mode: int | None) -> None:
    found = await session.tree.find_or_none(path)
    if found is None:
        try:
            await make(session, path, mode)
        except Failure as error:
            # Another client made it in between: all the same, if it is a directory.
            if error.errno != errno.EEXIST:
                raise
            found = await session.tree.find(path)
    if found is not None and not stat.S_ISDIR(found.mode):
        raise os_failure(errno.ENOTDIR, os.fsdecode(path))
