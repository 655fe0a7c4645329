"""What is counted about Raft over all `Core`s of one process; read by `master.metrics`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from master.raft.core import Core


@dataclass(slots=True)
class RaftMeter:
    """Of one master, since its process began."""

    elections: int = 0  # this master stood in
    leaderships: int = 0  # of these, won
    core: Core | None = None  # the present one; an installed snapshot brings a new one
