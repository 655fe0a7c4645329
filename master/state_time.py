"""The time at which a leader has things happen: the state's own, which never goes back.

It is the wall clock's while that is ahead of the state. A wall clock that was set back, or that of
a new leader which lags behind the last one's, is behind it, perhaps by days. Time must not stand
still until then: what is noted in the state with its time (deletions, with their grace) would stay
as young as it was. So it goes on from the last change at half its pace, until the wall clock has
caught up; every duration measured by it takes twice as long meanwhile, and none is cut short.
"""

from __future__ import annotations

from dfs.runtime import Env
from master.state import queries
from master.tables import Tables

CATCH_UP_PACE = 0.5
NS = 1_000_000_000


class StateTime:
    """One master's reading of it; it matters while the master leads."""

    def __init__(self, env: Env, tables: Tables) -> None:
        self._env, self._tables = env, tables
        self._changed_ns = 0  # the time of the state's last change, and when that was seen here
        self._seen_s = 0.0

    def now_ns(self) -> int:
        """Nanoseconds since 1970; for ages of what the state has noted, and for what changes it."""
        clock, changed_ns = self._env.clock, queries.changed_ns(self._tables)
        if changed_ns != self._changed_ns:
            self._changed_ns, self._seen_s = changed_ns, clock.boottime()
        passed_ns = int((clock.boottime() - self._seen_s) * CATCH_UP_PACE * NS)
        return max(clock.wall_ns(), changed_ns + passed_ns)
