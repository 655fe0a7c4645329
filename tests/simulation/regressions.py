"""Seeds that once found something, with what it was. They run with every test run.

What mends a bug is shown by a test of its own next to the code; a seed here shows that the way to
it stays open. A seed keeps its meaning as long as plans are drawn as they were, so new seeds go at
the end and old ones are not sorted out.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.runner import Job


@dataclass(frozen=True)
class Regression:
    """A job, and what it found when it was first run."""

    job: Job
    found: str


REGRESSIONS: tuple[Regression, ...] = (
    Regression(
        Job("trees", 300, 60.0),
        "a server that had to leave a chunk was refused for two minutes, where there was no other",
    ),
    Regression(
        Job("streams", 1009, 60.0),
        "a master whose disk refused changes at the start ended with a traceback",
    ),
    Regression(
        Job("turns", 6, 30.0),
        "wall clocks that were set back kept deletions and repair waiting until they had caught up",
    ),
)
