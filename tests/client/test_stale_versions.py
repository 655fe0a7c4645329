"""Whom a writer blames when servers do not have its version of a chunk."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dfs.client.chunk_write import ChunkWriter, _Series
from dfs.config import Rpc
from dfs.errors import Code, Failure
from dfs.messages.metadata import ChunkLocation, Replica
from dfs.rpc.retry import Backoff
from dfs.runtime.sim import World

TIMEOUT_S = 2.6
STALE = Failure(Code.STALE_VERSION, "yet to be settled", detail="one:1")


def at_version(version: int) -> ChunkLocation:
    return ChunkLocation(0, 7, version, 0, (Replica(1, "one:1"), Replica(2, "two:1")))


class Writer(ChunkWriter):
    """One whose chunk's map is always the newest; notes what it would drop."""

    def __init__(self, world: World) -> None:
        limits = SimpleNamespace(data_timeout_s=TIMEOUT_S)
        services: Any = SimpleNamespace(env=world.env("client"), limits=limits)
        locations: Any = SimpleNamespace(refetch=self._known_already)
        super().__init__(services, locations)
        self.dropped: list[int] = []

    async def _known_already(self, location: ChunkLocation) -> bool:
        return False

    async def _drop(
        self, location: ChunkLocation, failure: Failure, failed: tuple[int, ...] = ()
    ) -> bool:
        self.dropped.append(location.version)
        return True


def dropped(*tries: tuple[float, int]) -> list[int]:
    """At which versions a server is dropped, of tries at a time with a version."""
    world = World(1, drift=0.0)
    writer = Writer(world)

    async def main() -> None:
        env = world.env("client")
        series = _Series(1e9, Backoff(env, Rpc()))
        for at_s, version in tries:
            await world.clock.sleep(at_s - world.clock.monotonic())
            await writer._mend_stale(at_version(version), STALE, series)

    world.run(main)
    return writer.dropped


def test_a_server_that_never_hears_of_a_version_is_dropped() -> None:
    assert dropped((1.0, 1), (2.0, 1), (3.5, 1)) == []
    assert dropped((1.0, 1), (2.0, 1), (4.0, 1)) == [1]


def test_every_version_is_waited_for_anew() -> None:
    """Or a writer and the repair undo each other's work, hundreds of times a second.

    The later ones for a short time: the writer has waited already.
    """
    assert dropped((1.0, 1), (4.0, 2), (4.1, 3), (4.3, 3)) == []
    assert dropped((1.0, 1), (4.0, 2), (4.4, 2)) == [2]
