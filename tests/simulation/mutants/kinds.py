"""What a mutant is, and the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.taps import Taps

Plant = Callable[[Taps], None]


@dataclass(frozen=True)
class Mutant:
    """`plant` breaks the classes; sibling protections that would hide it go off with it.

    One of the seeds 0 to `seeds` - 1 of `profile` finds it, run for `seconds`, by one of the rules
    `found_by` (beginnings of their names). `faults`: kinds that strike, in place of those that the
    seed would choose, for what shows only under them.
    """

    name: str
    breaks: str  # what it takes away, in a line
    plant: Plant
    profile: str
    seeds: int = 3
    seconds: float = 30.0
    found_by: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


CATALOGUE: dict[str, Mutant] = {}


def mutant(
    profile: str,
    *found_by: str,
    seeds: int = 3,
    seconds: float = 30.0,
    faults: tuple[str, ...] = (),
) -> Callable[[Plant], Plant]:
    """Register the function under its own name; its docstring says what it breaks."""

    def register(plant: Plant) -> Plant:
        name, about = plant.__name__, (plant.__doc__ or "").splitlines()[0]
        assert name not in CATALOGUE, name
        CATALOGUE[name] = Mutant(name, about, plant, profile, seeds, seconds, found_by, faults)
        return plant

    return register
