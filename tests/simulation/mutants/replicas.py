"""More broken chunkservers: order, intents, fences, damage; and what masters believe of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from chunkserver.chain import Turn, Turns
from dfs.client.chunk_write import ChunkWriter
from dfs.messages.metadata import ChunkLocation
from dfs.runtime.current import current_env
from master import reports
from tests.simulation.mutants.kinds import mutant
from tests.simulation.taps import Taps

POWER = ("power_chunkserver", "power_chunkserver_at_sync")


@mutant("blocks", "chunks.", "replicas", "reads", seeds=5)
def wait_for_no_turn(taps: Taps) -> None:
    """Requests for a chunk overtake each other."""

    async def wait(self: Turn) -> None: ...

    taps.replace(Turn, "wait", wait)
    taps.replace(Turns, "busy", lambda self, handle: False)


@mutant("blocks", "chunks.primary", seeds=1, seconds=10.0)
def choose_ones_own_primary(taps: Taps) -> None:
    """Each client has an order of its own in which it writes to a chunk's replicas."""

    async def attempt(original: Any, self: ChunkWriter, location: ChunkLocation, send: Any) -> Any:
        if current_env.get().name.endswith(("1", "3")):
            replicas = tuple(reversed(location.replicas))
            location = dataclasses.replace(location, replicas=replicas)
        return await original(self, location, send)

    taps.around(ChunkWriter, "_attempt", attempt)


@mutant(
    "logs",
    "chunks.",
    "repair",
    "replicas",
    "logs",
    seeds=5,
    faults=("kill_chunkserver", "isolate_chunkserver", *POWER),
)
def believe_every_report(taps: Taps) -> None:
    """A replica that a returning server reports counts as current, whatever its version."""
    taps.replace(reports, "_in_order", lambda replica, chunk: True)
