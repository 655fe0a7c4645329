"""The kinds of faults: each strikes, lasts, and ends by itself.

`KINDS` has them by name: `await KINDS[name].strike(arena, chance)`, with all choices drawn from
`chance`. One module per family: what is struck.
"""

from __future__ import annotations

from tests.simulation.faults import (
    chunkservers,
    clients,
    clocks,
    cluster,
    disks,
    links,
    losses,
    masters,
    operations,
)
from tests.simulation.faults.kinds import KINDS, Kind, of_families

__all__ = [
    "KINDS",
    "Kind",
    "chunkservers",
    "clients",
    "clocks",
    "cluster",
    "disks",
    "links",
    "losses",
    "masters",
    "of_families",
    "operations",
]
