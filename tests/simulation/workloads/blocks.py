"""Random overwrites of small blocks in a few shared files, by all clients at once.

Each block is a register (`registers`): a write opens the file, writes a value of its own all over
the block (or over several), and syncs or closes; a read opens, reads, closes. So what one client
was told is done must be seen by whoever opens the file afterwards. A block is never a mixture. Now
and then somebody cuts a file, which is a write of zeros to all blocks behind the cut.
"""

from __future__ import annotations

import random

from dfs.client import Client
from dfs.layout import BLOCK_BYTES, CHUNK_BYTES
from dfs.messages.common import ROOT
from dfs.messages.operations import Create, SetAttributes
from tests.simulation import registers
from tests.simulation.history import Op
from tests.simulation.stage import Stage
from tests.simulation.workloads.common import loses_power, make_directory, pace, recorded

PER_SECOND = 3.0
CUTS = 0.04  # of all operations
FILES = 3
SIZE = 4096
# Neighbours in one checksummed block, on both sides of its end, and around the end of a chunk.
OFFSETS = (
    0,
    SIZE,
    2 * SIZE,
    BLOCK_BYTES - SIZE,
    BLOCK_BYTES,
    BLOCK_BYTES + SIZE + 512,
    CHUNK_BYTES - SIZE,
    CHUNK_BYTES,
)
ZEROS = bytes(16)
TORN = b"torn"
WRITE, READ = "write", "read"


class Blocks:
    """The workload; see the module."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._files: list[int] = []
        self._written = 0
        self._powerless = loses_power(stage)

    async def prepare(self, client: Client) -> None:
        root = await make_directory(client, client.root_inode, b"blocks")
        for number in range(FILES):
            file = await client.create_file(Create(root, b"f%d" % number, 0o644, True, ROOT))
            self._files.append(file.inode)
            await file.close()

    async def work(self, name: str, life: int, client: Client) -> None:
        chance = self._stage.chance(f"blocks/{name}/{life}")
        while self._stage.now_s() < self._stage.until_s:
            what = chance.random()
            if what < CUTS:
                await self._cut(name, client, chance)
            elif what < 0.5:
                await self._write(name, client, chance)
            else:
                await self._read(name, client, chance.choice(self._files), chance.choice(OFFSETS))
            await pace(self._stage, chance, PER_SECOND)

    async def check(self, observer: Client) -> None:
        for inode in self._files:
            for offset in OFFSETS:
                await self._read("observer", observer, inode, offset)
        for register, ops in registers.grouped(self._stage.history.of(WRITE, READ)).items():
            writes = [op for op in ops if op.action == WRITE]
            reads = [op for op in ops if op.action == READ]
            self._check_torn(register, writes, [read for read in reads if read.answer == TORN])
            reads = [read for read in reads if read.answer != TORN]
            self._stage.reach["checked.reads"] += len(reads)
            for misread in registers.misreads(writes, reads, ZEROS):
                around = [misread.read, *filter(None, (misread.write, misread.replaced_by))]
                text = f"block {register}: {misread.read}, though {misread.replaced_by} was before"
                if misread.write is None and misread.replaced_by is None:
                    text = f"block {register}: nobody wrote what was read: {misread.read}"
                self._stage.broken("reads see the last write", text, around)

    def _check_torn(self, register: object, writes: list[Op], reads: list[Op]) -> None:
        """Only a write that is not known to have ended before may have been torn."""
        for read in reads:
            begun = [write for write in writes if write.began_s < read.ended_s]
            if not any(write.is_open or write.ended_s > read.began_s for write in begun):
                text = f"block {register} is a mixture, though all writes had ended: {read}"
                self._stage.broken("blocks are whole", text, [read, *begun[-3:]])

    async def _write(self, who: str, client: Client, chance: random.Random) -> None:
        inode, count = chance.choice(self._files), chance.choice((1, 1, 1, 3))
        offsets = sorted(chance.sample(OFFSETS, count))
        sync = self._powerless or chance.random() < 0.5
        self._written += 1
        value = b"%-16d" % self._written
        async with recorded(self._stage, who, WRITE, inode, tuple(offsets), value):
            file = await client.open_file(inode, ROOT, write=True)
            try:
                for offset in offsets:
                    await file.write(offset, value * (SIZE // len(value)))
                if sync:
                    await file.sync()
            finally:
                await file.close()

    async def _cut(self, who: str, client: Client, chance: random.Random) -> None:
        """A truncate, while others write and read: every block behind it is as it was at first.

        Or one behind them all, which changes none.
        """
        inode, first = chance.choice(self._files), chance.randrange(len(OFFSETS) + 1)
        behind = OFFSETS[first:]
        size = behind[0] if behind else OFFSETS[-1] + SIZE + chance.choice((0, 1, SIZE))
        async with recorded(self._stage, who, WRITE, inode, behind, ZEROS):
            file = await client.open_file(inode, ROOT, write=True)
            try:
                through = chance.random() < 0.5
                cut = SetAttributes(inode, ROOT, size_bytes=size, through_handle=through)
                await client.set_attributes(cut)
            finally:
                await file.close()
        self._stage.reach["blocks.cut"] += 1

    async def _read(self, who: str, client: Client, inode: int, offset: int) -> None:
        async with recorded(self._stage, who, READ, inode, offset) as op:
            file = await client.open_file(inode, ROOT, write=False)
            try:
                data = bytes(await file.read(offset, SIZE))
            finally:
                await file.close()
            op.answer = self._value(data, who, inode, offset)

    def _value(self, data: bytes, who: str, inode: int, offset: int) -> bytes:
        """What all of the block repeats; bytes beyond the end of the file are zeros.

        TORN, as a write may be that was under way when all servers lost their power.
        """
        data = data.ljust(SIZE, b"\0")
        value = data[: len(ZEROS)]
        if value * (SIZE // len(value)) != data:
            if self._powerless:
                self._stage.reach["blocks.torn"] += 1
                return TORN
            parts = dict.fromkeys(data[i : i + len(value)] for i in range(0, SIZE, len(value)))
            text = f"{who} reads a mixture at {offset} of inode {inode}: {list(parts)[:4]}"
            self._stage.broken("blocks are whole", text)
        return value
