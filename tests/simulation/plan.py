"""What a run will be like: everything that its seed decides before it begins.

A `Plan` is data. Whoever shrinks a failing run makes a smaller plan (fewer strikes, fewer clients,
less time) and runs that; each strike has a source of chance of its own, so that leaving one out
changes nothing about the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.simulation.cluster import Knobs


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault: `kind` (of `faults.KINDS`) begins at `at_s` after the workload did."""

    at_s: float
    kind: str
    chance: int  # seed of its own draws


@dataclass(frozen=True)
class Plan:
    """One run. `clients` work for `seconds` of virtual time, the strikes fall meanwhile."""

    seed: int
    profile: str
    masters: int = 3
    chunkservers: int = 3
    clients: int = 2
    seconds: float = 60.0
    knobs: Knobs = field(default_factory=Knobs)
    workloads: tuple[str, ...] = ()
    strikes: tuple[Strike, ...] = ()
    stall_max_s: float = math.inf  # nobody waits longer for any one call
