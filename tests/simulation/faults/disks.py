"""Faults of disks beside slow ones: they refuse, they are full, they forget, they rot.

A chunkserver's come alone: no client is told of one. What its disk loses (rot, bad sectors) is over
when a scrub has found it and all is whole again: damage that nobody has noticed yet would be added
to the next.
"""

from __future__ import annotations

import errno
import random

from chunkserver.format import (
    DATA_OFFSET,
    ENTRY_BYTES,
    SLOT_BYTES,
    SLOTS,
    TABLE_OFFSET,
)
from dfs.config import ChunkserverLimits
from dfs.layout import BLOCK_BYTES
from dfs.runtime.sim import Media
from dfs.runtime.sim.disk import CAPACITY_BYTES
from dfs.runtime.sim.inode import PAGE_BYTES
from tests.simulation.arena import Arena
from tests.simulation.faults.kinds import kind, last, must, until_alive

DISKS = ("/disk-a", "/disk-b")
FAILS_MAX_S = 25.0
SLOW_READ_S = 0.3
RESERVE_BYTES = ChunkserverLimits().reserve_bytes
ROOM_MAX_BYTES = 256 << 10
SPOILT_MAX_BYTES = 3 * BLOCK_BYTES


@kind("disks")
async def fail_chunkserver_disk(arena: Arena, chance: random.Random) -> None:
    """Changes get EIO: the disk is read-only until it is well and the server is started anew."""
    async with arena.harming():
        name, disk = arena.chunkserver(chance), chance.choice(DISKS)
        media = arena.world.disk(name)
        media.fail(disk, errno.EIO, chance.choice(("write", "sync", "sync")))
        arena.world.tell("disk fails", name, disk)
        await last(arena, chance, FAILS_MAX_S)
        media.mend(disk)
        arena.world.crash(name, power_loss=False)
        await until_alive(arena, name)


@kind("disks")
async def full_chunkserver_disk(arena: Arena, chance: random.Random) -> None:
    """A server runs out of space, and gets some again."""
    async with arena.harming():
        media = arena.world.disk(arena.chunkserver(chance))
        used_bytes = media.capacity_bytes - media.free_bytes()
        reserve_bytes = chance.choice((0, RESERVE_BYTES))
        media.capacity_bytes = used_bytes + reserve_bytes + chance.randrange(ROOM_MAX_BYTES)
        await last(arena, chance)
        media.capacity_bytes = CAPACITY_BYTES


@kind("chunkservers")
async def slow_reads(arena: Arena, chance: random.Random) -> None:
    async with arena.disturbing():
        media = arena.world.disk(arena.chunkserver(chance))
        media.read_delay_s = SLOW_READ_S * chance.random()
        await last(arena, chance)
        media.read_delay_s = 0.0


@kind("disks")
async def rot(arena: Arena, chance: random.Random) -> None:
    """Bits flip in replicas of one server: in data, checksums, headers, in the cache or not."""
    async with arena.harming():
        name = arena.chunkserver(chance)
        media = arena.world.disk(name)
        must(paths := _some_replicas(media, chance))
        for path in paths:
            for at in _places(media, path, chance):
                media.flip_bit(path, at, cached=chance.random() < 0.5)
            arena.world.tell("rot", name, path)
        await _noticed(arena, chance, name)


@kind("disks")
async def bad_sectors(arena: Arena, chance: random.Random) -> None:
    """Parts of replicas of one server cannot be read any more."""
    async with arena.harming():
        name = arena.chunkserver(chance)
        media = arena.world.disk(name)
        must(paths := _some_replicas(media, chance))
        for path in paths:
            at = chance.choice(_places(media, path, chance))
            media.spoil(path, at, chance.randrange(1, SPOILT_MAX_BYTES))
            arena.world.tell("bad sectors", name, path)
        await _noticed(arena, chance, name)


@kind("disks")
async def replace_chunkserver_disk(arena: Arena, chance: random.Random) -> None:
    """A server is off for a while and returns with one empty disk, or two."""
    async with arena.harming():
        number = chance.choice(list(arena.cluster.chunkservers))
        name, lost = f"chunkserver-{number}", chance.choice((*DISKS, "/"))
        arena.world.crash(name)
        arena.world.disk(name).wipe(lost)
        arena.cluster.configure(number)
        arena.world.tell("disk replaced", name, lost)
        await until_alive(arena, name)


@kind("master disks")
async def fail_master_disk(arena: Arena, chance: random.Random) -> None:
    """A master's disk refuses changes, or is full: the process ends, again and again."""
    media = arena.world.disk(arena.master(chance))
    media.fail(
        "/data", chance.choice((errno.EIO, errno.ENOSPC)), chance.choice(("write", "sync", "sync"))
    )
    await last(arena, chance)
    media.mend("/data")


async def _noticed(arena: Arena, chance: random.Random, name: str) -> None:
    """By readers, by a new start of the server, by the scrub: in the end all is whole."""
    await last(arena, chance)
    if chance.random() < 0.5:
        arena.world.crash(name, power_loss=chance.random() < 0.5)
        await until_alive(arena, name)
    await arena.until_verified(name)


def _some_replicas(media: Media, chance: random.Random) -> list[str]:
    """Paths of a few replica files of a node."""
    files = [path for disk in DISKS for path in media.files(f"{disk}/replicas/")]
    return chance.sample(files, min(len(files), chance.randint(1, 4)))


def _places(media: Media, path: str, chance: random.Random) -> list[int]:
    """Where to harm a replica file: somewhere of one of the things that it holds."""
    offsets = [page * PAGE_BYTES - DATA_OFFSET for page in media.inode(path).pages()]
    data = [at for at in offsets if at >= 0] or [0]
    at = chance.choice(data)  # not in a hole
    block = at // BLOCK_BYTES
    match chance.randrange(5):
        case 0:
            return [chance.randrange(SLOTS) * SLOT_BYTES + chance.randrange(330)]
        case 1:
            return [slot * SLOT_BYTES + chance.randrange(330) for slot in range(SLOTS)]
        case 2:
            return [TABLE_OFFSET + block * ENTRY_BYTES + chance.randrange(ENTRY_BYTES)]
        case _:
            return [DATA_OFFSET + at + chance.randrange(PAGE_BYTES)]
