"""Clients that are cut off for about as long as their sessions live, or longer, and come back.

Each works in a directory of its own. When a client is back it has its session still, and then all
is as it was; or it gets a new one, and then
- what it asked for meanwhile was done once or not at all, and whatever it was told is true; what
  ended with ESTALE has happened by then or never will (`names`, `namespace_model.UNKNOWN`);
- the files that it had open are lost to it: every use of a handle says ESTALE;
- the masters have let go of them: what was unlinked is gone at the end, the old session too.
"""

from __future__ import annotations

import errno
import random

import trio

from dfs.client import Client, OpenFile
from dfs.errors import Code, Failure
from dfs.messages.common import ROOT
from dfs.messages.operations import Create, RenameFlags, Unlink
from master.state import queries
from tests.simulation.stage import Stage
from tests.simulation.workloads.common import make_directory, pace, recorded, until_clean
from tests.simulation.workloads.names import Place, Recorder

PER_SECOND = 8.0
NAMES = (b"a", b"b", b"c")
TASKS = 3  # of one client, at a time
AWAY = (0.2, 2.5)  # in times to live of a session
CONTENT = b"what is in an open file"
EXPIRED_S = 30.0  # and some times to live: then dead sessions are ended


class Sessions:
    """The workload; see the module."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._root = self._held = 0
        self._recorders: list[tuple[int, Recorder]] = []  # of each directory
        self._lost_sessions: list[int] = []
        self._orphans: list[int] = []

    async def prepare(self, client: Client) -> None:
        self._root = await make_directory(client, client.root_inode, b"sessions")
        self._held = await make_directory(client, self._root, b"held")
        for number in range(self._stage.plan.clients):
            directory = await make_directory(client, self._root, b"client-%d" % (number + 1))
            self._recorders.append((directory, Recorder(self._stage)))

    async def work(self, name: str, life: int, client: Client) -> None:
        chance = self._stage.chance(f"sessions/{name}/{life}")
        round_number = 0
        while self._stage.now_s() < self._stage.until_s:
            round_number += 1
            held = await self._hold(name, client, b"%s.%d.%d" % (name.encode(), life, round_number))
            if held is not None:
                await self._go_away(name, client, held, chance)

    async def check(self, observer: Client) -> None:
        for directory, recorder in self._recorders:
            await recorder.look_at_all("observer", observer, [directory])
            recorder.judge([directory])
        await self._sessions_are_over()
        await until_clean(self._stage)
        for inode in self._orphans:
            await self._must_be_gone(observer, inode)

    # -- the work

    async def _hold(self, who: str, client: Client, name: bytes) -> OpenFile | None:
        """A file that is open and has no name."""
        async with recorded(self._stage, who, "hold", name, judged=True) as op:
            file = await client.create_file(Create(self._held, name, 0o644, True, ROOT))
            await file.write(0, CONTENT)
            await file.flush()
            await client.perform(Unlink(self._held, name, ROOT))
            self._orphans.append(file.inode)
            op.answer = file.inode
        if op.errno:
            self._stage.broken("sessions", f"{op}", [op])
        return None if op.is_open else file

    async def _go_away(
        self, who: str, client: Client, held: OpenFile, chance: random.Random
    ) -> None:
        session = client.session
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(self._change_names, who, client, chance)
            await pace(self._stage, chance, PER_SECOND / TASKS)
            await self._be_away(who, chance)
        async with recorded(self._stage, who, "return", session, judged=True) as op:
            await client.stat_fs()
            op.answer = client.session
        await self._use_held(who, client, held, session)

    async def _be_away(self, who: str, chance: random.Random) -> None:
        world, ttl_s = self._stage.world, self._stage.plan.knobs.session_ttl_s
        try:
            for one_way in chance.choice(((False,), (True,), (True, False))):
                a, b = chance.choice(((who, "*"), ("*", who)))
                world.partition(a, b, one_way=one_way)
            await world.clock.sleep(ttl_s * chance.uniform(*AWAY))
            if chance.random() < 0.5:
                world.reset_links(who, "*")
        finally:  # in its next life, too
            world.heal_between(who, "*")

    async def _change_names(self, who: str, client: Client, chance: random.Random) -> None:
        directory, recorder = self._recorders[int(who.split("-")[1]) - 1]
        for _ in range(chance.randint(1, 4)):
            a, b = ((directory, chance.choice(NAMES)) for _ in range(2))
            await self._change(who, client, recorder, a, b, chance)
            await pace(self._stage, chance, PER_SECOND / TASKS)

    async def _change(
        self,
        who: str,
        client: Client,
        recorder: Recorder,
        a: Place,
        b: Place,
        chance: random.Random,
    ) -> None:
        match chance.randrange(7):
            case 0 | 1:
                await recorder.create(who, client, a, 0o644, exclusive=True)
            case 2:
                await recorder.mkdir(who, client, a, 0o755)
            case 3:
                await recorder.unlink(who, client, a)
            case 4:
                await recorder.rename(who, client, a, b, RenameFlags.NONE)
            case 5:
                await recorder.rmdir(who, client, a)
            case _:
                if shown := await recorder.lookup(who, client, a):
                    await recorder.link(who, client, shown.inode, shown.kind, b)

    async def _use_held(self, who: str, client: Client, held: OpenFile, session: int) -> None:
        """The handle that was open all the time."""
        found, failure = b"", None
        op = self._stage.history.begin(who, "use held", held.inode, session, client.session)
        try:
            found = bytes(await held.read(0, 100))
            await held.close()
        except Failure as caught:
            failure = caught
        self._stage.history.end(op, len(found), failure.errno if failure else 0)
        if client.session == session and failure is None and found == CONTENT:
            self._stage.reach["sessions.kept"] += 1
        elif failure is not None and failure.code is Code.NO_SESSION and client.session != session:
            self._stage.reach["sessions.expired"] += 1
            self._lost_sessions.append(session)
            await held.close()
        else:
            text = f"{who} in {client.session:x}, a file opened in {session:x}: {op}, {failure!r}"
            self._stage.broken("an open file lives as long as its session", text, [op])

    # -- the end

    async def _sessions_are_over(self) -> None:
        stage = self._stage
        until_s = stage.now_s() + EXPIRED_S + 3 * stage.plan.knobs.session_ttl_s
        while left := self._left():
            if stage.now_s() > until_s:
                stage.broken("sessions end", f"still there: {left}")
            await stage.world.clock.sleep(0.5)
        stage.reach["checked.sessions_over"] += len(self._lost_sessions)

    def _left(self) -> list[int]:
        if not self._stage.cluster.leader():
            return self._lost_sessions
        known = queries.sessions(self._stage.cluster.leading().tables)
        return [session for session in self._lost_sessions if session in known]

    async def _must_be_gone(self, observer: Client, inode: int) -> None:
        try:
            found = await observer.attributes(inode)
        except Failure as failure:
            if failure.errno == errno.ENOENT:
                self._stage.reach["checked.orphans_gone"] += 1
                return
            raise
        self._stage.broken("orphans go", f"{found} belonged to a session that is over")
