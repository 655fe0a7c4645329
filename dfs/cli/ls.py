"""`dfs ls`: list directories."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from typing import Any

import click

from dfs.cli import output
from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.outcome import Outcome
from dfs.cli.tree import join
from dfs.errors import Failure
from dfs.messages.common import Attributes


@dataclass(frozen=True)
class Row:
    """One line of a listing: what is shown of an entry."""

    name: bytes
    attributes: Attributes
    target: bytes = b""  # of a symlink


@dataclass(frozen=True)
class Options:
    long: bool
    recursive: bool
    all: bool
    human: bool
    as_json: bool


@click.command("ls")
@cluster_options
@click.argument("paths", nargs=-1)
@click.option("-l", "--long", is_flag=True, help="Mode, links, owner, size, time and name.")
@click.option("-R", "--recursive", is_flag=True, help="Directories below, too.")
@click.option("-a", "--all", "all_", is_flag=True, help="Names that start with a dot, too.")
@click.option("-h", "--human", is_flag=True, help="Sizes as 1.5K, 12M.")
@click.option("--json", "as_json", is_flag=True, help="Everything about each entry, as JSON.")
def command(
    target: Target,
    paths: tuple[str, ...],
    long: bool,
    recursive: bool,
    all_: bool,
    human: bool,
    as_json: bool,
) -> int:
    """List directories (/ by default) or show files, sorted by name."""
    options = Options(long or as_json, recursive, all_, human, as_json)
    return target.run(lambda session: list_paths(session, paths or ("/",), options))


async def list_paths(session: Session, paths: tuple[str, ...], options: Options) -> int:
    """List each path; with JSON one array of all entries, each with its whole path."""
    outcome, listing = Outcome(), Listing(session, options, headed=len(paths) > 1)
    for path in map(os.fsencode, paths):
        try:
            await listing.add(path)
            outcome.succeed()
        except Failure as error:
            outcome.fail(error)
    if options.as_json:
        output.emit_json(listing.found)
    return outcome.exit_code()


class Listing:
    """Prints directories one after the other, or gathers them for JSON."""

    def __init__(self, session: Session, options: Options, *, headed: bool) -> None:
        self._session, self._options = session, options
        self._headed = headed or options.recursive
        self._first = True
        self.found: list[dict[str, Any]] = []

    async def add(self, path: bytes) -> None:
        """List one path and, if asked to, what is below it."""
        follow = not self._options.long or path.endswith(b"/")
        attributes = await self._session.tree.find(path, follow=follow)
        if not stat.S_ISDIR(attributes.mode):
            self._show([await self._row(path, attributes)], b"")
            return
        pending = [(path, attributes)]
        while pending:
            at, directory = pending.pop()
            rows = await self._directory(directory, at)
            self._head(at)
            self._show(rows, at)
            if self._options.recursive:
                below = [r for r in rows if stat.S_ISDIR(r.attributes.mode)]
                pending += [(join(at, r.name), r.attributes) for r in reversed(below)]

    async def _directory(self, directory: Attributes, path: bytes) -> list[Row]:
        rows = []
        async for entry in self._session.tree.entries(directory, path):
            if self._options.all or not entry.name.startswith(b"."):
                rows.append(await self._row(entry.name, entry.attributes))
        return sorted(rows, key=lambda row: row.name)

    async def _row(self, name: bytes, attributes: Attributes) -> Row:
        if self._options.long and stat.S_ISLNK(attributes.mode):
            target = await self._session.client.read_link(attributes.inode)
            return Row(name, attributes, target)
        return Row(name, attributes)

    def _head(self, path: bytes) -> None:
        if self._headed and not self._options.as_json:
            output.line(f"{'' if self._first else os.linesep}{output.shown(path)}:")
        self._first = False

    def _show(self, rows: list[Row], directory: bytes) -> None:
        if self._options.as_json:
            self.found += [as_dict(row, directory) for row in rows]
        elif self._options.long:
            columns = [long_columns(row, human=self._options.human) for row in rows]
            output.lines(output.table(columns, right=frozenset({1, 4})))
        else:
            output.lines([output.shown(row.name) for row in rows])


def long_columns(row: Row, *, human: bool) -> list[str]:
    """The columns of `ls -l`."""
    attributes = row.attributes
    size = output.human_bytes(attributes.size_bytes) if human else str(attributes.size_bytes)
    name = output.shown(row.name)
    return [
        stat.filemode(attributes.mode),
        str(attributes.nlink),
        user_name(attributes.uid),
        group_name(attributes.gid),
        size,
        output.timestamp(attributes.mtime_ns),
        f"{name} -> {output.shown(row.target)}" if row.target else name,
    ]


def as_dict(row: Row, directory: bytes) -> dict[str, Any]:
    """An entry as `--json` shows it; times in nanoseconds since 1970 UTC."""
    attributes = row.attributes
    path = join(directory, row.name) if directory else row.name
    made: dict[str, Any] = {
        "path": os.fsdecode(path),
        "name": os.fsdecode(row.name.rpartition(b"/")[2]),
        "type": output.kind(attributes.mode),
        "mode": f"{stat.S_IMODE(attributes.mode):04o}",
        "inode": attributes.inode,
        "nlink": attributes.nlink,
        "uid": attributes.uid,
        "gid": attributes.gid,
        "size_bytes": attributes.size_bytes,
        "allocated_bytes": attributes.allocated_bytes,
        "atime_ns": attributes.atime_ns,
        "mtime_ns": attributes.mtime_ns,
        "ctime_ns": attributes.ctime_ns,
        "btime_ns": attributes.btime_ns,
    }
    if row.target:
        made["target"] = os.fsdecode(row.target)
    return made


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
