"""What our programs log at WARNING and above is expected, and no error of programming hides.

A traceback is never expected: every broad `except` of the product logs one (`log.exception`).
Neither is an error or the end of a node in a run without strikes. What dead nodes raise on their
way out is of no concern, unless it is of a type that only a mistake in the code raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from tests.simulation.stage import Stage
from tests.simulation.taps import Taps

OURS = ("master", "chunkserver", "dfs")
MISTAKES = (AssertionError, AttributeError, IndexError, KeyError, NameError, TypeError)
# Who may log an error, or end its node (`fatal`), under faults.
ERRORS = (
    "chunkserver.damage",
    "chunkserver.datadir",
    "chunkserver.quarantine",
    "chunkserver.replica",
    "chunkserver.scrub",
    "chunkserver.store",
    "chunkserver.syncing",
    "dfs.client.chunk_read",
    "dfs.client.client",
    "dfs.client.session",
    "dfs.client.write_back",
    "dfs.runtime.sim.env",
    "master.census",
    "master.dumps",
    "master.raft.links",
    "master.raft.node",
    "master.raft.snapshots",
    "master.repair",
    "master.settling",
)
# Who may only warn.
WARNINGS = (
    *ERRORS,
    "chunkserver.control",
    "chunkserver.fetching",
    "chunkserver.lineage",
    "chunkserver.listing",
    "chunkserver.members",
    "chunkserver.service",
    "chunkserver.settling",
    "chunkserver.verify",
    "dfs.client.chunk_write",
    "dfs.rpc.server",
    "master.chunkservers",
    "master.janitor",
    "master.metrics",
    "master.recovery",
    "master.reports",
)


# Why a node may end itself: what others are to blame for, never what it finds wrong in itself.
ENDS = (
    "refuses changes",
    "refused the Raft log",
    "cannot use",
    "refuses this master",
    "a snapshot could not be installed",
)


class LogMonitor:
    """Reads along with the loggers."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def attach(self, taps: Taps) -> None:
        taps.around(logging.Logger, "handle", self._handle)

    async def finish(self) -> None:
        """What zombies raised."""
        for error in self._stage.world.afterlife:
            for cause in _leaves(error):
                if isinstance(cause, MISTAKES):
                    self._stage.broken("logs.afterlife", f"a dead node raised {cause!r}")

    def _handle(
        self, original: Callable[..., None], logger: logging.Logger, record: logging.LogRecord
    ) -> None:
        original(logger, record)
        if record.levelno >= logging.WARNING and record.name.split(".")[0] in OURS:
            self._stage.reach["saw.log"] += 1
            text = f"{record.levelname} {record.name}: {record.getMessage()}"
            if record.exc_info:
                self._stage.broken("logs.traceback", f"{text}: {record.exc_info[1]!r}")
            if not self._is_expected(record):
                self._stage.broken("logs.unexpected", text)

    def _is_expected(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            if record.name == "dfs.runtime.sim.env":
                return any(why in record.getMessage() for why in ENDS)
            return bool(self._stage.plan.strikes) and record.name in ERRORS
        return record.name in WARNINGS


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
