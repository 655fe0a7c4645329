"""Faults of everything at once."""

from __future__ import annotations

import random

from tests.simulation.arena import Arena
from tests.simulation.faults.kinds import kind

BETWEEN_MAX_S = 3.0


@kind("everything")
async def kill_everything(arena: Arena, chance: random.Random) -> None:
    """All server processes; the machines of the chunkservers live on."""
    power_loss = chance.random() < 0.5
    async with arena.disturbing():
        for name in arena.masters:
            arena.world.crash(name, power_loss=power_loss)
        for name in arena.chunkservers:
            arena.world.crash(name, power_loss=False)
        await arena.pass_time(5.0)


@kind("blackout")
async def brownout(arena: Arena, chance: random.Random) -> None:
    """The power fails here and there, one machine after the other; some are spared."""
    names = [*arena.masters, *arena.chunkservers]
    async with arena.disturbing():
        for name in chance.sample(names, chance.randint(2, len(names))):
            arena.world.crash(name, power_loss=True)
            await arena.pass_time(chance.uniform(0.0, BETWEEN_MAX_S))


@kind("blackout")
async def blackout(arena: Arena, chance: random.Random) -> None:
    """The power of everything fails: what was not synced may be gone."""
    async with arena.disturbing():
        for name in (*arena.masters, *arena.chunkservers):
            arena.world.crash(name, power_loss=True)
        await arena.pass_time(5.0)
