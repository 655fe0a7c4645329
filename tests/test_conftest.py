"""The watch over log lines itself."""

from __future__ import annotations

import logging

from tests.conftest import ExpectedLogs, unexpected


def record(name: str, level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, text, None, None)


def test_a_warning_of_our_own_is_unexpected() -> None:
    assert unexpected([record("master.raft", logging.WARNING, "no quorum")], []) == [
        "WARNING master.raft: no quorum"
    ]


def test_a_declared_warning_is_expected() -> None:
    assert unexpected([record("dfs.rpc", logging.ERROR, "wrong key")], ["wrong k.y"]) == []


def test_notices_and_strangers_are_left_alone() -> None:
    records = [record("dfs.rpc", logging.INFO, "connected"), record("trio", logging.ERROR, "x")]
    assert unexpected(records, []) == []


def test_the_fixture_accepts_what_it_was_told_of(expected_logs: ExpectedLogs) -> None:
    expected_logs("spilled milk")
    logging.getLogger("chunkserver.test").error("spilled %s", "milk")
