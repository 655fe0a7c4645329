"""The world: nodes, their incarnations, the faults, and the run.

Everything random comes from the seed, each consumer drawing from a source of its own (named, not
numbered), so that one more draw in one place leaves the others alone. trio's scheduler is seeded
too; both its switches are needed (`_ALLOW_DETERMINISTIC_SCHEDULING` sorts each batch of tasks by
age, the seed shuffles it).
"""

from __future__ import annotations

import contextvars
import logging
import math
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import outcome
import trio
import trio._core._run as trio_run
import xxhash

from dfs.runtime.current import current_env
from dfs.runtime.sim.disk import Media, SimDisk
from dfs.runtime.sim.env import NodeEnded, SimEnv
from dfs.runtime.sim.holding import Holding
from dfs.runtime.sim.network import ANY, Fabric, SimNetwork
from dfs.runtime.sim.timeline import NodeClock, Timeline

log = logging.getLogger(__name__)

T = TypeVar("T")
# Takes the node's Env and, for `World.start`, a keyword `task_status` with a default (which
# `restart` leaves alone).
NodeMain = Callable[..., Awaitable[None]]

DRIFT = 1e-3  # clock rates lie within 1 +- this
LIMIT_S = 3600.0  # virtual; a run that takes longer is stuck


class Deadlock(Exception):
    """Every task waits for another one."""


