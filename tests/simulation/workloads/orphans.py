"""Files that are unlinked while they are open, by their client and by others.

Their contents hold for every handle until it is closed, across failovers; some are written on.
When the last handle is closed, or the last client that had one is dead, nothing is left: the inode
is gone at the end, its chunks with it (`checks` looks at chunks and replicas).

Others only read, from handles opened after all was written, since two clients with a file open
need not see each other's writes at once.
"""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass

from dfs.client import Client, OpenFile
from dfs.errors import Failure
from dfs.messages.common import ROOT
from dfs.messages.operations import Create, Rename, Unlink
from tests.simulation.stage import Stage
from tests.simulation.workloads.common import make_directory, pace, recorded, until_clean

PER_SECOND = 5.0
HELD_MAX, NAMED_MAX = 5, 6
CONTENT_MAX = 400_000
SIZES = (0, 10, 5000, 70_000, 140_000)


@dataclass(eq=False)
class _File:
    name: bytes
    inode: int
    content: bytes
    named: bool = True  # nobody has begun to take its name
    gone: bool = False  # the name is taken for sure: by a client that lived to know
    private: bool = False  # its client writes on


@dataclass(eq=False)
class _Handle:
    file: _File
    open: OpenFile


class Orphans:
    """The workload; see the module. `files` are all that ever were."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.root = 0
        self.files: list[_File] = []
        self.made = 0

    async def prepare(self, client: Client) -> None:
        self.root = await make_directory(client, client.root_inode, b"orphans")

    async def work(self, name: str, life: int, client: Client) -> None:
        chance = self._stage.chance(f"orphans/{name}/{life}")
        holder = _Holder(self, self._stage, name, client, chance)
        while self._stage.now_s() < self._stage.until_s:
            await holder.step()
            await pace(self._stage, chance, PER_SECOND)
        await holder.close_all()

    async def check(self, observer: Client) -> None:
        await until_clean(self._stage)
        for file in self.files:
            if file.gone:
                await self._must_be_gone(observer, file)

    async def _must_be_gone(self, observer: Client, file: _File) -> None:
        try:
            found = await observer.attributes(file.inode)
        except Failure as failure:
            if failure.errno == errno.ENOENT:
                self._stage.reach["checked.orphans_gone"] += 1
                return
            raise
        self._stage.broken("orphans go", f"{file.name!r} was unlinked and closed: {found}")


class _Holder:
    """One client in its life, with what it has open."""

    def __init__(
        self, orphans: Orphans, stage: Stage, who: str, client: Client, chance: random.Random
    ) -> None:
        self._orphans, self._stage, self._who = orphans, stage, who
        self._client, self._chance = client, chance
        self._held: list[_Handle] = []

    async def step(self) -> None:
        steps = (self._make, self._open, self._unlink, self._replace, self._read, self._write_on)
        [step] = self._chance.choices(steps, (3, 4, 3, 1, 6, 3))
        if step == self._open and len(self._held) >= HELD_MAX:
            step = self._close
        await step()

    async def close_all(self) -> None:
        while self._held:
            await self._close()

    def _named(self) -> list[_File]:
        return [file for file in self._orphans.files if file.named and not file.private]

    async def _make(self) -> None:
        """A file with its contents, to be opened by all or kept to write on."""
        if len(self._named()) >= NAMED_MAX or len(self._held) >= HELD_MAX:
            await self._unlink()
            return
        self._orphans.made += 1
        name, content = b"o%d" % self._orphans.made, self._data()
        async with recorded(
            self._stage, self._who, "orphan.make", name, len(content), judged=True
        ) as op:
            operation = Create(self._orphans.root, name, 0o644, True, ROOT)
            handle = await self._client.create_file(operation)
            await handle.write(0, content)
            await handle.flush()
            op.answer = handle.inode
        if op.is_open:
            return  # a disk was full: nobody knows what is in it
        file = _File(name, handle.inode, content, private=self._chance.random() < 0.3)
        self._held.append(_Handle(file, handle))
        self._orphans.files.append(file)
        if file.private:
            await self._take_name(file)

    async def _open(self) -> None:
        if not (named := self._named()):
            return
        file = self._chance.choice(named)
        async with recorded(self._stage, self._who, "orphan.open", file.inode, judged=True) as op:
            op.answer = handle = await self._client.open_file(file.inode, ROOT, write=False)
        if op.errno and file.named:
            self._stage.broken("open files hold", f"{op}: it has its name", [op])
        if not op.errno:
            self._held.append(_Handle(file, handle))
            op.answer = "open"

    async def _unlink(self) -> None:
        if named := self._named():
            await self._take_name(self._chance.choice(named))

    async def _take_name(self, file: _File) -> None:
        file.named = False  # from now on nobody may rely on it
        root = self._orphans.root
        async with recorded(
            self._stage, self._who, "orphan.unlink", file.name, file.inode, judged=True
        ) as op:
            await self._client.perform(Unlink(root, file.name, ROOT))
        self._must_work(op.errno, f"{op}")
        file.gone = not op.is_open

    async def _replace(self) -> None:
        """A rename over a file takes its name too."""
        if len(named := self._named()) < 2:
            return
        kept, lost = self._chance.sample(named, 2)
        kept.named = lost.named = False
        root, old = self._orphans.root, kept.name
        async with recorded(
            self._stage, self._who, "orphan.replace", old, lost.name, judged=True
        ) as op:
            await self._client.perform(Rename(root, old, root, lost.name, 0, ROOT))
        self._must_work(op.errno, f"{op}")
        kept.name, kept.named = lost.name, True
        lost.gone = not op.is_open

    async def _read(self) -> None:
        if not self._held:
            return
        handle = self._chance.choice(self._held)
        file = handle.file
        async with recorded(
            self._stage, self._who, "orphan.read", file.inode, file.named, judged=True
        ) as op:
            found = bytes(await handle.open.read(0, 2 * CONTENT_MAX))
            op.answer = len(found)
        if op.is_open:
            return
        if op.errno or found != file.content:
            text = f"{op}: not the {len(file.content)} bytes that are in it"
            self._stage.broken("open files hold", text, [op])
        self._stage.reach["checked.orphan_reads"] += not file.named

    async def _write_on(self) -> None:
        own = [handle for handle in self._held if handle.file.private]
        own = [handle for handle in own if len(handle.file.content) < CONTENT_MAX]
        if not own:
            return
        handle, data = self._chance.choice(own), self._data()
        file = handle.file
        async with recorded(
            self._stage, self._who, "orphan.write", file.inode, len(data), judged=True
        ) as op:
            await handle.open.write(len(file.content), data)
            file.content += data
            if self._chance.random() < 0.5:
                await handle.open.sync()
            op.answer = len(data)
        if op.is_open:
            self._held.remove(handle)  # and nobody else has it open
        self._must_work(op.errno, f"{op}")

    async def _close(self) -> None:
        if not self._held:
            return
        handle = self._held.pop(self._chance.randrange(len(self._held)))
        async with recorded(
            self._stage, self._who, "orphan.close", handle.file.inode, judged=True
        ) as op:
            await handle.open.close()
        self._must_work(op.errno, f"{op}")

    def _must_work(self, code: int, text: str) -> None:
        if code:
            self._stage.broken("open files hold", text)

    def _data(self) -> bytes:
        return self._chance.randbytes(self._chance.choice(SIZES))
