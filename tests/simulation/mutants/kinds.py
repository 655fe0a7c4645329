"""What a mutant is, and the registry."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.plan import Plan
from tests.simulation.taps import Taps

Plant = Callable[[Taps], None]


@dataclass(frozen=True)
class Mutant:
    """`plant` breaks the classes; sibling protections that would hide it go off with it.

    One of the seeds 0 to `seeds` - 1 of `profile` finds it, run for `seconds`, by one of the rules
    `found_by` (beginnings of their names). `faults`: kinds that strike, in place of those that the
    seed would choose, for what shows only under them; `knobs` and `masters` likewise.
    """

    name: str
    breaks: str  # what it takes away, in a line
    plant: Plant
    profile: str
    seeds: int = 3
    seconds: float = 30.0
    found_by: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    knobs: Mapping[str, Any] = field(default_factory=dict)
    masters: int = 0  # 0: as many as the seed says

    def is_found(self, rule: str) -> bool:
        """Whether a run that broke that rule ("": none) has found it, not something else."""
        return rule.startswith(self.found_by)

    def shaped(self, plan: Plan) -> Plan:
        """A seed's plan as it takes to find this."""
        knobs = dataclasses.replace(plan.knobs, **self.knobs)
        return dataclasses.replace(plan, knobs=knobs, masters=self.masters or plan.masters)


CATALOGUE: dict[str, Mutant] = {}


def mutant(
    profile: str,
    *found_by: str,
    seeds: int = 3,
    seconds: float = 30.0,
    faults: tuple[str, ...] = (),
    knobs: Mapping[str, Any] | None = None,
    masters: int = 0,
) -> Callable[[Plant], Plant]:
    """Register the function under its own name; its docstring says what it breaks."""

    def register(plant: Plant) -> Plant:
        name, about = plant.__name__, (plant.__doc__ or "").splitlines()[0]
        assert name not in CATALOGUE, name
        CATALOGUE[name] = Mutant(
            name, about, plant, profile, seeds, seconds, found_by, faults, knobs or {}, masters
        )
        return plant

    return register
