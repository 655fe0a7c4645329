"""What the clients do, and what must be true of the answers. One module per workload.

`WORKLOADS` names them all; a profile (`profiles.py`) chooses among them.
"""

from __future__ import annotations

from typing import Protocol

from dfs.client import Client
from tests.simulation.stage import Stage
from tests.simulation.workloads.blocks import Blocks
from tests.simulation.workloads.logs import Logs
from tests.simulation.workloads.namespace import Namespace
from tests.simulation.workloads.orphans import Orphans
from tests.simulation.workloads.sessions import Sessions
from tests.simulation.workloads.teardown import Teardown
from tests.simulation.workloads.trees import Trees
from tests.simulation.workloads.turns import Streams, Turns


class Workload(Protocol):
    """One kind of work. Made anew for each run, with its stage; shared by all clients.

    `work` runs once per life of a client: a client that was killed comes back with a new session
    and works on. It ends soon after `stage.until_s`, having closed what it opened. Errors: a
    client is told no error but those that the file system is meant to give; anything else is a
    `Violation`, unless the plan's faults allow it.
    """

    def __init__(self, stage: Stage) -> None: ...

    async def prepare(self, client: Client) -> None:
        """Once, before any fault."""

    async def work(self, name: str, life: int, client: Client) -> None:
        """The work of client `name` (`client-1`, ...) in its `life`-th life (from 1)."""

    async def check(self, observer: Client) -> None:
        """Once, when the faults are over and all is quiet: `stage.broken` for what is wrong."""


WORKLOADS: dict[str, type[Workload]] = {
    "blocks": Blocks,
    "logs": Logs,
    "namespace": Namespace,
    "orphans": Orphans,
    "sessions": Sessions,
    "streams": Streams,
    "teardown": Teardown,
    "trees": Trees,
    "turns": Turns,
}
