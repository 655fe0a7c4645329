"""Log lines: text as ever, JSON that parses, and not too many of one kind."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dfs.config import Log
from dfs.logs import LogHandler, formatter

LIMITS = Log(similar_lines=3, similar_interval_s=60.0, max_kinds=4)
START = 1_700_000_000.0
Say = Callable[..., None]


class Written:
    """A log of its own, with a clock set by hand."""

    def __init__(self, log_format: str = "text", limits: Log = LIMITS) -> None:
        self.stream = io.StringIO()
        self.handler = LogHandler(self.stream, limits)
        self.handler.setFormatter(formatter(log_format, "master-1"))
        self.now = START

    def say(
        self, text: str, *args: object, level: int = logging.WARNING, logger: str = "dfs.x"
    ) -> None:
        record = logging.LogRecord(logger, level, __file__, 1, text, args, None)
        record.created = self.now
        record.msecs = 0.0
        self.handler.handle(record)

    def lines(self) -> list[str]:
        """What was written since this was last asked, without the time."""
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return [line.split(" ", 2)[2] for line in text.splitlines()]


def test_text_names_time_level_node_and_logger() -> None:
    log = Written()
    log.say("chunk %x is gone", 0xAB)
    line = log.stream.getvalue()
    assert line.endswith(" WARNING master-1 dfs.x: chunk ab is gone\n")
    assert line[:19].count(":") == 2


def test_of_similar_warnings_some_are_written_and_the_rest_counted() -> None:
    log = Written()
    for i in range(50):
        log.say("no heartbeat of %d", i)
    head = "WARNING master-1 dfs.x: "
    assert log.lines() == [
        *(f"{head}no heartbeat of {i}" for i in range(3)),
        f"{head}more such lines are only counted for up to 60 s: no heartbeat of 3",
    ]
    log.now += 61
    log.say("something else")
    assert log.lines() == [
        f"{head}suppressed 47 similar lines in 60 s, the first was: no heartbeat of 0",
        f"{head}something else",
    ]
    log.say("no heartbeat of %d", 50)
    assert log.lines() == [f"{head}no heartbeat of 50"]


def test_exactly_as_many_as_allowed_need_no_further_line() -> None:
    log = Written()
    for i in range(3):
        log.say("no heartbeat of %d", i)
    assert len(log.lines()) == 3
    log.handler.close()
    assert log.lines() == []


def test_kinds_are_told_apart_by_logger_and_template() -> None:
    log = Written()
    for i in range(3):
        log.say("one %d", i)
        log.say("other %d", i)
        log.say("one %d", i, logger="dfs.y")
    assert len(log.lines()) == 9


def test_errors_are_held_back_only_when_they_are_the_same() -> None:
    log = Written()
    for i in range(20):
        log.say("replica %d set aside", i, level=logging.ERROR)
    assert len(log.lines()) == 20
    for _ in range(20):
        log.say("replica %d set aside", 99, level=logging.ERROR)
    assert len(log.lines()) == 4


def test_what_is_no_warning_is_never_held_back() -> None:
    log = Written()
    for level in (logging.DEBUG, logging.INFO, logging.CRITICAL):
        for _ in range(20):
            log.say("the same", level=level)
    assert len(log.lines()) == 60


def test_the_end_of_the_process_tells_the_rest() -> None:
    log = Written()
    for i in range(10):
        log.say("no heartbeat of %d", i)
    log.lines()
    log.handler.close()
    assert log.lines() == [
        "WARNING master-1 dfs.x: "
        "suppressed 7 similar lines in 60 s, the first was: no heartbeat of 0"
    ]


def test_a_clock_that_is_set_back_suppresses_nothing_for_long() -> None:
    log = Written()
    for i in range(10):
        log.say("no heartbeat of %d", i)
    log.lines()
    log.now -= 10_000
    log.say("no heartbeat of %d", 10)
    assert any("no heartbeat of 10" in line for line in log.lines())


def test_kinds_are_bounded_and_none_is_forgotten_untold() -> None:
    log = Written()
    for i in range(10):
        log.say("first %d", i)
    for kind in range(20):
        log.say(f"kind {kind}")
    assert any("suppressed 7" in line for line in log.lines())
    assert len(log.handler._repeats._seen) <= LIMITS.max_kinds


def test_json_lines_carry_the_fields_that_the_call_gave() -> None:
    stream = io.StringIO()
    handler = LogHandler(stream, LIMITS)
    handler.setFormatter(formatter("json", "chunkserver-7"))
    logger = logging.Logger("chunkserver.store")
    logger.addHandler(handler)
    logger.error("replica %x\nnot synced", 0xAB, extra={"chunk": "ab", "inode": 7, "raw": b"\xff"})
    try:
        raise ValueError("a bug")
    except ValueError:
        logger.exception("oh")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["ts"].endswith("Z")
    assert len(first["ts"]) == len("2026-01-31T03:14:15.926Z")
    assert {k: v for k, v in first.items() if k != "ts"} == {
        "level": "ERROR",
        "node": "chunkserver-7",
        "logger": "chunkserver.store",
        "message": "replica ab\nnot synced",
        "chunk": "ab",
        "inode": 7,
        "raw": "b'\\xff'",
    }
    assert "ValueError: a bug" in second["exception"]


def test_json_time_is_utc() -> None:
    log = Written("json")
    log.say("x")
    assert json.loads(log.stream.getvalue())["ts"] == "2023-11-14T22:13:20.000Z"


PROGRAM = """
import logging
from dfs.process import log_to_stderr
log_to_stderr("node-1", log_format="json")
for i in range(1000):
    logging.getLogger("dfs.x").warning("again %d", i, extra={"server": i})
logging.getLogger("dfs.x").info("100 %% done of %d", 1)
"""


def test_a_process_logs_json_and_tells_the_rest_at_its_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line.get("server") for line in lines[:10]] == list(range(10))
    assert lines[11]["message"] == "100 % done of 1"
    assert lines[12]["message"].startswith("suppressed 990 similar lines")
    assert len(lines) == 13


@pytest.mark.parametrize("role", ["master", "chunkserver", "mount"])
def test_an_unknown_format_is_refused(role: str, tmp_path: Path) -> None:
    words = ["mount", "/"] if role == "mount" else [role, "run"]
    command = [sys.executable, "-m", "dfs.cli.main", *words, "--config", str(tmp_path / "x.toml")]
    done = subprocess.run(
        [*command, "--log-format", "xml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "xml" in done.stderr
