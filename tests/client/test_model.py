"""Random histories of one file against a bytearray, with and without servers failing.

Two clients take turns (close here, open there); within a turn everything a client has written is
seen by its reads at once, whatever is flushed, in flight or cached. At the end all replicas that
the master names are equal and hold the file.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from dfs.client import Client, OpenFile
from dfs.config import ClientLimits
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES, CHUNK_BYTES
from dfs.messages.common import ROOT
from dfs.messages.operations import SetAttributes
from tests.client.fake_cluster import KEY, Scene, create, pattern, play
from tests.client.sparse import SparseBytes
from tests.conftest import ExpectedLogs

# Small numbers, so that windows, budgets and slots are all exercised by little data.
LIMITS = ClientLimits(
    packet_bytes=2 * BLOCK_BYTES,
    write_window_bytes=4 * BLOCK_BYTES,
    dirty_bytes=8 * BLOCK_BYTES,
    read_ahead_bytes=8 * BLOCK_BYTES,
    cache_bytes=16 * BLOCK_BYTES,
    max_in_flight=4,
)

# Places around the borders of blocks, packets and a chunk.
OFFSETS = st.one_of(
    st.integers(0, 600_000),
    st.sampled_from([0, BLOCK_BYTES, 2 * BLOCK_BYTES, 4 * BLOCK_BYTES]).flatmap(
        lambda at: st.integers(max(0, at - 10), at + 10)
    ),
    st.integers(CHUNK_BYTES - 100_000, CHUNK_BYTES + 100_000),
)
LENGTHS = st.one_of(st.integers(0, 200), st.integers(0, 300_000))


@dataclass(frozen=True)
class Write:
    offset: int
    length: int
    salt: int


@dataclass(frozen=True)
class Read:
    offset: int
    length: int


@dataclass(frozen=True)
class Truncate:
    size: int


@dataclass(frozen=True)
class Do:
    what: str


CALM = st.one_of(
    st.builds(Write, OFFSETS, LENGTHS, st.integers(0, 250)),
    st.builds(Write, OFFSETS, LENGTHS, st.integers(0, 250)),
    st.builds(Read, OFFSETS, LENGTHS),
    st.builds(Read, OFFSETS, LENGTHS),
    st.builds(Truncate, OFFSETS),
    st.builds(Do, st.sampled_from(["flush", "sync", "start flush", "switch", "second", "wait"])),
)
FAULTS = st.builds(
    Do, st.sampled_from(["leader", "lose answer", "unknown", "crash", "hang", "corrupt", "reset"])
)


class History:
    """Runs the steps on the cluster and on the model."""

    def __init__(self, s: Scene, clients: list[Client], nursery: trio.Nursery) -> None:
        self.s, self.clients, self.nursery = s, clients, nursery
        self.model = SparseBytes()
        self.turn = 0
        self.file: OpenFile
        self.others: list[OpenFile] = []
        self.broken = False  # one chunkserver at most is ever broken

    async def begin(self) -> None:
        self.file = await create(self.clients[0])

    async def step(self, step: Write | Read | Truncate | Do) -> None:
        if isinstance(step, Write):
            data = pattern(step.length, step.salt)
            await self.file.write(step.offset, data)
            self.model.write(step.offset, data)
        elif isinstance(step, Read):
            got = await self.file.read(step.offset, step.length)
            assert bytes(got) == self.model.read(step.offset, step.length), step
        elif isinstance(step, Truncate):
            client = self.clients[self.turn]
            change = SetAttributes(self.file.inode, ROOT, size_bytes=step.size)
            assert (await client.set_attributes(change)).size_bytes == step.size
            self.model.truncate(step.size)
        else:
            await getattr(self, step.what.replace(" ", "_"))()
        shown = await self.clients[self.turn].attributes(self.file.inode)
        assert shown.size_bytes == self.model.size

    async def flush(self) -> None:
        await self.file.flush()

    async def sync(self) -> None:
        await self.file.sync()

    async def start_flush(self) -> None:
        self.nursery.start_soon(self.file.flush)
        await trio.lowlevel.checkpoint()

    async def wait(self) -> None:
        await self.s.world.clock.sleep(0.001)

    async def second(self) -> None:
        """Go on with another handle of the same client."""
        self.others.append(self.file)
        self.file = await self.clients[self.turn].open_file(self.file.inode, ROOT, write=True)

    async def switch(self) -> None:
        for handle in [*self.others, self.file]:
            await handle.close()
        self.others.clear()
        self.turn = 1 - self.turn
        self.file = await self.clients[self.turn].open_file(self.file.inode, ROOT, write=True)
        assert self.file.attributes.size_bytes == self.model.size

    # -- faults

    async def leader(self) -> None:
        self.s.masters.change_leader((self.s.masters.leader + 1) % 3)

    async def lose_answer(self) -> None:
        self.s.masters.after.append("drop")

    async def unknown(self) -> None:
        self.s.masters.after.append(Failure(Code.OUTCOME_UNKNOWN, "stepped down"))

    async def crash(self) -> None:
        if not self.broken:
            self.broken = True
            self.s.world.crash("chunkserver-2", power_loss=False)

    async def hang(self) -> None:
        if not self.broken:
            self.broken = True
            self.s.masters.servers[1].hang = True

    async def corrupt(self) -> None:
        if not self.broken:
            self.broken = True
            self.s.masters.servers[3].corrupt_reads = True

    async def reset(self) -> None:
        self.s.world.reset_links(f"client-{self.turn + 1}", "chunkserver-1")

    async def finish(self) -> None:
        await self.switch()
        size = self.model.size
        for at in [0, max(0, CHUNK_BYTES - 300_000)]:
            length = min(1_000_000, max(0, size - at))
            got = b""
            while len(got) < length:
                got += bytes(await self.file.read(at + len(got), min(100_000, length - len(got))))
            assert got == self.model.read(at, length)
        await self.file.close()
        await self.replicas_are_equal()

    async def replicas_are_equal(self) -> None:
        chunks = (await self.clients[self.turn].chunk_map(self.file.inode, 0, 3)).chunks
        for chunk in chunks:
            servers = [self.s.masters.servers[r.server] for r in chunk.replicas]
            if len(servers) < 2:
                continue
            held = [server.replicas.get(chunk.handle) for server in servers]
            contents = [r.data if r else SparseBytes() for r in held]
            assert all(c == contents[0] for c in contents), contents


def run(key_file: str, steps: list[Write | Read | Truncate | Do], seed: int) -> None:
    async def scene(s: Scene) -> None:
        async with (
            s.client("client-1", LIMITS) as one,
            s.client("client-2", LIMITS) as two,
            trio.open_nursery() as nursery,
        ):
            history = History(s, [one, two], nursery)
            await history.begin()
            for step in steps:
                await history.step(step)
            await history.finish()
            for client in (one, two):
                assert client._services.dirty_budget.taken_bytes == 0

    play(key_file, scene, seed=seed)


@pytest.fixture(scope="module")
def shared_key_file() -> str:
    path = Path(tempfile.mkdtemp()) / "key"
    path.write_bytes(KEY)
    return str(path)


@given(st.lists(CALM, max_size=25), st.integers(0, 1000))
def test_a_file_is_what_was_written_to_it(
    shared_key_file: str, steps: list[Write | Read | Truncate | Do], seed: int
) -> None:
    run(shared_key_file, steps, seed)


@given(st.lists(st.one_of(CALM, CALM, CALM, FAULTS), max_size=25), st.integers(0, 1000))
def test_a_file_is_what_was_written_to_it_whatever_fails(
    shared_key_file: str,
    expected_logs: ExpectedLogs,
    steps: list[Write | Read | Truncate | Do],
    seed: int,
) -> None:
    expected_logs("inode .* chunk|ended the connection during the handshake")  # a reset then
    run(shared_key_file, steps, seed)


@given(st.integers(0, 2**32))
def test_tasks_on_one_file_each_see_their_own_writes(shared_key_file: str, seed: int) -> None:
    """Regions of different tasks meet in the middle of blocks, packets and cached pieces."""
    region = 3 * BLOCK_BYTES + 777

    async def work(s: Scene, client: Client, inode: int, number: int, truth: bytearray) -> None:
        source = random.Random(f"{seed}/{number}")
        file = await client.open_file(inode, ROOT, write=True)
        base = number * region
        for round_ in range(12):
            start = source.randrange(region)
            stop = min(region, start + source.choice([1, 100, 5000, 100_000]))
            if source.random() < 0.6:
                data = bytes([1 + round_ + 16 * number]) * (stop - start)
                await file.write(base + start, data)
                truth[base + start : base + stop] = data
            else:
                got = bytes(await file.read(base + start, stop - start))
                want = bytes(truth[base + start : base + stop])
                assert got == want[: len(got)]
                assert not any(want[len(got) :])  # beyond the end so far: nobody wrote there
            if source.random() < 0.2:
                await source.choice([file.flush, file.sync])()
            if source.random() < 0.3:
                await s.world.clock.sleep(source.random() / 200)
        await file.close()

    async def scene(s: Scene) -> None:
        truth = bytearray(4 * region)
        async with s.client("client-1", LIMITS) as client:
            file = await create(client)
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(work, s, client, file.inode, number, truth)
            await file.close()
        async with s.client("client-2", LIMITS) as other:
            file = await other.open_file(file.inode, ROOT, write=False)
            got = bytearray()
            while part := await file.read(len(got), 100_000):
                got += part
            assert got == truth[: len(got)]
            assert not any(truth[len(got) :])
            await file.close()

    play(shared_key_file, scene, seed=seed % 1000)
