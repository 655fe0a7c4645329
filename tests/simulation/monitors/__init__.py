"""White-box monitors: they watch every node from inside while a run goes on.

A monitor taps the real classes (`taps.Taps`) and calls `stage.broken` the moment a rule is
broken. `MONITORS` names them all; every run has all of them.
"""

from __future__ import annotations

from typing import Protocol

from tests.simulation.monitors.bounds import BoundsMonitor
from tests.simulation.monitors.chunks import ChunkMonitor
from tests.simulation.monitors.custody import CustodyMonitor
from tests.simulation.monitors.leaks import LeakMonitor
from tests.simulation.monitors.logs import LogMonitor
from tests.simulation.monitors.raft import RaftMonitor
from tests.simulation.monitors.sessions import SessionMonitor
from tests.simulation.monitors.states import StateMonitor
from tests.simulation.stage import Stage
from tests.simulation.taps import Taps


class Monitor(Protocol):
    """One set of rules. Made anew for each run."""

    def __init__(self, stage: Stage) -> None: ...

    def attach(self, taps: Taps) -> None:
        """Begin to watch, before any node starts."""

    async def finish(self) -> None:
        """Once, when all is quiet and the processes still run: what shows only at the end."""


MONITORS: dict[str, type[Monitor]] = {
    "raft": RaftMonitor,
    "chunks": ChunkMonitor,
    "custody": CustodyMonitor,
    "states": StateMonitor,
    "sessions": SessionMonitor,
    "bounds": BoundsMonitor,
    "logs": LogMonitor,
    "leaks": LeakMonitor,  # the last, as it ends the servers
}
