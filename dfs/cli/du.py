"""`dfs du`: add up the space that directories use."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import click

from dfs.cli import output
from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.outcome import Outcome
from dfs.cli.walk import Visited, walk
from dfs.errors import Failure


@dataclass
class _Open:
    """A directory whose sum is not complete yet."""

    path: bytes
    depth: int
    total_bytes: int = 0


@dataclass
class Sums:
    """Sums per directory of a depth-first walk; a file with several names counts once."""

    apparent: bool
    finished: list[tuple[bytes, int]] = field(default_factory=list)
    _open: list[_Open] = field(default_factory=list)
    _counted: set[int] = field(default_factory=set)

    def add(self, visited: Visited) -> None:
        """Take the next entry of the walk."""
        self._close_down_to(visited.depth)
        attributes = visited.attributes
        size = attributes.size_bytes if self.apparent else attributes.allocated_bytes
        if attributes.nlink > 1 and not visited.is_directory:
            if attributes.inode in self._counted:
                size = 0
            self._counted.add(attributes.inode)
        if visited.is_directory or visited.depth == 0:
            self._open.append(_Open(visited.path, visited.depth))
        self._open[-1].total_bytes += size

    def end(self) -> None:
        """The walk is over: finish what is open."""
        self._close_down_to(0)

    def _close_down_to(self, depth: int) -> None:
        while self._open and self._open[-1].depth >= depth:
            closed = self._open.pop()
            self.finished.append((closed.path, closed.total_bytes))
            if self._open:
                self._open[-1].total_bytes += closed.total_bytes


@click.command("du")
@cluster_options
@click.argument("paths", nargs=-1)
@click.option("-s", "--summarize", is_flag=True, help="Only the sum of each argument.")
@click.option("-h", "--human", is_flag=True, help="Sizes as 1.5K, 12M.")
@click.option("--apparent-size", "apparent", is_flag=True, help="File lengths, holes and all.")
@click.option("--json", "as_json", is_flag=True, help="As JSON: one array of path and bytes.")
def command(
    target: Target,
    paths: tuple[str, ...],
    summarize: bool,
    human: bool,
    apparent: bool,
    as_json: bool,
) -> int:
    """Add up the bytes that directories use (before replication), deepest first."""

    async def work(session: Session) -> int:
        found, outcome = await add_up(session, paths or ("/",), apparent, summarize)
        show(found, human, as_json)
        return outcome.exit_code()

    return target.run(work)


async def add_up(
    session: Session, paths: tuple[str, ...], apparent: bool, summarize: bool
) -> tuple[list[tuple[bytes, int]], Outcome]:
    """(path, bytes) of each directory, or of each argument alone."""
    outcome, found = Outcome(), []
    for path in map(os.fsencode, paths):
        sums = Sums(apparent)
        try:
            async for visited in walk(session, path, outcome):
                sums.add(visited)
            outcome.succeed()
        except Failure as error:
            outcome.fail(error)
            continue
        sums.end()
        found += sums.finished[-1:] if summarize else sums.finished
    return found, outcome


def show(found: list[tuple[bytes, int]], human: bool, as_json: bool) -> None:
    """Print the sums."""
    if as_json:
        output.emit_json([{"path": os.fsdecode(p), "bytes": n} for p, n in found])
        return
    rows = [[output.human_bytes(n) if human else str(n), output.shown(p)] for p, n in found]
    output.lines(output.table(rows, right=frozenset({0})))
