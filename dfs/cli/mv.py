"""`dfs mv`: move or rename, atomically."""

from __future__ import annotations

import errno
import os
import stat

import click

from dfs.cli import output
from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.outcome import Outcome
from dfs.cli.tree import base_name, join, naming
from dfs.errors import Failure, os_failure
from dfs.messages.operations import Rename, RenameFlags


@click.command("mv")
@cluster_options
@click.argument("sources", nargs=-1, required=True)
@click.argument("destination")
@click.option("-n", "--no-replace", is_flag=True, help="Fail where the destination exists.")
def command(target: Target, sources: tuple[str, ...], destination: str, no_replace: bool) -> int:
    """Move SOURCES to DESTINATION, or into it if it is a directory."""
    return target.run(lambda session: move_all(session, sources, destination, no_replace))


async def move_all(
    session: Session, sources: tuple[str, ...], destination: str, no_replace: bool
) -> int:
    """Move each source."""
    outcome, into = Outcome(), os.fsencode(destination)
    found = await session.tree.find_or_none(into)
    is_directory = found is not None and stat.S_ISDIR(found.mode)
    if len(sources) > 1 and not is_directory:
        raise os_failure(errno.ENOTDIR, output.quoted(into))
    for source in map(os.fsencode, sources):
        path = join(into, base_name(source)) if is_directory else into
        try:
            await move(session, source, path, no_replace)
            outcome.succeed()
        except Failure as error:
            outcome.fail(error)
    return outcome.exit_code()


async def move(session: Session, source: bytes, destination: bytes, no_replace: bool) -> None:
    """One rename(2)."""
    old = await session.tree.place(source)
    new = await session.tree.place(destination)
    flags = RenameFlags.NOREPLACE if no_replace else RenameFlags.NONE
    operation = Rename(
        old.parent, old.name, new.parent, new.name, int(flags), caller=session.caller
    )
    with naming(source + b" to " + destination):
        await session.client.perform(operation)
