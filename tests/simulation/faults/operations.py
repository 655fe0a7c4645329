"""What operators do while clients work. One order at a time, as operators do."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dfs.messages.cluster import (
    AddMaster,
    ClusterStatus,
    CreateSnapshot,
    GetClusterStatus,
    RemoveMaster,
    ServerMode,
    SetServerMode,
    TransferLeadership,
)
from tests.simulation.arena import Arena, Skipped
from tests.simulation.faults.kinds import kind, last, must

MEMBERS_REST_S = 12.0  # more than others may be away; they learn who the masters are meanwhile


@kind("operations")
async def transfer_leadership(arena: Arena, chance: random.Random) -> None:
    async with arena.operating():
        must(await arena.order(TransferLeadership(0)))


@kind("operations")
async def take_snapshot(arena: Arena, chance: random.Random) -> None:
    async with arena.operating():
        must(await arena.order(CreateSnapshot()))


@kind("operations")
async def drain_chunkserver(arena: Arena, chance: random.Random) -> None:
    """Begin to empty a server; it comes back before or after that is done."""
    async with arena.operating():
        number = chance.choice(list(arena.cluster.chunkservers))
        must(await arena.order(SetServerMode(number, ServerMode.DRAINING)))
        await last(arena, chance, 20.0)
        while await arena.order(SetServerMode(number, ServerMode.IN_SERVICE)) is None:
            await arena.pass_time(1.0)


@kind("operations")
async def rolling_restart(arena: Arena, chance: random.Random) -> None:
    """Every server process in turn, each once the one before is there again."""
    async with arena.operating(), arena.disturbing():
        for name in (*arena.masters, *arena.chunkservers):
            arena.world.crash(name, power_loss=False)
            while not arena.world.is_alive(name):
                await arena.pass_time(0.2)
            await arena.pass_time(chance.uniform(0.5, 3.0))


@kind("members")
async def exchange_master(arena: Arena, chance: random.Random) -> None:
    """A new master comes, then an old one goes."""
    async with arena.operating(), _changing_members(arena):
        added = await _add_master(arena)
        await arena.pass_time(chance.uniform(0.0, 5.0))
        old = chance.choice([n for n in arena.cluster.masters if n != added])
        await _remove_master(arena, old)


@kind("members")
async def replace_lost_master(arena: Arena, chance: random.Random) -> None:
    """A master's disk is lost; another one comes under a new id."""
    async with arena.operating(), _changing_members(arena):
        lost = chance.choice(list(arena.cluster.masters))
        arena.unattended.add(f"master-{lost}")
        arena.world.crash(f"master-{lost}")
        arena.world.disk(f"master-{lost}").wipe()
        arena.stage.lost.add(f"master-{lost}")
        await arena.pass_time(chance.uniform(0.0, 5.0))
        await _remove_master(arena, lost)
        await _add_master(arena)


@asynccontextmanager
async def _changing_members(arena: Arena) -> AsyncIterator[None]:
    """One change at a time, each when the cluster is whole: nobody may miss all the old masters."""
    status = await arena.order(GetClusterStatus())
    if not isinstance(status, ClusterStatus) or not all(s.alive for s in status.servers):
        raise Skipped
    if arena.now_s() < arena.members_rest_until_s:
        raise Skipped
    yield
    arena.members_rest_until_s = arena.now_s() + MEMBERS_REST_S


async def _add_master(arena: Arena) -> int:
    """Start one more and make it a member; its number."""
    number = await arena.cluster.start_master()
    address = arena.cluster.masters[number]
    while number not in await arena.members():
        await arena.order(AddMaster(number, address))
    return number


async def _remove_master(arena: Arena, number: int) -> None:
    """Take it out of the group, then stop it for good."""
    while number in await arena.members():
        await arena.order(RemoveMaster(number))
    name = f"master-{number}"
    arena.unattended.add(name)
    arena.cluster.forget_master(number)
    arena.world.crash(name)
