"""The leader's memory of sessions: expiry, open inodes, what a new leader may judge."""

from __future__ import annotations

import pytest
import trio

from dfs.errors import Code, Failure
from master.sessions import LiveSessions


def test_a_session_expires_when_nothing_was_heard_for_its_time_to_live() -> None:
    sessions = LiveSessions(ttl_s=10)
    sessions.begin(7, now=100)
    sessions.touch(7, now=105)
    assert sessions.expired(now=115) == []
    assert sessions.expired(now=115.1) == [7]
    assert sessions.next_expiry(now=110) == pytest.approx(5)


def test_an_unknown_session_is_told_so() -> None:
    with pytest.raises(Failure) as failure:
        LiveSessions(ttl_s=10).touch(7, now=0)
    assert failure.value.code is Code.NO_SESSION


def test_a_new_leader_judges_no_orphan_before_every_session_said_what_it_has_open() -> None:
    sessions = LiveSessions(ttl_s=10)
    sessions.restart([7, 8], now=100)
    sessions.register(7, [41], now=101)
    assert not sessions.all_registered()
    sessions.register(8, [], now=102)
    assert sessions.all_registered()
    assert sessions.is_open(41)
    assert not sessions.is_open(42)


def test_ending_a_session_closes_what_it_had_open() -> None:
    sessions = LiveSessions(ttl_s=10)
    sessions.begin(7, now=0)
    sessions.open(7, 41)
    assert sessions.is_open(41)
    sessions.end(7)
    assert not sessions.is_open(41)
    assert len(sessions) == 0


def test_registering_keeps_what_was_opened_since() -> None:
    sessions = LiveSessions(ttl_s=10)
    sessions.begin(7, now=0)
    sessions.open(7, 41)
    sessions.register(7, [42], now=1)
    assert sessions.is_open(41)
    assert sessions.is_open(42)
    sessions.release(7, 41)
    assert not sessions.is_open(41)


def test_a_file_counts_as_open_elsewhere_while_another_session_that_lives_has_it_open() -> None:
    sessions, ended = LiveSessions(ttl_s=10), trio.Event()
    sessions.begin(7, now=100)
    sessions.begin(8, now=100)
    sessions.connected(8, ended)
    sessions.open(7, 41)
    assert not sessions.is_open_elsewhere(7, 41)
    sessions.open(8, 41)
    assert sessions.is_open_elsewhere(7, 41)
    assert not sessions.is_open_elsewhere(7, 42)
    ended.set()
    assert not sessions.is_open_elsewhere(7, 41)
    sessions.connected(8, trio.Event())
    assert sessions.is_open_elsewhere(7, 41)
    sessions.release(8, 41)
    assert not sessions.is_open_elsewhere(7, 41)


def test_to_a_new_leader_a_session_that_has_not_come_yet_may_have_anything_open() -> None:
    sessions = LiveSessions(ttl_s=10)
    sessions.restart([7, 8], now=100)
    assert sessions.is_open_elsewhere(7, 41)
    sessions.register(8, [], now=101)
    assert not sessions.is_open_elsewhere(7, 41)
