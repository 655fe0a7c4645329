"""What is printed: sizes, tables, names that could drive a terminal."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfs.cli import output


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.0K"),
        (1536, "1.5K"),
        (10 * 1024, "10K"),
        (1023 * 1024, "1.0M"),
        (3 << 40, "3.0T"),
        (2**63 - 1, "8.0E"),
    ],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert output.human_bytes(count) == text


@given(st.integers(0, 2**64))
def test_no_size_needs_more_than_five_characters(count: int) -> None:
    assert len(output.human_bytes(count)) <= 5


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert output.printable("a\x1b[31mb\n") == "a\\x1b[31mb\\x0a"
    assert output.printable(os.fsdecode(b"\xff\xfe")) == "\\xff\\xfe"
    assert output.printable("größer 雪") == "größer 雪"


def test_names_go_to_a_pipe_byte_by_byte(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output.line(output.shown(b"\xff\x1b"))
    assert capfdbinary.readouterr().out == b"\xff\x1b\n"


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.complain("first\nsecond\x1b")
    assert capsys.readouterr().err == "dfs: first second\\x1b\n"


def test_json_keeps_any_name(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output.emit_json({"name": os.fsdecode(b"\xff")})
    found = json.loads(capfdbinary.readouterr().out)
    assert os.fsencode(found["name"]) == b"\xff"


def test_columns_are_aligned() -> None:
    rows = [["a", "1", "x"], ["bbb", "100", ""]]
    assert output.table(rows, right=frozenset({1})) == ["a      1  x", "bbb  100"]
    assert output.table([]) == []


def test_times_beyond_the_calendar_are_shown_as_seconds() -> None:
    assert output.timestamp(2**62 * 1000) == str(2**62 * 1000 // 10**9)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-1, "0 s"),
        (0.4, "0 s"),
        (42, "42 s"),
        (59.6, "1 min"),
        (258, "4 min 18 s"),
        (599, "9 min 59 s"),
        (962, "16 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (3605, "1 h"),
        (86_400 * 3 + 4 * 3600 + 59, "3 d 4 h"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_counts_for_people() -> None:
    assert [output.counted(n, "chunk") for n in (0, 1, 2)] == ["0 chunks", "1 chunk", "2 chunks"]
