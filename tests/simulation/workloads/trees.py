"""Each client in a tree of its own, knowing every answer beforehand; shared files in turn.

No error may reach a client at all, and no step takes longer than the plan allows. A client that was
killed begins a new tree in its next life: what it had not been told makes the old one unknown,
which is left to the workloads that look at dead clients' data.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dfs.client import Client
from tests.simulation.stage import Stage
from tests.simulation.workloads.worker import SharedFile, Slowest, Worker, Wrong

SHARED_FILES = 3
PER_SECOND = 2.5


class Trees:
    """The workload; see the module."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._shared = [SharedFile(b"shared-%d" % n) for n in range(SHARED_FILES)]
        self._whole: list[Worker] = []  # those that lived to the end
        self._slowest = Slowest()

    async def prepare(self, client: Client) -> None:
        """Nothing."""

    async def work(self, name: str, life: int, client: Client) -> None:
        stage = self._stage
        directory = name if life == 1 else f"{name}.{life}"
        seed = str(stage.plan.seed)
        worker = Worker(directory, client, stage.world.clock, seed, self._shared, [])
        with self._right():
            await worker.begin()
            await worker.run(stage.until_s, PER_SECOND)
            await worker.close_all()
        self._slowest.note(worker.slowest.seconds, worker.slowest.step)
        stage.reach["checked.tree_steps"] += worker.steps
        self._whole.append(worker)

    async def check(self, observer: Client) -> None:
        slowest, bound_s = self._slowest, self._stage.plan.stall_max_s
        if slowest.seconds > bound_s:
            text = f"{slowest.step} took {slowest.seconds:.2f} s, not {bound_s:g}"
            self._stage.broken("stalls are bounded", text)
        for worker in self._whole:
            with self._right():
                await worker.compare_all(observer)
            self._stage.reach["checked.trees"] += 1

    @contextmanager
    def _right(self) -> Iterator[None]:
        try:
            yield
        except Wrong as wrong:
            self._stage.broken("trees are as their clients know them", str(wrong))
