"""Faults of the network between two nodes of any kind that are not plain cuts."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.simulation.arena import Arena
from tests.simulation.faults.kinds import kind, last

DELAY_MIN_S, DELAY_MAX_S = 0.005, 1.5
RATE_MIN, RATE_MAX = 20e3, 5e6  # bytes per second
RESET_GAP_S = 0.5


@kind("links")
async def slow_link(arena: Arena, chance: random.Random) -> None:
    """Everything from one node to another takes longer, perhaps than timeouts."""
    a, b = _pair(arena, chance)
    async with _entangling(arena, a, b):
        arena.world.delay_link(a, b, _between(chance, DELAY_MIN_S, DELAY_MAX_S))
        await last(arena, chance)
        arena.world.delay_link(a, b, 0.0)


@kind("links")
async def narrow_link(arena: Arena, chance: random.Random) -> None:
    """Little gets through from one node to another."""
    a, b = _pair(arena, chance)
    async with _entangling(arena, a, b):
        arena.world.limit_link(a, b, _between(chance, RATE_MIN, RATE_MAX))
        await last(arena, chance)
        arena.world.limit_link(a, b, math.inf)


@kind("links")
async def flaky_node(arena: Arena, chance: random.Random) -> None:
    """A node's connections are lost, one after the other, again and again."""
    name = chance.choice(arena.nodes())
    others = [other for other in arena.nodes() if other != name]
    async with _entangling(arena, name):
        for _ in range(chance.randint(2, 40)):
            arena.world.reset_links(name, chance.choice(others))
            await arena.pass_time(chance.uniform(0.0, RESET_GAP_S))


@kind("links")
async def black_hole(arena: Arena, chance: random.Random) -> None:
    """Something answers in a node's place and says nothing."""
    a, b = _pair(arena, chance)
    async with _entangling(arena, a, b):
        arena.world.black_hole(a, b)
        await last(arena, chance)
        if chance.random() < 0.5:
            arena.world.reset_links(a, b)
        arena.world.close_hole(a, b)


@kind("links")
async def black_hole_at_leader(arena: Arena, chance: random.Random) -> None:
    name, leader = chance.choice(arena.nodes()), arena.leader()
    if name == leader:
        name = arena.follower(chance)
    async with _entangling(arena, name):
        arena.world.black_hole(name, leader)
        await last(arena, chance)
        arena.world.close_hole(name, leader)


def _pair(arena: Arena, chance: random.Random) -> tuple[str, str]:
    """Two nodes; the first is as good as a client of the second."""
    servers = [*arena.masters, *arena.chunkservers]
    target = chance.choice(servers)
    return chance.choice([name for name in arena.nodes() if name != target]), target


def _between(chance: random.Random, low: float, high: float) -> float:
    """Spread evenly over the orders of magnitude."""
    exponent = chance.random()
    return low * math.exp(exponent * math.log(high / low))


@asynccontextmanager
async def _entangling(arena: Arena, *names: str) -> AsyncIterator[None]:
    """Around it: a disturbance, if a chunkserver is concerned."""
    if any(name in arena.chunkservers for name in names):
        async with arena.disturbing():
            yield
    else:
        yield
