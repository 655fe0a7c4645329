"""Processes that end badly, or do not: tasks left behind, mistakes on the way out."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import trio

from chunkserver.service import Service
from master.raft import RaftNode
from tests.simulation.mutants.kinds import mutant
from tests.simulation.taps import Taps


@mutant("blocks", "leaks.tasks", seeds=1)
def leave_tasks_behind(taps: Taps) -> None:
    """A chunkserver begins a task for every request, and the task never ends."""

    async def in_turn(
        original: Callable[..., Any], self: Service, *rest: Any, **named: Any
    ) -> None:
        await original(self, *rest, **named)
        trio.lowlevel.spawn_system_task(trio.sleep_forever, context=copy_context())

    taps.around(Service, "_in_turn", in_turn)


@mutant("namespace", "logs.afterlife", seeds=1, faults=("kill_leader",))
def stumble_on_the_way_out(taps: Taps) -> None:
    """A mistake in what a master does once it is told to end."""

    async def run(original: Callable[..., Any], self: RaftNode, **named: Any) -> None:
        try:
            await original(self, **named)
        finally:
            raise KeyError("no such thing")

    taps.around(RaftNode, "run", run)
