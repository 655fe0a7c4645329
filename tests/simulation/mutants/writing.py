"""More broken clients: what fsync covers, what is committed, what readers see."""

from __future__ import annotations

from typing import Any

import trio

from dfs.client.chunk_write import ChunkWriter
from dfs.client.patience import Patience
from dfs.client.unsynced import Unsynced
from dfs.client.write_back import WriteBack
from tests.simulation.mutants.kinds import mutant
from tests.simulation.taps import Taps


async def _nothing(*_: Any, **__: Any) -> None: ...


@mutant("blackout", "reads", "logs", "blocks", seeds=2, faults=("blackout",))
def sync_without_chunks(taps: Taps) -> None:
    """fsync returns when the data is on its replicas, not on their disks."""

    async def sync(self: ChunkWriter, index: int) -> Any:
        return await self._locations.for_read(index)

    taps.replace(ChunkWriter, "sync", sync)
    taps.replace(WriteBack, "_mark_sync", lambda self: None)


@mutant("blackout", "reads", "logs", "blocks", seeds=2, faults=("blackout",))
def forget_what_is_unsynced(taps: Taps) -> None:
    """fsync covers only what is still on its way."""
    taps.replace(Unsynced, "written", lambda self, location: None)


@mutant("logs", "logs hold", seeds=1, seconds=10.0)
def commit_before_the_data(taps: Taps) -> None:
    """A flush does not wait for what is on its way."""
    taps.replace(WriteBack, "_drain", _nothing)


@mutant("trees", "trees", seeds=1)
def overlook_own_writes(taps: Taps) -> None:
    """Reads do not see what is still on its way from the same client."""
    taps.replace(WriteBack, "overlay", lambda self, start, stop: [])


@mutant("losses", "stalls", seeds=4, faults=("lose_chunkserver",))
def wait_for_the_dead(taps: Taps) -> None:
    """A server that has fallen silent is waited for as long as one that is slow."""

    async def run(self: Patience) -> None:
        await trio.sleep_forever()

    taps.replace(Patience, "run", run)
