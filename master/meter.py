"""What the leader counts of clients' operations; read by `master.metrics`."""

from __future__ import annotations

from dfs.messages.common import Refused
from dfs.messages.metadata import Answer
from dfs.messages.operations import Operation
from dfs.metrics.instruments import CountsByName


class MasterMeter:
    """Operations by the name of their message, as answered while this master led."""

    def __init__(self) -> None:
        self.done = CountsByName()
        self.refused = CountsByName()

    def answered(self, operation: Operation, answer: Answer) -> None:
        """Count one answer."""
        counts = self.refused if isinstance(answer, Refused) else self.done
        counts[type(operation).__name__] += 1
