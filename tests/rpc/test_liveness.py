"""When a peer is asked whether it is there, and when it is given up."""

from __future__ import annotations

from dfs.rpc.liveness import Liveness, Verdict

ASK, FINE, GONE = Verdict.ASK, Verdict.FINE, Verdict.GONE


def test_a_silent_peer_is_asked_and_then_given_up() -> None:
    liveness = Liveness(100.0, idle_s=20.0, answer_s=3.0)
    assert liveness.judge(100.0, "sign", suspicious=False) is FINE
    assert liveness.check_at == 120.0
    assert liveness.judge(119.9, "sign", suspicious=False) is FINE
    assert liveness.judge(120.0, "sign", suspicious=False) is ASK
    assert liveness.judge(122.9, "sign", suspicious=True) is FINE
    assert liveness.judge(123.0, "sign", suspicious=False) is GONE


def test_any_sign_of_life_begins_anew() -> None:
    liveness = Liveness(0.0, idle_s=20.0, answer_s=3.0)
    liveness.judge(0.0, 1, suspicious=False)
    assert liveness.judge(20.0, 1, suspicious=False) is ASK
    assert liveness.judge(23.0, 2, suspicious=False) is FINE
    assert not liveness.asked
    assert liveness.check_at == 43.0


def test_a_suspicion_asks_at_once_unless_something_was_heard() -> None:
    liveness = Liveness(0.0, idle_s=20.0, answer_s=3.0)
    liveness.judge(0.0, 1, suspicious=False)
    assert liveness.judge(1.0, 2, suspicious=True) is FINE
    assert liveness.judge(2.0, 2, suspicious=True) is ASK
    assert liveness.check_at == 5.0
