"""Whether the peer is still there: a pure decision, made by the connection's keeper.

TCP says nothing about a peer that lost its power or a network that was cut. A connection that has
been silent for `idle_s`, or that let a call time out, is asked by a PING; a peer that shows no
sign of life within `answer_s` from then on is given up. Any byte received is a sign of life.
"""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    FINE = "nothing to do"
    ASK = "send a PING"
    GONE = "close the connection"


class Liveness:
    """The state of one peer. `check_at` is when `judge` is due again at the latest."""

    def __init__(self, now: float, idle_s: float, answer_s: float) -> None:
        self.check_at = now + idle_s
        self._idle_s = idle_s
        self._answer_s = answer_s
        self._sign: object = None
        self._asked = False

    @property
    def asked(self) -> bool:
        """Whether a PING is out and nothing has been heard since."""
        return self._asked

    def judge(self, now: float, sign: object, *, suspicious: bool) -> Verdict:
        """`sign` changes whenever something is heard; `suspicious` asks without further ado."""
        if sign != self._sign:
            self._sign, self._asked, self.check_at = sign, False, now + self._idle_s
        elif self._asked:
            return Verdict.GONE if now >= self.check_at else Verdict.FINE
        elif suspicious or now >= self.check_at:
            self._asked, self.check_at = True, now + self._answer_s
            return Verdict.ASK
        return Verdict.FINE