class World:
    """One simulated world. `run` may be called once."""

    def __init__(self, seed: int, *, drift: float = DRIFT) -> None:
        self.seed = seed
        self.timeline = Timeline(self._on_stuck)
        self.clock = NodeClock(self.timeline)  # the observer's: true world time
        self.afterlife: list[Exception] = []  # what zombies raised; for the curious only
        self.endings: list[tuple[str, str]] = []  # (node, reason) of every crash, in order
        self.chronicle: list[tuple[float, str]] = []  # what befell the world, for people
        self._drift = drift
        self._hash = xxhash.xxh3_64()
        self._events = 0
        self._fabric = Fabric(self.timeline, self._source("network"), self.trace)
        self._media: dict[str, Media] = {}
        self._envs: dict[str, SimEnv] = {}
        self._incarnations: dict[str, int] = {}
        self._mains: dict[str, list[NodeMain]] = {}
        self._holding = Holding()
        self._wall_ahead_ns: dict[str, int] = {}
        self._failure: BaseException | None = None
        self._nursery: trio.Nursery | None = None

    # -- the run

    def run(self, main: Callable[[], Awaitable[T]], *, limit_s: float = LIMIT_S) -> T:
        """Run the test's own task on the virtual clock, then end all nodes.

        Raises what `main` raised, the first exception of a node's task, `Deadlock`, or
        TimeoutError when `main` has not ended after `limit_s` of virtual time.
        """
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
        trio_run._r.seed(f"{self.seed}/scheduler")
        self.timeline.limit_s = limit_s
        # In a context of its own: the caller may be a node, whose pauses would hold `main` back.
        begin = partial(trio.run, self._run, main, clock=self.timeline.clock)
        result: outcome.Maybe[T] = contextvars.Context().run(begin)
        if self._failure is not None:
            raise self._failure
        return result.unwrap()

    async def _run(self, main: Callable[[], Awaitable[T]]) -> outcome.Maybe[T]:
        async with trio.open_nursery() as self._nursery:
            try:
                result: outcome.Maybe[T] = await outcome.acapture(main)
            finally:
                self._holding.end()
            self._nursery.cancel_scope.cancel()
        return result

    def fail(self, error: BaseException) -> None:
        """End the run with this error, unless another one has ended it already."""
        if self._failure is None:
            self._failure = error
        self._holding.end()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def _on_stuck(self, next_event_s: float) -> None:
        # From here on only the cancelled tasks' clean-up runs, for which there is time again.
        limit_s, self.timeline.limit_s = self.timeline.limit_s, math.inf
        if next_event_s == math.inf:
            now_s = self.timeline.now_s
            self.fail(Deadlock(f"at {now_s:.6f} s every task waits for another one"))
        else:
            self.fail(TimeoutError(f"still running after {limit_s} virtual seconds"))

    # -- nodes

    def env(self, name: str) -> SimEnv:
        """The node's living incarnation; a new one when it has none."""
        env = self._envs.get(name)
        if env is None or env.dead:
            env = self._envs[name] = self._incarnate(name)
            self._mains[name] = []
        return env

    def disk(self, name: str) -> Media:
        """The node's hardware, for faults and inspection."""
        if name not in self._media:
            self._media[name] = Media(self._source(f"{name}/disk"), self.trace)
        return self._media[name]

    def is_alive(self, name: str) -> bool:
        return name in self._envs and not self._envs[name].dead

    def spawn(self, name: str, main: NodeMain) -> SimEnv:
        """Start `main(env)` as a task of the node, which ends with the node."""
        env = self.env(name)
        self._mains[name].append(main)
        self._running().start_soon(self._node_task, env, main, name=name)
        return env

    async def start(self, name: str, main: NodeMain) -> Any:
        """Like `spawn`, but waits for `task_status.started(value)` and returns that value."""
        env = self.env(name)
        self._mains[name].append(main)
        return await self._running().start(self._node_task, env, main, name=name)

    def crash(self, name: str, *, power_loss: bool = True) -> None:
        """End the node at once: its tasks, its streams, and with its power its unsynced data.

        Without `power_loss` it is a killed process, whose page cache survives.
        """
        if self.is_alive(name):
            self._end(self._envs[name], "crash", power_loss)

    def pause(self, name: str) -> None:
        """Stop the world for a node: its tasks do not run, what it is sent waits, time goes on."""
        self.tell("pause", name)
        self._holding.pause(name)

    def resume(self, name: str) -> None:
        """It goes on where it was."""
        self.tell("resume", name)
        self._holding.resume(name)

    def crash_at_step(self, name: str, nth: int, *, power_loss: bool = True) -> None:
        """Crash it as its tasks begin their nth step from now, an await each; 0 disarms."""

        def crash() -> None:
            if self.is_alive(name):
                self._end(self._envs[name], "between two steps", power_loss)

        self._holding.after_steps(name, nth, crash)

    def restart(self, name: str) -> SimEnv:
        """Start what was started on the node again, on the disk that it has."""
        self.crash(name, power_loss=False)
        self.tell("start", name)
        mains = self._mains.get(name, [])
        env = self.env(name)
        for main in mains:
            self.spawn(name, main)
        return env

    def _end(self, env: SimEnv, reason: str, power_loss: bool) -> None:
        if env.dead:
            return
        self.tell("crash", env.name, reason)
        self.endings.append((env.name, reason))
        env.dead = True
        self._holding.after_steps(env.name, 0, lambda: None)
        self._holding.resume(env.name)  # so that its tasks can end
        self._fabric.node_crashed(env.name)
        if power_loss:
            self.disk(env.name).lose_power()
        for scope in env.scopes:
            scope.cancel()

    def _incarnate(self, name: str) -> SimEnv:
        number = self._incarnations[name] = self._incarnations.get(name, 0) + 1
        hardware = self._source(f"{name}/clock")
        rate = hardware.uniform(1 - self._drift, 1 + self._drift)
        clock = NodeClock(self.timeline, hardware.uniform(1_000, 100_000), rate)
        clock.wall_ahead_ns = self._wall_ahead_ns.get(name, 0)
        env = SimEnv(name, clock, self.timeline, f"{self.seed}/{name}/{number}", self._end)
        env.attach(SimNetwork(self._fabric, env), SimDisk(self.disk(name), env))
        return env

    async def _node_task(
        self, env: SimEnv, main: NodeMain, task_status: trio.TaskStatus[Any] | None = None
    ) -> None:
        """Run one of a node's tasks; its death is no error, what it raises alive is one."""
        current_env.set(env)
        status = {} if task_status is None else {"task_status": task_status}
        try:
            with trio.CancelScope() as scope:
                env.scopes.append(scope)
                if not env.dead:
                    await main(env, **status)
        except* NodeEnded:
            log.debug("%s has ended", env.name)
        except* Exception as group:  # noqa: BLE001  whatever it is, it fails the run
            self._node_failed(env, group)

    def _node_failed(self, env: SimEnv, group: ExceptionGroup[Exception]) -> None:
        error = group.exceptions[0] if len(group.exceptions) == 1 else group
        log.debug("%s: %r%s", env.name, error, " after its end" if env.dead else "")
        if env.dead:
            self.afterlife.append(error)
        else:
            self.fail(error)

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            raise RuntimeError("nodes start within World.run")
        return self._nursery

    # -- faults of clocks

    def jump_wall(self, name: str, seconds: float) -> None:
        """Set the machine's wall clock forward, or back; also for its later incarnations."""
        self.tell("wall clock", name, seconds)
        ahead_ns = self._wall_ahead_ns.get(name, 0) + round(seconds * 1e9)
        self._wall_ahead_ns[name] = ahead_ns
        if self.is_alive(name):
            self._envs[name].clock.wall_ahead_ns = ahead_ns

    def set_rate(self, name: str, rate: float) -> None:
        """Have the monotonic clock of the node's present incarnation run at another rate."""
        self.tell("clock rate", name, rate)
        if self.is_alive(name):
            self._envs[name].clock.set_rate(rate)

    # -- network faults

    def partition(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Hold back what a sends to b and, unless `one_way`, what b sends to a."""
        self.tell("partition", a, b, one_way)
        self._fabric.block(a, b)
        if not one_way:
            self._fabric.block(b, a)

    def isolate(self, name: str) -> None:
        """Cut a node off from all others."""
        self.partition(name, ANY)

    def heal(self, *, reset: bool = False) -> None:
        """End all partitions; what was held back arrives, or with `reset` those streams end."""
        self.tell("heal", reset)
        if reset:
            self._fabric.reset_blocked()
        self._fabric.unblock_all()

    def heal_between(self, a: str, b: str) -> None:
        self.tell("heal", a, b)
        self._fabric.unblock(a, b)
        self._fabric.unblock(b, a)

    def silence(self, name: str) -> None:
        """Have it accept connections and take what it is sent, and never answer."""
        self.tell("silence", name)
        self._fabric.silence(name)

    def black_hole(self, a: str, b: str) -> None:
        """Something that swallows all between two nodes, and accepts what a connects to b."""
        self.tell("black hole", a, b)
        self._fabric.open_hole(a, b)

    def close_hole(self, a: str, b: str) -> None:
        self.tell("no hole", a, b)
        self._fabric.close_hole(a, b)

    def limit_link(self, a: str, b: str, bytes_per_s: float) -> None:
        """Make the link from a to b that narrow; infinity for as wide as any."""
        self.tell("limit", a, b, bytes_per_s)
        self._fabric.set_rate(a, b, bytes_per_s)

    def delay_link(self, a: str, b: str, delay_s: float) -> None:
        """Make messages from a to b take that much longer."""
        self.tell("delay", a, b, delay_s)
        self._fabric.set_delay(a, b, delay_s)

    def reset_links(self, a: str, b: str) -> None:
        """End all streams between two nodes."""
        self.tell("reset", a, b)
        self._fabric.reset_between(a, b)

    # -- determinism

    def trace(self, kind: str, *fields: object) -> None:
        """Add an event to the trace; tests add what their nodes do."""
        self._events += 1
        self._hash.update(repr((self.timeline.now_s, kind, fields)).encode())

    def tell(self, kind: str, *fields: object) -> None:
        """Add an event to the trace and to the chronicle."""
        self.trace(kind, *fields)
        self.chronicle.append((self.timeline.now_s, " ".join(map(str, (kind, *fields)))))

    def trace_hash(self) -> str:
        """Equal for equal runs: number of events and hash of the trace."""
        return f"{self._events}-{self._hash.hexdigest()}"

    def _source(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")
