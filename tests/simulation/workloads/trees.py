"""Each client in a tree of its own, of which it knows every answer beforehand."""

from __future__ import annotations

from dfs.client import Client
from tests.simulation.stage import Stage
from tests.simulation.workload import SharedFile, Worker


class Trees:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._shared = [SharedFile(b"shared-%d" % n) for n in range(3)]
        self._workers: list[Worker] = []

    async def prepare(self, client: Client) -> None:
        pass

    async def work(self, name: str, life: int, client: Client) -> None:
        stage = self._stage
        if life > 1:
            return
        seed = str(stage.plan.seed)
        worker = Worker(name, client, stage.world.clock, seed, self._shared, [])
        self._workers.append(worker)
        await worker.begin()
        await worker.run(stage.until_s)
        await worker.close_all()

    async def check(self, observer: Client) -> None:
        for worker in self._workers:
            await worker.compare_all(observer)
