"""Storms on few names: every operation on names and attributes, by all clients at once.

What they were told must be linearizable (`linearize`, `namespace_model`), which includes that each
change is made exactly once, whatever is retried across failovers: one that happened twice, or an
EEXIST or ENOENT of a client's own repeated request, has no place in any order. The observer's look
at everything at the end is part of the history.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable

from dfs.client import Client
from dfs.messages.operations import RenameFlags
from tests.simulation.namespace_model import CREATE, DIRECTORY, REPLACE, SYMLINK, Shown
from tests.simulation.stage import Stage
from tests.simulation.workloads.common import make_directory, pace
from tests.simulation.workloads.names import Place, Recorder

PER_SECOND = 6.0
DIRECTORIES = 2
NAMES = (b"a", b"b", b"c", b"d")
MODES = (0o600, 0o644, 0o755)
SEEN_MAX = 4  # inodes that a client remembers
BELOW = 0.3  # how often a place is in a directory that somebody made


class Namespace:
    """The workload; see the module."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._recorder = Recorder(stage)
        self._roots: list[int] = []

    async def prepare(self, client: Client) -> None:
        root = await make_directory(client, client.root_inode, b"names")
        for number in range(DIRECTORIES):
            self._roots.append(await make_directory(client, root, b"d%d" % number))

    async def work(self, name: str, life: int, client: Client) -> None:
        chance = self._stage.chance(f"namespace/{name}/{life}")
        storm = Storm(self._recorder, self._roots, name, client, chance)
        while self._stage.now_s() < self._stage.until_s:
            await storm.step()
            await pace(self._stage, chance, PER_SECOND)

    async def check(self, observer: Client) -> None:
        await self._recorder.look_at_all("observer", observer, self._roots)
        self._recorder.judge(self._roots)


class Storm:
    """One client in its life: random steps, some on what it saw last."""

    def __init__(
        self,
        recorder: Recorder,
        roots: list[int],
        who: str,
        client: Client,
        chance: random.Random,
    ) -> None:
        self._recorder, self._roots, self._chance = recorder, roots, chance
        self._who, self._client = who, client
        self._seen: deque[Shown] = deque(maxlen=SEEN_MAX)
        self._steps: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (6, self._create),
            (3, self._mkdir),
            (1, self._symlink),
            (3, self._link),
            (5, self._unlink),
            (3, self._rmdir),
            (5, self._rename),
            (1, self._exchange),
            (4, self._lookup),
            (2, self._list),
            (2, self._stat),
            (2, self._chmod),
            (2, self._setxattr),
            (1, self._removexattr),
            (1, self._getxattr),
        ]

    async def step(self) -> None:
        weights, steps = zip(*self._steps, strict=True)
        [chosen] = self._chance.choices(steps, weights)
        await chosen()

    def _place(self) -> Place:
        directory = self._chance.choice(self._roots)
        below = [shown.inode for shown in self._seen if shown.kind == DIRECTORY]
        if below and self._chance.random() < BELOW:
            directory = self._chance.choice(below)
        return directory, self._chance.choice(NAMES)

    async def _known(self) -> Shown | None:
        """Something seen before, maybe gone since; or what a look finds now."""
        if self._seen and self._chance.random() < 0.5:
            return self._chance.choice(list(self._seen))
        return await self._look(self._place())

    async def _attributed(self) -> Shown | None:
        shown = await self._known()
        return None if shown is None or shown.kind == SYMLINK else shown

    async def _look(self, place: Place) -> Shown | None:
        shown = await self._recorder.lookup(self._who, self._client, place)
        if shown is not None:
            self._seen.append(shown)
        return shown

    # -- names

    async def _create(self) -> None:
        exclusive, mode = self._chance.random() < 0.7, self._chance.choice(MODES)
        place = self._place()
        await self._recorder.create(self._who, self._client, place, mode, exclusive=exclusive)

    async def _mkdir(self) -> None:
        await self._recorder.mkdir(self._who, self._client, self._place(), 0o755)

    async def _symlink(self) -> None:
        await self._recorder.symlink(self._who, self._client, self._place())

    async def _link(self) -> None:
        if shown := await self._known():
            place = self._place()
            await self._recorder.link(self._who, self._client, shown.inode, shown.kind, place)

    async def _unlink(self) -> None:
        await self._recorder.unlink(self._who, self._client, self._place())

    async def _rmdir(self) -> None:
        await self._recorder.rmdir(self._who, self._client, self._place())

    async def _rename(self) -> None:
        flags = RenameFlags.NOREPLACE if self._chance.random() < 0.3 else RenameFlags.NONE
        old, new = self._place(), self._place()
        await self._recorder.rename(self._who, self._client, old, new, flags)

    async def _exchange(self) -> None:
        old, new = self._place(), self._place()
        await self._recorder.rename(self._who, self._client, old, new, RenameFlags.EXCHANGE)

    async def _lookup(self) -> None:
        await self._look(self._place())

    async def _list(self) -> None:
        await self._recorder.list(self._who, self._client, self._place()[0])

    # -- inodes

    async def _stat(self) -> None:
        if shown := await self._known():
            await self._recorder.stat(self._who, self._client, shown.inode)

    async def _chmod(self) -> None:
        if shown := await self._attributed():
            mode = self._chance.choice(MODES)
            await self._recorder.chmod(self._who, self._client, shown.inode, mode)

    async def _setxattr(self) -> None:
        if shown := await self._attributed():
            value, flags = self._chance.randbytes(2), self._chance.choice((0, CREATE, REPLACE))
            await self._recorder.setxattr(self._who, self._client, shown.inode, value, flags)

    async def _removexattr(self) -> None:
        if shown := await self._attributed():
            await self._recorder.removexattr(self._who, self._client, shown.inode)

    async def _getxattr(self) -> None:
        if shown := await self._attributed():
            await self._recorder.getxattr(self._who, self._client, shown.inode)
