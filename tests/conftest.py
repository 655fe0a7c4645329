"""What every test gets: hypothesis profiles, and failure on a log line that nobody expected.

A warning or error of our own loggers means that something went wrong that the test did not ask
for. A test that provokes one says so with the fixture `expected_logs`:

    def test_a_stranger_is_refused(expected_logs: ExpectedLogs) -> None:
        expected_logs("cannot prove the cluster key")     # a regular expression; may be repeated
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator

import hypothesis
import pytest

ExpectedLogs = Callable[[str], None]
OWN_LOGGERS = frozenset({"dfs", "master", "chunkserver", "fuse"})

# The clocks here are virtual or shared with other work: a deadline per example says nothing.
hypothesis.settings.register_profile(
    "default",
    deadline=None,
    max_examples=50,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("default"), max_examples=2000
)
hypothesis.settings.load_profile(os.environ.get("DFS_HYPOTHESIS_PROFILE", "default"))


def unexpected(records: list[logging.LogRecord], patterns: list[str]) -> list[str]:
    """The lines of our own, of level WARNING and above, that no pattern matches."""
    lines = [
        f"{record.levelname} {record.name}: {record.getMessage()}"
        for record in records
        if record.levelno >= logging.WARNING and record.name.split(".")[0] in OWN_LOGGERS
    ]
    return [line for line in lines if not any(re.search(p, line) for p in patterns)]


class _Collector(logging.Handler):
    """Keeps the records of the whole test, whatever its phases and other handlers do."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def expected_logs() -> Iterator[ExpectedLogs]:
    """Call it with a regular expression of a log line that the test provokes."""
    patterns: list[str] = []
    collector = _Collector()
    logging.getLogger().addHandler(collector)
    try:
        yield patterns.append
    finally:
        logging.getLogger().removeHandler(collector)
    surprising = unexpected(collector.records, patterns)
    if surprising:
        pytest.fail("unexpected log lines:\n  " + "\n  ".join(surprising), pytrace=False)
