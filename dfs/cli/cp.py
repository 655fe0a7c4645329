"""`dfs cp`: copy within the cluster."""

from __future__ import annotations

import os

import click

from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.cluster_side import ClusterSide
from dfs.cli.outcome import Outcome
from dfs.cli.progress import shown_progress
from dfs.cli.transfer import Manner, Transfer


@click.command("cp")
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
    """Copy SOURCES to DESTINATION within the cluster, or into it if it is a directory."""
    manner = Manner(recursive, preserve, sync)
    return target.run(lambda session: copy(session, sources, destination, manner, quiet))


async def copy(
    session: Session, sources: tuple[str, ...], destination: str, manner: Manner, quiet: bool
) -> int:
    """Copy the sources; the exit code."""
    outcome, side = Outcome(), ClusterSide(session)
    with shown_progress(quiet=quiet) as progress:
        transfer = Transfer(side, side, manner.bounded(session.settings), progress, outcome)
        await transfer.copy_all([os.fsencode(s) for s in sources], os.fsencode(destination))
    return outcome.exit_code()
