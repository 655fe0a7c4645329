"""Faults of the clients' machines."""

from __future__ import annotations

import random

from tests.simulation.arena import Arena
from tests.simulation.faults.kinds import cut, isolate, kind


@kind("client deaths")
async def kill_client(arena: Arena, chance: random.Random) -> None:
    arena.world.crash(arena.client(chance))


@kind("clients")
async def cut_client_from_leader(arena: Arena, chance: random.Random) -> None:
    await cut(arena, chance, arena.client(chance), arena.leader())


@kind("clients")
async def isolate_client(arena: Arena, chance: random.Random) -> None:
    await isolate(arena, chance, arena.client(chance))


@kind("clients")
async def reset_client(arena: Arena, chance: random.Random) -> None:
    arena.world.reset_links(arena.client(chance), arena.leader())
