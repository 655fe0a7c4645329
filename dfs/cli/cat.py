"""`dfs cat`: print files."""

from __future__ import annotations

import errno
import os

import click

from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.cluster_side import ClusterSide
from dfs.cli.outcome import Outcome
from dfs.cli.progress import Progress, Silent
from dfs.cli.standard import StandardOutput
from dfs.errors import Failure, os_failure


@click.command("cat")
@cluster_options
@click.argument("paths", nargs=-1, required=True)
def command(target: Target, paths: tuple[str, ...]) -> int:
    """Print files one after the other."""
    return target.run(lambda session: cat(session, [os.fsencode(path) for path in paths]))


async def cat(session: Session, paths: list[bytes]) -> int:
    """Print each file; the exit code."""
    outcome = Outcome()
    await pour_out(session, paths, Silent(), outcome)
    return outcome.exit_code()


async def pour_out(
    session: Session, paths: list[bytes], progress: Progress, outcome: Outcome
) -> None:
    """The files' bytes to standard output."""
    sink = StandardOutput(session.env)
    for path in paths:
        try:
            await _pour_file(session, path, sink, progress)
            outcome.succeed()
        except Failure as error:
            outcome.fail(error)


async def _pour_file(
    session: Session, path: bytes, sink: StandardOutput, progress: Progress
) -> None:
    side = ClusterSide(session)
    node = await side.find(path)
    if node is None:
        raise os_failure(errno.ENOENT, os.fsdecode(path))
    if node.is_directory:
        raise os_failure(errno.EISDIR, os.fsdecode(path))
    progress.begin(path, node.size_bytes)
    source = await side.open(node)
    try:
        while data := await source.read(session.settings.limits.packet_bytes):
            await sink.write(data)
            progress.advance(len(data))
    finally:
        await source.close()
