"""Clusters with broken durability: which faults there are, and the cluster that has one."""

from __future__ import annotations

import os
from pathlib import Path

from tests.crash.cluster import Cluster

PLANTED = Path(__file__).parent / "planted"  # see its sitecustomize.py
# Each with the targets that show it.
SHOWN_BY_KILLS = {
    "client-skips-fsync": ["client"],
    "chunkserver-answers-early": ["chunkservers"],
    "master-answers-early": ["masters"],
}
SHOWN_BY_POWER_CUTS = {
    "chunkserver-skips-fsync": ["power"],
    "master-skips-fsync": ["power"],
}
ALL = {**SHOWN_BY_KILLS, **SHOWN_BY_POWER_CUTS}


def faulty_cluster(base: Path, fault: str) -> Cluster:
    """A cluster with that fault planted in the processes it starts."""
    path = os.pathsep.join(filter(None, (str(PLANTED), os.environ.get("PYTHONPATH"))))
    environment = {"PYTHONPATH": path, "DFS_PLANTED_FAULT": fault}
    return Cluster(base, environment=environment, disks=fault in SHOWN_BY_POWER_CUTS)
