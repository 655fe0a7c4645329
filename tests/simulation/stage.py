"""What all of a run share: cluster, plan, history, what was reached, what was broken."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from dfs.runtime.sim import World
from tests.simulation.cluster import SimCluster
from tests.simulation.history import History, Op
from tests.simulation.plan import Plan
from tests.simulation.violations import Violation


@dataclass
class Stage:
    """One run on its way. `reach` counts what it exercised, under dotted names: `fault.pause`."""

    plan: Plan
    world: World
    cluster: SimCluster
    history: History
    reach: Counter[str] = field(default_factory=Counter)
    lost: set[str] = field(default_factory=set)  # nodes whose disks are gone for good
    began_s: float = 0.0  # of the workload, on the world's clock

    def chance(self, name: str) -> random.Random:
        """A source of chance of its own for every consumer."""
        return random.Random(f"{self.plan.seed}/{name}")

    def now_s(self) -> float:
        return self.world.clock.monotonic()

    @property
    def until_s(self) -> float:
        """When the clients stop."""
        return self.began_s + self.plan.seconds

    def broken(self, rule: str, text: str, ops: Sequence[Op] = ()) -> NoReturn:
        """A property does not hold: the run fails with it, whatever the caller's callers catch."""
        violation = Violation(rule, f"{text} (at {self.now_s():.3f} s)", ops)
        self.world.fail(violation)
        raise violation
