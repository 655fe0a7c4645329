"""What operators do while clients work. One order at a time, as operators do."""

from __future__ import annotations

import random

from dfs.messages.cluster import CreateSnapshot, ServerMode, SetServerMode, TransferLeadership
from tests.simulation.arena import Arena
from tests.simulation.faults.kinds import kind, last


@kind("operations")
async def transfer_leadership(arena: Arena, chance: random.Random) -> None:
    async with arena.operating:
        await arena.order(TransferLeadership(0))


@kind("operations")
async def take_snapshot(arena: Arena, chance: random.Random) -> None:
    async with arena.operating:
        await arena.order(CreateSnapshot())


@kind("operations")
async def drain_chunkserver(arena: Arena, chance: random.Random) -> None:
    """Begin to empty a server; it comes back before or after that is done."""
    async with arena.operating:
        number = chance.choice(list(arena.cluster.chunkservers))
        await arena.order(SetServerMode(number, ServerMode.DRAINING))
        await last(arena, chance, 20.0)
        while await arena.order(SetServerMode(number, ServerMode.IN_SERVICE)) is None:
            await arena.pass_time(1.0)


@kind("operations")
async def rolling_restart(arena: Arena, chance: random.Random) -> None:
    """Every server process in turn, each once the one before is there again."""
    async with arena.operating, arena.disturbing():
        for name in (*arena.masters, *arena.chunkservers):
            arena.world.crash(name, power_loss=False)
            while not arena.world.is_alive(name):
                await arena.pass_time(0.2)
            await arena.pass_time(chance.uniform(0.5, 3.0))
