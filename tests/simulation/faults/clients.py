"""Faults of the clients' machines."""

from __future__ import annotations

import random

from tests.simulation.arena import Arena
from tests.simulation.faults.kinds import cut, isolate, kind, pause


@kind("client deaths")
async def kill_client(arena: Arena, chance: random.Random) -> None:
    arena.world.crash(arena.client(chance))


@kind("client deaths")
async def kill_client_at_step(arena: Arena, chance: random.Random) -> None:
    """Between any two awaits of what it does."""
    arena.world.crash_at_step(arena.client(chance), chance.randint(1, 2000))


@kind("clients")
async def pause_client(arena: Arena, chance: random.Random) -> None:
    await pause(arena, chance, arena.client(chance))


@kind("clients")
async def cut_client_from_leader(arena: Arena, chance: random.Random) -> None:
    await cut(arena, chance, arena.client(chance), arena.leader())


@kind("clients")
async def isolate_client(arena: Arena, chance: random.Random) -> None:
    await isolate(arena, chance, arena.client(chance))


@kind("clients")
async def lose_answers(arena: Arena, chance: random.Random) -> None:
    """What the client asks arrives, the answers do not, and it asks again."""
    client, leader = arena.client(chance), arena.leader()
    for _ in range(chance.randint(1, 6)):
        arena.world.partition(leader, client, one_way=True)
        await arena.pass_time(chance.uniform(0.02, 0.5))
        arena.world.reset_links(leader, client)
        arena.world.heal_between(leader, client)
        await arena.pass_time(chance.uniform(0.0, 1.0))


@kind("clients")
async def repeat_requests(arena: Arena, chance: random.Random) -> None:
    """Changes that clients have submitted arrive a second time, answered or not."""
    for _ in range(chance.randint(1, 8)):
        await arena.pass_time(chance.uniform(0.0, 2.0))
        if arena.submitted:
            await arena.order(chance.choice(arena.submitted), "repeater")


@kind("clients")
async def reset_client(arena: Arena, chance: random.Random) -> None:
    arena.world.reset_links(arena.client(chance), arena.leader())
