"""The catalogue as a table for people: `python -m tests.simulation.mutants.table` prints it.

`docs/simulation.md` has it; `test_mutants` compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tests.simulation.mutants import CATALOGUE, Mutant

HEAD = "| mutant | what is broken | found by | profile (faults) | seeds |"


def table() -> str:
    """All mutants, by area, as Markdown."""
    return "\n".join([HEAD, "|---|---|---|---|---|", *_rows()]) + "\n"


def _rows() -> Iterator[str]:
    for mutant in sorted(CATALOGUE.values(), key=_area):
        where = mutant.profile + (f" ({', '.join(mutant.faults)})" if mutant.faults else "")
        rules = ", ".join(rule + "*" * rule.endswith(".") for rule in mutant.found_by)
        cells = (f"`{mutant.name}`", mutant.breaks, rules, where, str(mutant.seeds))
        yield f"| {' | '.join(cells)} |"


def _area(mutant: Mutant) -> str:
    return mutant.plant.__module__


if __name__ == "__main__":
    sys.stdout.write(table())
