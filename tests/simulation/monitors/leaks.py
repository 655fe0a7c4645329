"""At the end every server stops in order when told to, in a bounded time, and leaves no task.

The last of the monitors to finish, since nothing serves any more after it.
"""

from __future__ import annotations

import trio

from dfs.runtime import Env
from dfs.runtime.current import current_env
from tests.simulation.stage import Stage
from tests.simulation.taps import Taps

STOP_S = 30.0  # virtual, for each server
TASKS_MAX = 400  # of one node while all is quiet


class LeakMonitor:
    """Counts the tasks of each node, before and after its end."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def attach(self, taps: Taps) -> None:
        """Nothing to see before the end."""

    async def finish(self) -> None:
        cluster, world = self._stage.cluster, self._stage.world
        for name in (*sorted(cluster.storing), *sorted(cluster.running)):
            if not world.is_alive(name):
                continue
            env = world.env(name)
            if len(tasks := _tasks_of(env)) > TASKS_MAX:
                self._stage.broken("leaks.tasks", f"{name} has {len(tasks)} tasks in quiet")
            with world.clock.move_on_after(STOP_S) as scope:
                await cluster.stop(name)
            if scope.cancelled_caught:
                self._stage.broken("leaks.stop", f"{name} has not stopped after {STOP_S:g} s")
            if tasks := _tasks_of(env):
                self._stage.broken("leaks.tasks", f"{name} has stopped and left {tasks}")
            self._stage.reach["saw.orderly_stop"] += 1


def _tasks_of(env: Env) -> list[str]:
    """The names of the tasks that belong to that life of a node."""
    found: list[str] = []
    waiting = [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        if task is not None:
            if task.context.get(current_env) is env:
                found.append(task.name)
            waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return sorted(found)
