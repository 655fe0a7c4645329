"""Faults of the chunkservers. Those that take data away come alone (`Arena.harming`)."""

from __future__ import annotations

import random

from tests.simulation.arena import Arena
from tests.simulation.faults.kinds import (
    cut,
    isolate,
    kind,
    last,
    must,
    pause,
    silence,
    switch_off,
    until_alive,
    until_dead,
)

SLOW_SYNC_S = 0.2


@kind("chunkservers")
async def kill_chunkserver(arena: Arena, chance: random.Random) -> None:
    """The process alone: what it has written is in the page cache."""
    async with arena.disturbing():
        name = arena.chunkserver(chance)
        arena.world.crash(name, power_loss=False)
        await until_alive(arena, name)


@kind("chunkservers")
async def isolate_chunkserver(arena: Arena, chance: random.Random) -> None:
    async with arena.disturbing():
        await isolate(arena, chance, arena.chunkserver(chance))


@kind("chunkservers")
async def cut_chunkserver_from_leader(arena: Arena, chance: random.Random) -> None:
    async with arena.disturbing():
        await cut(arena, chance, arena.chunkserver(chance), arena.leader())


@kind("chunkservers")
async def cut_chunkserver_from_client(arena: Arena, chance: random.Random) -> None:
    async with arena.disturbing():
        await cut(arena, chance, arena.chunkserver(chance), arena.client(chance))


@kind("chunkservers")
async def cut_chain(arena: Arena, chance: random.Random) -> None:
    async with arena.disturbing():
        await cut(arena, chance, *chance.sample(arena.chunkservers, 2))


@kind("chunkservers")
async def reset_chunkserver(arena: Arena, chance: random.Random) -> None:
    others = [*arena.chunkservers, *arena.clients, arena.leader()]
    async with arena.disturbing():
        arena.world.reset_links(arena.chunkserver(chance), chance.choice(others))


@kind("chunkservers")
async def slow_chunkserver_disk(arena: Arena, chance: random.Random) -> None:
    async with arena.disturbing():
        media = arena.world.disk(arena.chunkserver(chance))
        media.sync_delay_s = SLOW_SYNC_S
        await last(arena, chance)
        media.sync_delay_s = 0.0


@kind("chunkservers")
async def pause_chunkserver(arena: Arena, chance: random.Random) -> None:
    async with arena.disturbing():
        await pause(arena, chance, arena.chunkserver(chance))


@kind("chunkservers")
async def silence_chunkserver(arena: Arena, chance: random.Random) -> None:
    async with arena.disturbing():
        await silence(arena, chance, arena.chunkserver(chance))


@kind("chunkservers")
async def kill_chunkserver_at_step(arena: Arena, chance: random.Random) -> None:
    """The process, between any two of its awaits."""
    async with arena.disturbing():
        name = arena.chunkserver(chance)
        arena.world.crash_at_step(name, chance.randint(1, 3000), power_loss=False)
        struck = await until_dead(arena, name)
        arena.world.crash_at_step(name, 0)
        must(struck)
        await until_alive(arena, name)


@kind("chunkservers")
async def kill_chunkserver_at_operation(arena: Arena, chance: random.Random) -> None:
    """The process, at any operation of its disks; what it was writing is there in part."""
    async with arena.disturbing():
        name = arena.chunkserver(chance)
        media = arena.world.disk(name)
        media.crash_at_operation(chance.randint(1, 100), power_loss=False)
        struck = await until_dead(arena, name)
        media.crash_at_operation(0)
        must(struck)
        await until_alive(arena, name)


@kind("power")
async def power_chunkserver(arena: Arena, chance: random.Random) -> None:
    async with arena.harming():
        arena.world.crash(arena.chunkserver(chance), power_loss=True)


@kind("power")
async def power_chunkserver_at_sync(arena: Arena, chance: random.Random) -> None:
    async with arena.harming():
        name = arena.chunkserver(chance)
        media = arena.world.disk(name)
        media.crash_at_sync(chance.randint(1, 10), after=chance.random() < 0.5)
        struck = await until_dead(arena, name)
        media.crash_at_sync(0)
        must(struck)


@kind("power")
async def power_chunkserver_at_operation(arena: Arena, chance: random.Random) -> None:
    async with arena.harming():
        name = arena.chunkserver(chance)
        media = arena.world.disk(name)
        media.crash_at_operation(chance.randint(1, 100))
        struck = await until_dead(arena, name)
        media.crash_at_operation(0)
        must(struck)


@kind("power")
async def power_chunkserver_at_step(arena: Arena, chance: random.Random) -> None:
    async with arena.harming():
        name = arena.chunkserver(chance)
        arena.world.crash_at_step(name, chance.randint(1, 3000))
        struck = await until_dead(arena, name)
        arena.world.crash_at_step(name, 0)
        must(struck)


@kind("power")
async def switch_off_chunkserver(arena: Arena, chance: random.Random) -> None:
    async with arena.harming():
        await switch_off(arena, arena.chunkserver(chance))
