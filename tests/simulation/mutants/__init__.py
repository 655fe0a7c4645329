"""Planted faults: each takes away one protection of the real code, and the simulator must find it.

`CATALOGUE` has them all by name. A mutant that no run finds shows a property that no check states.
Their own modules, by area, register them when they are imported.
"""

from __future__ import annotations

from tests.simulation.mutants import (
    agreement,
    chunks,
    clients,
    metadata,
    processes,
    raft,
    replicas,
    sessions,
    writing,
)
from tests.simulation.mutants.kinds import CATALOGUE, Mutant

__all__ = [
    "CATALOGUE",
    "Mutant",
    "agreement",
    "chunks",
    "clients",
    "metadata",
    "processes",
    "raft",
    "replicas",
    "sessions",
    "writing",
]
