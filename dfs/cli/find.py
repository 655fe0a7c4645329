"""`dfs find`: all paths below a directory, by name and kind."""

from __future__ import annotations

import fnmatch
import os
import stat

import click

from dfs.cli import output
from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.ls import Row, as_dict
from dfs.cli.outcome import Outcome
from dfs.cli.tree import base_name
from dfs.cli.walk import Visited, walk

_KINDS = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
    "c": stat.S_IFCHR,
    "b": stat.S_IFBLK,
}


@click.command("find")
@cluster_options
@click.argument("paths", nargs=-1)
@click.option("--name", "pattern", metavar="GLOB", help="Only names that match, as in '*.py'.")
@click.option("--type", "kind", type=click.Choice(list(_KINDS)), help="Only this kind.")
@click.option("--json", "as_json", is_flag=True, help="Everything about each, as one JSON array.")
def command(
    target: Target,
    paths: tuple[str, ...],
    pattern: str | None,
    kind: str | None,
    as_json: bool,
) -> int:
    """List all paths at and below PATHS (/ by default), names sorted."""
    return target.run(lambda session: find(session, paths or ("/",), pattern, kind, as_json))


async def find(
    session: Session,
    paths: tuple[str, ...],
    pattern: str | None,
    kind: str | None,
    as_json: bool,
) -> int:
    """Print what matches, as it is found."""
    outcome, found = Outcome(), []
    for path in map(os.fsencode, paths):
        async for visited in walk(session, path, outcome):
            outcome.succeed()
            if not matches(visited, pattern, kind):
                continue
            if as_json:
                found.append(as_dict(Row(visited.path, visited.attributes), b""))
            else:
                output.line(output.shown(visited.path))
    if as_json:
        output.emit_json(found)
    return outcome.exit_code()


def matches(visited: Visited, pattern: str | None, kind: str | None) -> bool:
    """Whether an entry is of the kind and its name matches the pattern."""
    if kind is not None and stat.S_IFMT(visited.attributes.mode) != _KINDS[kind]:
        return False
    name = os.fsdecode(base_name(visited.path))
    return pattern is None or fnmatch.fnmatchcase(name, pattern)
