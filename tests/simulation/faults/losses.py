"""Losses that a cluster of three and three bears without anybody waiting for long."""

from __future__ import annotations

import random

from tests.simulation.arena import Arena
from tests.simulation.faults.kinds import kind, until_alive


@kind("losses")
async def lose_master(arena: Arena, chance: random.Random) -> None:
    await _lose(arena, chance, masters=1)


@kind("losses")
async def lose_chunkserver(arena: Arena, chance: random.Random) -> None:
    await _lose(arena, chance, chunkservers=1)


@kind("double losses")
async def lose_one_of_each(arena: Arena, chance: random.Random) -> None:
    await _lose(arena, chance, masters=1, chunkservers=1)


async def _lose(
    arena: Arena, chance: random.Random, masters: int = 0, chunkservers: int = 0
) -> None:
    """They die; half of the time without a word, otherwise nobody listens there any more."""
    async with arena.harming():
        lost = [arena.master(chance)] * masters + [arena.chunkserver(chance)] * chunkservers
        silent = chance.random() < 0.5
        for name in lost:
            if silent:
                arena.world.partition(name, "*")
            arena.world.crash(name, power_loss=chance.random() < 0.5)
        for name in lost:
            await until_alive(arena, name)
            arena.world.heal_between(name, "*")
        await arena.cluster.until_agreed()
