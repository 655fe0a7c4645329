"""One run, from its plan: a cluster, clients at work, strikes, and every check.

The phases: start; the workloads prepare; clients work while strikes fall; the world is put in
order; the cluster must find back to full redundancy within bounds of virtual time (liveness); the
workloads, the monitors and `checks` have their say. Nothing here depends on the wall clock.
"""

from __future__ import annotations

import contextlib
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from dfs.client import Client, open_client
from dfs.runtime import Env
from dfs.runtime.sim import World
from tests.simulation import checks
from tests.simulation.arena import Arena, Skipped
from tests.simulation.cluster import SimCluster
from tests.simulation.faults import KINDS
from tests.simulation.history import History
from tests.simulation.monitors import MONITORS, Monitor
from tests.simulation.mutants import Mutant
from tests.simulation.plan import Plan, Strike
from tests.simulation.stage import Stage
from tests.simulation.taps import Taps
from tests.simulation.workloads import WORKLOADS, Workload

START_S = 60.0  # bounds of the phases, in virtual time
CLIENTS_END_S = 120.0  # after the faults; a call may try for a minute
STRIKES_END_S = 150.0
LIMIT_S = 1800.0
CPU_MAX_S = 300.0  # of a run, in real time: many times what the longest takes


class Endless(BaseException):
    """The run goes on and on; nothing that is simulated may catch this."""


@contextlib.contextmanager
def bounded(cpu_s: float) -> Iterator[None]:
    """Raises Endless once that much processor time is used. Nests not, main thread only."""

    def end(*_: object) -> None:
        raise Endless(f"no end after {cpu_s:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


@dataclass
class Outcome:
    """What came of a run. `failure` is None when every property held."""

    plan: Plan
    failure: BaseException | None = None
    history: History | None = None
    events: list[tuple[float, str]] = field(default_factory=list)  # what befell the world
    reach: Counter[str] = field(default_factory=Counter)
    virtual_s: float = 0.0
    trace_hash: str = ""


def run(plan: Plan, directory: Path, *, mutant: Mutant | None = None) -> Outcome:
    """Run it; never raises for what is wrong with the system."""
    outcome = Outcome(plan)
    world = World(plan.seed)
    with Taps() as taps:
        if mutant is not None:
            mutant.plant(taps)
        try:
            with bounded(CPU_MAX_S):
                begin = partial(_main, world, plan, directory, outcome, taps)
                world.run(begin, limit_s=LIMIT_S)
        except (Exception, BaseExceptionGroup, Endless) as error:  # noqa: BLE001  it is the result
            outcome.failure = innermost(error)
    outcome.virtual_s = world.timeline.now_s
    outcome.trace_hash = world.trace_hash()
    outcome.events = list(world.chronicle)
    return outcome


async def _main(world: World, plan: Plan, directory: Path, outcome: Outcome, taps: Taps) -> None:
    await _Run(world, plan, directory, outcome, taps).main()


def innermost(error: BaseException) -> BaseException:
    """The first of a group's exceptions."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Run:
    def __init__(
        self, world: World, plan: Plan, directory: Path, outcome: Outcome, taps: Taps
    ) -> None:
        knobs = plan.knobs
        cluster = SimCluster(
            world, directory, masters=plan.masters, chunkservers=plan.chunkservers, knobs=knobs
        )
        history = outcome.history = History(world.clock)
        self._stage = Stage(plan, world, cluster, history, outcome.reach)
        self._arena = Arena(self._stage)
        self._monitors: list[Monitor] = [make(self._stage) for make in MONITORS.values()]
        self._workloads: list[Workload] = [WORKLOADS[w](self._stage) for w in plan.workloads]
        self._lives: Counter[str] = Counter()
        self._done = {name: trio.Event() for name in self._arena.clients}
        self._arena.attach(taps)
        for monitor in self._monitors:
            monitor.attach(taps)

    async def main(self) -> None:
        stage, cluster = self._stage, self._stage.cluster
        await self._within(START_S, "the cluster starts", cluster.start)
        await self._within(START_S, "a leader is elected", cluster.until_leader)
        async with cluster.client("observer") as observer:
            registered = partial(cluster.until_registered, observer, stage.plan.chunkservers)
            await self._within(START_S, "all chunkservers register", registered)
            for workload in self._workloads:
                await workload.prepare(observer)
            await self._storm()
            await self._within(START_S, "a leader is there again", cluster.until_leader)
            await self._within(START_S, "all chunkservers are there again", registered)
            await self._quiet(observer)

    async def _storm(self) -> None:
        """Clients at work while strikes fall; over when all clients have ended their work."""
        self._stage.began_s = self._stage.now_s()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._arena.supervise)
            for name in self._arena.clients:
                self._stage.world.spawn(name, partial(self._client, name))
            await self._within(
                self._stage.plan.seconds + STRIKES_END_S, "the strikes end", self._strikes
            )
            self._arena.calm()
            await self._within(CLIENTS_END_S, "the clients end their work", self._clients_done)
            await self._within(CLIENTS_END_S, "all nodes are there again", self._all_alive)
            nursery.cancel_scope.cancel()

    async def _client(self, name: str, env: Env) -> None:
        """One life of a client's node."""
        self._lives[name] += 1
        life = self._lives[name]
        config = self._stage.cluster.client_config()
        async with open_client(env, config, name) as client, trio.open_nursery() as nursery:
            for workload in self._workloads:
                nursery.start_soon(workload.work, name, life, client)
        self._done[name].set()

    async def _clients_done(self) -> None:
        for event in self._done.values():
            await event.wait()

    async def _all_alive(self) -> None:
        while not all(map(self._stage.world.is_alive, self._servers())):
            await self._stage.world.clock.sleep(0.2)

    def _servers(self) -> tuple[str, ...]:
        return (*self._arena.masters, *self._arena.chunkservers)

    async def _strikes(self) -> None:
        async with trio.open_nursery() as nursery:
            for strike in self._stage.plan.strikes:
                nursery.start_soon(self._strike, strike)
            remains_s = self._stage.until_s - self._stage.now_s()
            await self._stage.world.clock.sleep(max(0.0, remains_s))

    async def _strike(self, strike: Strike) -> None:
        stage, name = self._stage, strike.kind
        await stage.world.clock.sleep(strike.at_s)
        try:
            stage.world.tell(f"{name} strikes")
            await KINDS[name].strike(self._arena, random.Random(strike.chance))
        except Skipped:
            stage.reach[f"skipped.{name}"] += 1
            stage.world.tell(f"{name} is left out")
            return
        stage.reach[f"fault.{name}"] += 1
        stage.world.tell(f"{name} is over")

    async def _quiet(self, observer: Client) -> None:
        cluster = self._stage.cluster
        await self._within(START_S, "the masters agree", cluster.until_agreed)
        for workload in self._workloads:
            await workload.check(observer)
        await checks.check(self._stage, observer)
        for monitor in self._monitors:
            await monitor.finish()
        dead = [n for n in self._servers() if not self._stage.world.is_alive(n)]
        if dead:
            self._stage.broken("liveness", f"without any fault there end {dead}")

    async def _within(
        self, seconds: float, what: str, wait: Callable[[], Awaitable[object]]
    ) -> None:
        """Liveness: it must come about in that much virtual time."""
        with self._stage.world.clock.move_on_after(seconds) as scope:
            await wait()
        if scope.cancelled_caught:
            self._stage.broken("liveness", f"not within {seconds:g} s: {what}")
