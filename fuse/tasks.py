"""Where every task of the event loop stands, for a person who looks into a mount that hangs."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import trio


def describe_tasks() -> str:
    """All trio tasks with the stack of each, innermost call last."""
    root = trio.lowlevel.current_root_task()
    return "\n".join(_described(task) for task in _tasks_below(root)) if root else "no tasks"


def _tasks_below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        # The set's order changes from run to run; the names read better sorted anyhow.
        for child in sorted(nursery.child_tasks, key=lambda t: t.name):
            yield from _tasks_below(child)


def _described(task: trio.lowlevel.Task) -> str:
    summary = traceback.StackSummary.extract(task.iter_await_frames())
    return f"task {task.name}\n" + "".join(summary.format()).rstrip()
