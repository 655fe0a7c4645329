"""Append-only logs: records in order, all that were promised, nothing else; also of dead clients.

Each life of a client appends numbered records to a file of its own and flushes or syncs now and
then; others read along. Whoever opens the file sees whole records, in order from the first: at
least those that were flushed before (after a loss of power: synced), at most those that were
written. A client that is killed leaves such a prefix too (C4).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from dfs.client import Client, OpenFile
from dfs.messages.common import ROOT
from dfs.messages.operations import Create
from tests.simulation.history import Op
from tests.simulation.stage import Stage
from tests.simulation.workloads.common import loses_power, make_directory, pace, recorded

PER_SECOND = 4.0
SIZES = (1, 3, 16, 17, 64, 1000)  # of a record, in units of 24 bytes
UNIT = 24


@dataclass(eq=False)
class _Log:
    """What is known of one file."""

    name: bytes
    inode: int
    records: list[bytes]
    flushed: int = 0  # records, told to be on all replicas
    synced: int = 0


class Logs:
    """The workload; see the module."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._root = 0
        self._logs: list[_Log] = []
        self._powerless = loses_power(stage)

    async def prepare(self, client: Client) -> None:
        self._root = await make_directory(client, client.root_inode, b"logs")

    async def work(self, name: str, life: int, client: Client) -> None:
        chance = self._stage.chance(f"logs/{name}/{life}")
        while self._stage.now_s() < self._stage.until_s:
            await self._write_log(name, life, client, chance)

    async def check(self, observer: Client) -> None:
        for log in self._logs:
            await self._read(observer, log, "observer")
            self._stage.reach["checked.logs"] += 1

    # -- inside

    async def _write_log(self, who: str, life: int, client: Client, chance: random.Random) -> None:
        """One file, from creation to its last close."""
        name = f"{who}.{life}.{len(self._logs)}".encode()
        file: OpenFile | None = None
        async with recorded(self._stage, who, "make log", name):
            file = await client.create_file(Create(self._root, name, 0o644, True, ROOT))
        if file is None:
            return
        log = _Log(name, file.inode, [])
        self._logs.append(log)
        async with recorded(self._stage, who, "write log", name) as op:
            try:
                await self._appends(file, log, who, client, chance)
            finally:
                await file.close()
            log.flushed = op.answer = len(log.records)

    async def _appends(
        self, file: OpenFile, log: _Log, who: str, client: Client, chance: random.Random
    ) -> None:
        for _ in range(chance.randint(5, 60)):
            if self._stage.now_s() >= self._stage.until_s:
                break
            await self._append(file, log, chance)
            if chance.random() < 0.2:
                await self._read(client, chance.choice(self._logs), who)
            await pace(self._stage, chance, PER_SECOND)

    async def _append(self, file: OpenFile, log: _Log, chance: random.Random) -> None:
        number = len(log.records)
        record = b"%-15s%8d\n" % (log.name[:15], number) * chance.choice(SIZES)
        at = sum(map(len, log.records))
        log.records.append(record)
        await file.write(at, record)
        if (how := chance.random()) < 0.3:
            await file.sync()
            log.synced = max(log.synced, number + 1)
        if how < 0.5:
            await file.flush()
            log.flushed = max(log.flushed, number + 1)

    async def _read(self, client: Client, log: _Log, who: str) -> None:
        least = log.synced if self._powerless else log.flushed
        async with recorded(self._stage, who, "read log", log.name) as op:
            file = await client.open_file(log.inode, ROOT, write=False)
            try:
                data = bytes(await file.read(0, 1 << 24))
            finally:
                await file.close()
            op.answer = len(data)
            self._compare(log, data, who, op, least)

    def _compare(self, log: _Log, data: bytes, who: str, op: Op, least: int) -> None:
        whole, sure = b"".join(log.records), sum(map(len, log.records[:least]))
        if len(data) < sure:
            text = f"{log.name!r} read by {who}: {len(data)} bytes; {least} records were done"
            self._stage.broken("logs hold what was acknowledged", text, [op])
        at = self._differs_at(data, whole, sure)
        if at < len(data):
            found, expected = data[at : at + 30], whole[at : at + 30]
            text = f"{log.name!r} read by {who} differs at byte {at} of {len(data)}"
            text += f" ({len(whole)} written, {sure} sure): {found!r}, not {expected!r}"
            self._stage.broken("logs hold what was written", text, [op])

    def _differs_at(self, data: bytes, whole: bytes, sure: int) -> int:
        """Where it is wrong first, or its end. What was never synced may be zeros without power."""
        if data == whole[: len(data)]:
            return len(data)
        for at, byte in enumerate(data):
            is_lost = self._powerless and byte == 0 and at >= sure
            if not is_lost and whole[at : at + 1] != data[at : at + 1]:
                return at
        return len(data)
