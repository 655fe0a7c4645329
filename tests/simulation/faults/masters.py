"""Faults of the masters: they bear all of them, and all at a time."""

from __future__ import annotations

import random

from tests.simulation.arena import Arena
from tests.simulation.faults.kinds import cut, isolate, kind, last, pause, silence, switch_off

SLOW_SYNC_S = 0.02


@kind("masters")
async def kill_leader(arena: Arena, chance: random.Random) -> None:
    arena.world.crash(arena.leader(), power_loss=chance.random() < 0.5)


@kind("masters")
async def kill_follower(arena: Arena, chance: random.Random) -> None:
    arena.world.crash(arena.follower(chance), power_loss=chance.random() < 0.5)


@kind("masters")
async def kill_all_masters(arena: Arena, chance: random.Random) -> None:
    for name in arena.masters:
        arena.world.crash(name, power_loss=chance.random() < 0.5)


@kind("masters")
async def kill_leader_at_sync(arena: Arena, chance: random.Random) -> None:
    """The power fails just before or after a flush."""
    media = arena.world.disk(arena.leader())
    media.crash_at_sync(chance.randint(1, 20), after=chance.random() < 0.5)


@kind("masters")
async def isolate_leader(arena: Arena, chance: random.Random) -> None:
    await isolate(arena, chance, arena.leader())


@kind("masters")
async def cut_leader_from_masters(arena: Arena, chance: random.Random) -> None:
    """Clients and chunkservers still reach it; perhaps it still hears the others, or they it."""
    leader = arena.leader()
    way = chance.choice(("both", "both", "in", "out"))
    others = [name for name in arena.masters if name != leader]
    for other in others:
        pair = (other, leader) if way == "in" else (leader, other)
        arena.world.partition(*pair, one_way=way != "both")
    await last(arena, chance)
    for other in others:
        arena.world.heal_between(leader, other)


@kind("masters")
async def isolate_follower(arena: Arena, chance: random.Random) -> None:
    await isolate(arena, chance, arena.follower(chance))


@kind("masters")
async def cut_two_masters(arena: Arena, chance: random.Random) -> None:
    await cut(arena, chance, arena.leader(), arena.follower(chance))


@kind("masters")
async def slow_master_disks(arena: Arena, chance: random.Random) -> None:
    for name in arena.masters:
        arena.world.disk(name).sync_delay_s = SLOW_SYNC_S * chance.choice((0, 1, 5))
    await last(arena, chance)
    for name in arena.masters:
        arena.world.disk(name).sync_delay_s = 0.0


@kind("masters")
async def reset_master(arena: Arena, chance: random.Random) -> None:
    others = [*arena.masters, *arena.chunkservers, *arena.clients]
    arena.world.reset_links(arena.leader(), chance.choice(others))


@kind("masters")
async def kill_master_at_step(arena: Arena, chance: random.Random) -> None:
    """Between any two awaits."""
    name = arena.master(chance)
    arena.world.crash_at_step(name, chance.randint(1, 3000), power_loss=chance.random() < 0.5)


@kind("masters")
async def kill_master_at_operation(arena: Arena, chance: random.Random) -> None:
    """At any operation of its disk."""
    media = arena.world.disk(arena.master(chance))
    media.crash_at_operation(chance.randint(1, 60), power_loss=chance.random() < 0.5)


@kind("masters")
async def pause_leader(arena: Arena, chance: random.Random) -> None:
    await pause(arena, chance, arena.leader())


@kind("masters")
async def pause_follower(arena: Arena, chance: random.Random) -> None:
    await pause(arena, chance, arena.follower(chance))


@kind("masters")
async def silence_master(arena: Arena, chance: random.Random) -> None:
    await silence(arena, chance, arena.master(chance))


@kind("masters")
async def switch_off_master(arena: Arena, chance: random.Random) -> None:
    await switch_off(arena, arena.master(chance))
