"""Planted faults: each takes away one protection of the real code, and the simulator must find it.

`CATALOGUE` has them all by name. A mutant that no run finds shows a property that no check states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.taps import Taps


@dataclass(frozen=True)
class Mutant:
    """`plant` breaks the classes; sibling protections that would hide it go off with it.

    It must be found by one of the seeds 0 to `seeds` - 1 of `profile`.
    """

    name: str
    breaks: str  # what it takes away, in a line
    plant: Callable[[Taps], None]
    profile: str
    seeds: int = 5


CATALOGUE: dict[str, Mutant] = {}
