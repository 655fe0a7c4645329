"""Files that clients use in turn: writes, cuts, growth, holes, big streams; all content is known.

Who opens a file sees exactly what the one before left: what was cut off never comes back, what
grows shows zeros, streams are whole across the ends of chunks.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import trio

from dfs.client import Client, OpenFile
from dfs.layout import CHUNK_BYTES
from dfs.messages.common import ROOT
from dfs.messages.operations import Create, SetAttributes
from tests.client.sparse import SparseBytes
from tests.simulation.history import Op
from tests.simulation.stage import Stage
from tests.simulation.workloads.common import make_directory, pace, recorded

PER_SECOND = 3.0
FILES = 3
AROUND = 150_000  # bytes of each place of interest
STREAM_BYTES = 3 << 20
PLACES = (0, 65_536, CHUNK_BYTES)


@dataclass(eq=False)
class _Shared:
    inode: int
    content: SparseBytes = field(default_factory=SparseBytes)
    turn: trio.Lock = field(default_factory=trio.Lock)
    doubtful: bool = False  # a client died or failed in the middle of a change


class Turns:
    """The workload. `streams` says how often a change is a long stream."""

    streams = 0.03

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._files: list[_Shared] = []

    async def prepare(self, client: Client) -> None:
        root = await make_directory(client, client.root_inode, b"turns")
        for number in range(FILES):
            file = await client.create_file(Create(root, b"f%d" % number, 0o644, True, ROOT))
            self._files.append(_Shared(file.inode))
            await file.close()

    async def work(self, name: str, life: int, client: Client) -> None:
        chance = self._stage.chance(f"turns/{name}/{life}")
        while self._stage.now_s() < self._stage.until_s:
            shared = chance.choice(self._files)
            async with shared.turn:
                if not shared.doubtful:
                    await self._use(name, client, shared, chance)
            await pace(self._stage, chance, PER_SECOND)

    async def check(self, observer: Client) -> None:
        for shared in self._files:
            if not shared.doubtful:
                await self._read(observer, "observer", shared)
                self._stage.reach["checked.turns"] += 1

    async def _use(self, who: str, client: Client, shared: _Shared, chance: random.Random) -> None:
        if chance.random() < 0.4:
            await self._read(client, who, shared)
            return
        shared.doubtful = True  # until it is done
        async with recorded(self._stage, who, "change", shared.inode) as op:
            file = await client.open_file(shared.inode, ROOT, write=True)
            try:
                op.answer = await self._change(client, file, shared.content, chance)
            finally:
                await file.close()
            shared.doubtful = False

    async def _change(
        self, client: Client, file: OpenFile, content: SparseBytes, chance: random.Random
    ) -> str:
        """Some changes through one handle; what they were."""
        done: list[str] = []
        for _ in range(chance.randint(1, 3)):
            if chance.random() < 0.35:
                size = self._place(content, chance)
                done.append(f"cut to {size}")
                cut = SetAttributes(file.inode, ROOT, size_bytes=size, through_handle=True)
                await client.set_attributes(cut)
                content.truncate(size)
                continue
            offset = min(self._place(content, chance), content.size + AROUND)
            for data in self._data(chance):
                done.append(f"write {len(data)} at {offset}")
                await file.write(offset, data)
                content.write(offset, data)
                offset += len(data)
        if chance.random() < 0.3:
            await file.sync()
        return ", ".join(done)

    def _data(self, chance: random.Random) -> list[bytes]:
        if chance.random() < self.streams:
            piece = chance.choice((65_536, 100_000, 131_072))
            return [chance.randbytes(piece) for _ in range(STREAM_BYTES // piece)]
        return [chance.randbytes(chance.choice((1, 100, 4096, 20_000, 70_000)))]

    def _place(self, content: SparseBytes, chance: random.Random) -> int:
        around = chance.choice(PLACES) + chance.randint(-AROUND, AROUND)
        return max(0, chance.choice((0, content.size, content.size // 2, around, around)))

    async def _read(self, client: Client, who: str, shared: _Shared) -> None:
        async with recorded(self._stage, who, "compare", shared.inode) as op:
            file = await client.open_file(shared.inode, ROOT, write=False)
            try:
                await self._compare(file, shared.content, op)
            finally:
                await file.close()

    async def _compare(self, file: OpenFile, content: SparseBytes, op: Op) -> None:
        if (size := file.attributes.size_bytes) != content.size:
            text = f"inode {file.inode} has {size} bytes, not {content.size}"
            self._stage.broken("files hold what was written", text, [op])
        for place in PLACES:
            start = max(0, place - AROUND)
            length = 2 * AROUND if self.streams < 0.1 else STREAM_BYTES + AROUND
            data, expected = bytes(await file.read(start, length)), content.read(start, length)
            if data != expected:
                pairs = enumerate(zip(data, expected, strict=False))
                at = next((i for i, (a, b) in pairs if a != b), min(len(data), len(expected)))
                text = f"inode {file.inode} differs at {start + at}; zeros: {not any(data[at:])}"
                self._stage.broken("files hold what was written", text, [op])


class Streams(Turns):
    """Mostly long streams."""

    streams = 0.5
