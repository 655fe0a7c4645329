"""A session that was heard of within its time to live is not ended for silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from master.sessions import LiveSessions
from tests.simulation.stage import Stage
from tests.simulation.taps import Taps


class SessionMonitor:
    """Keeps, for each leader, when it heard of which session, on its own clock."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        # By identity of the leader's view (held, so that it stays its own) and session.
        self._heard: dict[tuple[int, int], tuple[LiveSessions, float]] = {}

    def attach(self, taps: Taps) -> None:
        taps.around(LiveSessions, "begin", self._begin)
        taps.around(LiveSessions, "touch", self._begin)
        taps.around(LiveSessions, "restart", self._restart)
        taps.around(LiveSessions, "expired", self._expired)

    async def finish(self) -> None:
        """All has been seen while it happened."""

    def _begin(
        self, original: Callable[..., Any], live: LiveSessions, session: int, now: float
    ) -> Any:
        answer = original(live, session, now)
        self._heard[id(live), session] = live, now
        return answer

    def _restart(
        self, original: Callable[..., None], live: LiveSessions, sessions: Any, now: float
    ) -> None:
        known = list(sessions)
        original(live, known, now)
        self._heard.update({(id(live), session): (live, now) for session in known})

    def _expired(
        self, original: Callable[..., list[int]], live: LiveSessions, now: float
    ) -> list[int]:
        found = original(live, now)
        for session in found:
            self._stage.reach["saw.expiry"] += 1
            silent_s = now - self._heard[id(live), session][1]
            if silent_s < self._stage.plan.knobs.session_ttl_s:
                text = f"session {session:x} ends after {silent_s:.3f} s of silence"
                self._stage.broken("sessions.early", text)
        return found
