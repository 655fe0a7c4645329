"""Waiting for a drain: the pace that was seen, and what is shown of it."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dfs.cli.drain import Drained, Pace, shown


def pace(*seen: tuple[float, int], window_s: float = 60.0) -> Pace:
    made = Pace(window_s)
    for now_s, left in seen:
        made.see(now_s, left)
    return made


def test_the_time_left_is_by_the_pace_that_was_seen() -> None:
    slow = pace((0, 100), (30, 95))
    assert slow.time_left_s == pytest.approx(570)
    assert slow.words() == "10.0 chunks/min, about 9 min 30 s left"
    assert pace((0, 100), (10, 50)).words() == "5 chunks/s, about 10 s left"


def test_no_time_is_told_before_anything_has_moved() -> None:
    for seen in ([(0, 100)], [(0, 100), (30, 100)], [(0, 100), (30, 120)]):
        assert pace(*seen).time_left_s is None
        assert pace(*seen).words() == "time left unknown"


def test_what_was_long_ago_does_not_count() -> None:
    stalled = pace((0, 100), (50, 10), (100, 10), (120, 10))
    assert stalled.time_left_s is None


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 10**6)), min_size=1, max_size=20))
def test_the_time_left_is_never_negative(seen: list[tuple[float, int]]) -> None:
    left_s = pace(*sorted(seen)).time_left_s
    assert left_s is None or left_s >= 0


def test_on_a_terminal_a_bar_shows_chunks_and_time() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with shown("chunkserver 1", console) as show:
        show(8, 8, "time left unknown")
        show(2, 8, "3.0 chunks/min, about 40 s left")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "6/8" in text
    assert "3.0 chunks/min, about 40 s left" in text


def test_without_a_terminal_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with shown("chunkserver 1") as show:
        for left in range(1000, -1, -1):
            show(left, 1000, "words")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0] == "chunkserver 1: 1000 of 1000 chunks to go; words"
    assert lines[-1] == "chunkserver 1: 0 of 1000 chunks to go; words"


def test_an_empty_one_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with shown("chunkserver 1") as show:
        show(0, 0, "words")
    assert capsys.readouterr().err == "chunkserver 1: 0 of 0 chunks to go; words\n"


def test_the_command_to_type_is_one_that_works() -> None:
    assert Drained(3).command("back") == "dfs node back 3"
    assert Drained(3, "/my disk").command("back") == "dfs disk back 3 '/my disk'"
