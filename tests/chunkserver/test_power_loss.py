"""Power loss at any moment of a history: what calls itself settled is, the rest admits doubts.

The simulated disk keeps any of the unsynced pages, tears others, and takes back names and lengths.
"""

from __future__ import annotations

import random
from functools import partial

import pytest

from chunkserver.replica import Replica
from chunkserver.store import Store
from dfs.errors import Failure
from dfs.layout import BLOCK_BYTES
from dfs.messages.chunks import ReplicaState
from dfs.runtime.sim import World
from tests.chunkserver.stores import get, put, store_on
from tests.conftest import ExpectedLogs

HANDLE = 7
SPAN = 80 * BLOCK_BYTES  # more than is announced at a time
SEEDS = 150


class History:
    """One replica's life, in step with what was acknowledged and what was synced."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World(seed)
        self.model = bytearray()
        self.synced: bytes | None = None  # the contents that a sync covered last
        self.touched = bytearray(SPAN // BLOCK_BYTES + 1)  # blocks changed since then
        self.generation = 0

    async def live(self, store: Store) -> None:
        for _ in range(self.chance.randrange(1, 12)):
            step = self.chance.choice([self.write, self.write, self.write, self.sync, self.cut])
            await step(store)

    async def write(self, store: Store) -> None:
        offset = self.chance.choice(
            [len(self.model), 0, self.chance.randrange(SPAN // 2), BLOCK_BYTES * 70]
        )
        data = self.chance.randbytes(self.chance.choice([1, 5000, BLOCK_BYTES, 150_000]))
        await put(store, HANDLE, offset, data)
        begin = min(offset, len(self.model))
        self.model.extend(bytes(max(0, offset - len(self.model))))
        self.model[offset : offset + len(data)] = data
        self.touch(begin, offset + len(data))

    async def sync(self, store: Store) -> None:
        if store.has(HANDLE):
            await store.syncing.sync(HANDLE, clean=self.chance.random() < 0.5)
            self.synced, self.touched = bytes(self.model), bytearray(len(self.touched))

    async def cut(self, store: Store) -> None:
        if store.has(HANDLE):
            self.generation += 1
            length = self.chance.randrange(len(self.model) + 1)
            async with store.turn(HANDLE):
                work = partial(_cut, self.generation, length)
                await store.change(store.find(HANDLE), work, waits=True)
            self.touch(length, SPAN)
            del self.model[length:]

    def touch(self, begin: int, end: int) -> None:
        for block in range(begin // BLOCK_BYTES, min(len(self.touched), end // BLOCK_BYTES + 1)):
            self.touched[block] = 1


def _cut(generation: int, length: int, replica: Replica) -> None:
    replica.cut(generation, length)


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_after_a_power_loss(first: int, expected_logs: ExpectedLogs) -> None:
    expected_logs("no valid header")  # of a new file that no sync has covered
    for seed in range(first, first + 50):
        _check(seed)


def _check(seed: int) -> None:
    history = History(seed)
    world = history.world

    async def main() -> None:
        store = store_on(world.env("node"), "/a")
        await store.start()
        await history.live(store)
        world.crash("node")
        again = store_on(world.env("node"), "/a")
        await again.start()
        if not again.has(HANDLE):
            assert history.synced is None, f"seed {seed}: a synced replica is gone"
            return
        entry = again.find(HANDLE)
        found = await _whole(again, seed)
        if entry.state is ReplicaState.SETTLED:
            assert found == history.model, f"seed {seed}: it is not what was acknowledged"
        if history.synced is not None:
            _check_synced(history, found, seed)

    world.run(main)


async def _whole(store: Store, seed: int) -> bytes:
    try:
        return await get(store, HANDLE, 0, 2 * SPAN)
    except Failure as failure:
        raise AssertionError(f"seed {seed}: {failure}") from failure


def _check_synced(history: History, found: bytes, seed: int) -> None:
    synced = history.synced
    assert synced is not None
    for start in range(0, len(synced), BLOCK_BYTES):
        if not history.touched[start // BLOCK_BYTES]:
            wanted = synced[start : start + BLOCK_BYTES]
            assert found[start : start + len(wanted)] == wanted, f"seed {seed}: block at {start}"


def test_the_seeds_reach_what_they_are_for(expected_logs: ExpectedLogs) -> None:
    """Some end settled, some lost, some without a file that was never synced."""
    expected_logs("no valid header")
    ends: dict[str, int] = {}

    def run(seed: int) -> None:
        history = History(seed)

        async def main() -> None:
            store = store_on(history.world.env("node"), "/a")
            await store.start()
            await history.live(store)
            history.world.crash("node")
            again = store_on(history.world.env("node"), "/a")
            await again.start()
            end = again.find(HANDLE).state.name if again.has(HANDLE) else "gone"
            ends[end] = ends.get(end, 0) + 1

        history.world.run(main)

    for seed in range(80):
        run(seed)
    assert min(ends.get(end, 0) for end in ("SETTLED", "LOST", "gone")) >= 2, ends
