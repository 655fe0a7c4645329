"""`dfs get`: files and trees out of the cluster, to local files or standard output."""

from __future__ import annotations

import os
import sys

import click

from dfs.cli.cat import pour_out
from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.cluster_side import ClusterSide
from dfs.cli.local_side import LocalSide
from dfs.cli.outcome import Outcome
from dfs.cli.progress import shown_progress
from dfs.cli.transfer import Manner, Transfer

STANDARD = "-"


@click.command("get")
@cluster_options
@click.argument("sources", nargs=-1, required=True)
@click.argument("destination")
@click.option("-r", "-R", "--recursive", is_flag=True, help="Directories and all below them.")
@click.option("-p", "--preserve", is_flag=True, help="Keep owner, permissions and times.")
@click.option("--sync", is_flag=True, help="Each file durable before it gets its name.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def command(
    target: Target,
    sources: tuple[str, ...],
    destination: str,
    recursive: bool,
    preserve: bool,
    sync: bool,
    quiet: bool,
) -> int:
    """Copy SOURCES from the cluster to the local DESTINATION, or into it if it is a directory.

    DESTINATION `-` is standard output. A file appears under its name once it is whole.
    """
    manner = Manner(recursive, preserve, sync)
    return target.run(lambda session: get(session, sources, destination, manner, quiet))


async def get(
    session: Session, sources: tuple[str, ...], destination: str, manner: Manner, quiet: bool
) -> int:
    """Copy the sources; the exit code."""
    outcome, paths = Outcome(), [os.fsencode(source) for source in sources]
    local, cluster = LocalSide(session.env), ClusterSide(session)
    with shown_progress(
        quiet=quiet or (destination == STANDARD and sys.stdout.isatty())
    ) as progress:
        if destination == STANDARD:
            await pour_out(session, paths, progress, outcome)
        else:
            manner = manner.bounded(session.settings)
            transfer = Transfer(cluster, local, manner, progress, outcome)
            await transfer.copy_all(paths, os.fsencode(destination))
    return outcome.exit_code()
