"""`dfs put`: local files, trees or standard input into the cluster."""

from __future__ import annotations

import os
import stat

import click

from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.cluster_side import ClusterSide
from dfs.cli.local_side import LocalSide
from dfs.cli.outcome import Outcome
from dfs.cli.progress import shown_progress
from dfs.cli.standard import StandardInput
from dfs.cli.transfer import Manner, Transfer

STANDARD = "-"


@click.command("put")
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
    """Copy local SOURCES to DESTINATION in the cluster, or into it if it is a directory.

    A single source `-` is standard input. A file appears under its name once it is whole.
    """
    if STANDARD in sources and len(sources) > 1:
        raise click.UsageError("`-` stands for standard input and must be the only source.")
    manner = Manner(recursive, preserve, sync)
    return target.run(lambda session: put(session, sources, destination, manner, quiet))


async def put(
    session: Session, sources: tuple[str, ...], destination: str, manner: Manner, quiet: bool
) -> int:
    """Copy the sources; the exit code."""
    outcome, into = Outcome(), os.fsencode(destination)
    local, cluster = LocalSide(session.env), ClusterSide(session)
    with shown_progress(quiet=quiet) as progress:
        transfer = Transfer(local, cluster, manner.bounded(session.settings), progress, outcome)
        if sources == (STANDARD,):
            progress.begin(b"standard input", 0)
            source = StandardInput(session.env)
            await transfer.pour(source, into, stat.S_IMODE(0o666), like=None)
        else:
            await transfer.copy_all([os.fsencode(source) for source in sources], into)
    return outcome.exit_code()
