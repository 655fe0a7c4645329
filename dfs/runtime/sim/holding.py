"""Nodes whose tasks do not run: a stop of the whole machine, and a crash between any two steps.

Owns a hook in trio's `Runner.reschedule`, through which every task passes each time before it runs.
It is in place only while it is needed. A task of a paused node is put aside there, with the value
that it was to get; whatever happens to it meanwhile (a cancellation, too) it learns after the
pause. The node's clocks go on, and what is sent to it waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from trio._core._run import Runner

from dfs.runtime.current import current_env

_original = Runner.reschedule


class Holding:
    """Of one world. `end` takes it all back."""

    def __init__(self) -> None:
        self._held: dict[str, list[tuple[trio.lowlevel.Task, tuple[Any, ...]]]] = {}
        self._steps: dict[str, tuple[int, Callable[[], None]]] = {}

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
        self._steps.pop(node, None)
        if steps > 0:
            self._steps[node] = (steps, then)
        self._place()

    def end(self) -> None:
        """Hold back nothing any more."""
        self._steps.clear()
        for node in list(self._held):
            self.resume(node)
        self._place()

    def _place(self) -> None:
        """Put the hook in place, or take it away."""
        needed = bool(self._held or self._steps)
        setattr(Runner, "reschedule", self._hook() if needed else _original)  # noqa: B010

    def _hook(self) -> Callable[..., None]:
        def reschedule(runner: Runner, task: trio.lowlevel.Task, *value: Any) -> None:
            self._reschedule(runner, task, value)

        return reschedule

    def _reschedule(self, runner: Runner, task: trio.lowlevel.Task, value: tuple[Any, ...]) -> None:
        env = task.context.get(current_env)
        if env is None:
            _original(runner, task, *value)
            return
        if env.name in self._held:
            task._abort_func = None  # it has its wake-up already
            self._held[env.name].append((task, value))
            return
        _original(runner, task, *value)
        if env.name in self._steps:
            self._count(env.name)

    def _count(self, node: str) -> None:
        steps, then = self._steps[node]
        if steps > 1:
            self._steps[node] = (steps - 1, then)
            return
        self.after_steps(node, 0, then)
        then()
