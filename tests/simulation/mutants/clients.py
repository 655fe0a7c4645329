"""Broken clients: what is flushed, sent again, remembered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import count
from typing import Any

from dfs.client.chunk_write import ChunkWriter
from dfs.client.file_state import FileState
from dfs.client.leader import Leader
from dfs.client.read_cache import ReadCache
from dfs.client.session import _Numbers
from dfs.client.write_back import WriteBack
from dfs.errors import Failure
from dfs.messages.metadata import Numbered, Submit
from tests.simulation.mutants.kinds import mutant
from tests.simulation.taps import Taps

Make = Callable[[], object]


async def _nothing(*_: Any, **__: Any) -> None: ...


@mutant("blocks", "reads see the last write", seeds=2)
def close_without_a_flush(taps: Taps) -> None:
    """close returns while the data is still in the client, on its way at best."""
    taps.replace(WriteBack, "flush", _nothing)
    taps.replace(WriteBack, "sync", _nothing)


@mutant("turns", "files hold", seeds=5)
def keep_stale_pieces(taps: Taps) -> None:
    """What was read once is read from memory, whatever others have written since."""
    taps.replace(FileState, "_forget", lambda self: None)
    taps.replace(ReadCache, "drop", lambda self, inode: None)


@mutant("blocks", "reads see the last write", "blocks are whole", seeds=6)
def give_up_quietly(taps: Taps) -> None:
    """A write that failed counts as done, instead of being sent again."""

    async def attempt(original: Callable[..., Any], self: ChunkWriter, *arguments: Any) -> bool:
        try:
            return bool(await original(self, *arguments))
        except Failure:
            return True

    taps.around(ChunkWriter, "_attempt", attempt)


@mutant("logs", "logs hold", seeds=4)
def never_commit(taps: Taps) -> None:
    """The master is not told of what was written."""
    taps.replace(WriteBack, "_commit", _nothing)


@mutant("namespace", "names are linearizable", "no error", "Failure", seeds=2)
def claim_answers_too_early(taps: Taps) -> None:
    """A client says that it has answers which are still on their way."""
    taps.replace(_Numbers, "answered_below", lambda self: self.following)


@mutant("namespace", "names are linearizable", seeds=6, faults=("lose_answers", "kill_leader"))
def number_retries_anew(taps: Taps) -> None:
    """A request that is repeated gets a new number."""

    async def ask(
        original: Callable[..., Any], self: Leader, make: Make, *rest: Any, **named: Any
    ) -> Any:
        attempts = count()

        def again() -> object:
            message, attempt = make(), next(attempts)
            return _renumbered(message, 1000 * attempt) if isinstance(message, Submit) else message

        return await original(self, again, *rest, **named)

    taps.around(Leader, "ask", ask)


def _renumbered(message: Submit, by: int) -> Submit:
    moved = tuple(Numbered(n.sequence + by, n.operation) for n in message.operations)
    return dataclasses.replace(message, operations=moved)
