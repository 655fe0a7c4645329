"""`dfs stat`: everything about a file."""

from __future__ import annotations

import os
import stat

import click

from dfs.cli import output
from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.ls import Row, as_dict, group_name, user_name
from dfs.cli.outcome import Outcome
from dfs.errors import Failure


@click.command("stat")
@cluster_options
@click.argument("paths", nargs=-1, required=True)
@click.option("-L", "--follow", is_flag=True, help="What a symlink points to.")
@click.option("--json", "as_json", is_flag=True, help="As JSON: one array.")
def command(target: Target, paths: tuple[str, ...], follow: bool, as_json: bool) -> int:
    """Show everything about files."""
    return target.run(lambda session: show(session, paths, follow, as_json))


async def show(session: Session, paths: tuple[str, ...], follow: bool, as_json: bool) -> int:
    """One block of lines for each path."""
    outcome, found = Outcome(), []
    for path in map(os.fsencode, paths):
        try:
            row = await _row(session, path, follow)
        except Failure as error:
            outcome.fail(error)
            continue
        outcome.succeed()
        found.append(as_dict(row, b""))
        if not as_json:
            output.lines(block(row))
    if as_json:
        output.emit_json(found)
    return outcome.exit_code()


async def _row(session: Session, path: bytes, follow: bool) -> Row:
    attributes = await session.tree.find(path, follow=follow)
    if stat.S_ISLNK(attributes.mode):
        return Row(path, attributes, await session.client.read_link(attributes.inode))
    return Row(path, attributes)


def block(row: Row) -> list[str]:
    """What `dfs stat` prints about one file."""
    a = row.attributes
    link = f" -> {output.shown(row.target)}" if row.target else ""
    mode = f"{stat.S_IMODE(a.mode):04o} {stat.filemode(a.mode)}"
    rows = [
        ("path", f"{output.shown(row.name)}{link}"),
        ("type", output.kind(a.mode)),
        ("size", f"{a.size_bytes} bytes, {a.allocated_bytes} allocated"),
        ("inode", f"{a.inode}, {a.nlink} links"),
        ("mode", mode),
        ("owner", f"{user_name(a.uid)} ({a.uid}), group {group_name(a.gid)} ({a.gid})"),
        ("accessed", output.timestamp(a.atime_ns)),
        ("modified", output.timestamp(a.mtime_ns)),
        ("changed", output.timestamp(a.ctime_ns)),
        ("born", output.timestamp(a.btime_ns)),
    ]
    return output.table(rows)
