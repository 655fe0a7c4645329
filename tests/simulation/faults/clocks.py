"""Faults of the nodes' clocks: wall time that is set, monotonic time that runs at another pace.

Leases are measured on the clocks of two nodes. A leader's ends after 0.9 of the time for which its
followers elect nobody else, so their clocks may differ by a ninth; `RATE_MAX_OFF` keeps to that,
whoever of the two is fast.
"""

from __future__ import annotations

import random

from tests.simulation.arena import Arena
from tests.simulation.faults.kinds import kind, last

RATE_MAX_OFF = 0.045
JUMP_MAX_S = 3 * 86_400.0


@kind("clocks")
async def jump_wall(arena: Arena, chance: random.Random) -> None:
    """Somebody sets a machine's time, by seconds or by days, and perhaps back."""
    name = _node(arena, chance)
    ahead_s = chance.choice((-1, 1)) * JUMP_MAX_S ** chance.random()
    arena.world.jump_wall(name, ahead_s)
    if chance.random() < 0.5:
        await last(arena, chance)
        arena.world.jump_wall(name, -ahead_s)


@kind("clocks")
async def jump_all_walls(arena: Arena, chance: random.Random) -> None:
    """The servers' time source is wrong."""
    ahead_s = chance.choice((-1, 1)) * JUMP_MAX_S * chance.random()
    for name in (*arena.masters, *arena.chunkservers):
        arena.world.jump_wall(name, ahead_s)


@kind("clocks")
async def drift(arena: Arena, chance: random.Random) -> None:
    """A node's monotonic clock is fast or slow for a while, as far as leases bear."""
    name = _node(arena, chance)
    arena.world.set_rate(name, 1.0 + chance.uniform(-RATE_MAX_OFF, RATE_MAX_OFF))
    await last(arena, chance, 30.0)
    arena.world.set_rate(name, 1.0)


@kind("clocks")
async def drift_apart(arena: Arena, chance: random.Random) -> None:
    """The leader is as slow as may be, its followers are fast, or the other way round."""
    leader, off = arena.leader(), RATE_MAX_OFF * chance.choice((-1, 1, 1, 1))
    for name in arena.masters:
        arena.world.set_rate(name, 1.0 - off if name == leader else 1.0 + off)
    await last(arena, chance, 20.0)
    for name in arena.masters:
        arena.world.set_rate(name, 1.0)


def _node(arena: Arena, chance: random.Random) -> str:
    return chance.choice([*arena.masters, *arena.masters, *arena.chunkservers, *arena.clients])
