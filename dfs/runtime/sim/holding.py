"""Nodes whose tasks do not run: a stop of the whole machine, and a crash between any two steps.

Owns a hook in trio's `Runner.reschedule`, through which every task passes each time before it runs.
It is in place only while it is needed. A task of a paused node is put aside there, with the value
that it was to get; whatever happens to it meanwhile (a cancellation, too) it learns after the
pause. The node's clocks go on, and what is sent to it waits.

Steps are counted by an instrument, as one begins: `reschedule` is called in the middle of things
(trio walks over the tasks that wait for an event), where no node can be ended.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio
from trio._core._run import Runner

from dfs.runtime.current import current_env

_original = Runner.reschedule


class Holding:
    """Of one world. `end` takes it all back."""

    def __init__(self) -> None:
        self._held: dict[str, list[tuple[trio.lowlevel.Task, tuple[Any, ...]]]] = {}
        self._countdowns: dict[str, Countdown] = {}

    def pause(self, node: str) -> None:
        """Hold back the node's tasks from now on."""
        self._held.setdefault(node, [])
        self._place()

    def resume(self, node: str) -> None:
        """Let them go on, in the order in which they were to run."""
        held = self._held.pop(node, [])
        self._place()
        for task, value in held:
            trio.lowlevel.reschedule(task, *value)

    def is_paused(self, node: str) -> bool:
        return node in self._held

    def after_steps(self, node: str, steps: int, then: Callable[[], None]) -> None:
        """Call it when tasks of the node have been about to run that many times; 0: never."""
        if previous := self._countdowns.pop(node, None):
            previous.stop()
        if steps > 0:
            self._countdowns[node] = Countdown(node, steps, then)

    def end(self) -> None:
        """Hold back nothing any more."""
        for node in list(self._countdowns):
            self.after_steps(node, 0, _nothing)
        for node in list(self._held):
            self.resume(node)

    def _place(self) -> None:
        """Put the hook in place, or take it away."""
        setattr(Runner, "reschedule", self._hook() if self._held else _original)  # noqa: B010

    def _hook(self) -> Callable[..., None]:
        def reschedule(runner: Runner, task: trio.lowlevel.Task, *value: Any) -> None:
            self._reschedule(runner, task, value)

        return reschedule

    def _reschedule(self, runner: Runner, task: trio.lowlevel.Task, value: tuple[Any, ...]) -> None:
        held = self._held.get(_node_of(task))
        if held is None:
            _original(runner, task, *value)
            return
        task._abort_func = None  # it has its wake-up already
        held.append((task, value))


class Countdown(trio.abc.Instrument):
    """Calls `then` as the node's tasks are about to begin their nth step from now."""

    def __init__(self, node: str, steps: int, then: Callable[[], None]) -> None:
        self._node, self._left, self._then = node, steps, then
        trio.lowlevel.add_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if _node_of(task) != self._node:
            return
        self._left -= 1
        if self._left == 0:
            self.stop()
            self._then()

    def stop(self) -> None:
        """Count no more. It may be over already."""
        with suppress(KeyError):
            trio.lowlevel.remove_instrument(self)


def _node_of(task: trio.lowlevel.Task) -> str:
    env = task.context.get(current_env)
    return "" if env is None else env.name


def _nothing() -> None:
    """Where nobody wants to be called."""
