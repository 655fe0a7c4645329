"""A whole tree of the cluster, one entry after the other, parents before children."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dfs.cli.cluster import Session
from dfs.cli.outcome import Outcome
from dfs.cli.tree import join
from dfs.errors import Failure
from dfs.messages.common import Attributes


@dataclass(frozen=True)
class Visited:
    """An entry and its path; `depth` 0 is where the walk began."""

    path: bytes
    attributes: Attributes
    depth: int

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.attributes.mode)


async def walk(session: Session, start: bytes, outcome: Outcome) -> AsyncIterator[Visited]:
    """Everything at and below `start`, depth first, names sorted; symlinks are not followed.

    A directory that cannot be read is told to `outcome` and passed over.
    """
    pending = [Visited(start, await session.tree.find(start, follow=start.endswith(b"/")), 0)]
    while pending:
        here = pending.pop()
        yield here
        if not here.is_directory:
            continue
        try:
            below = [
                Visited(join(here.path, entry.name), entry.attributes, here.depth + 1)
                async for entry in session.tree.entries(here.attributes, here.path)
            ]
        except Failure as error:
            outcome.fail(error, here.path)
            continue
        pending += sorted(below, key=lambda visited: visited.path, reverse=True)
