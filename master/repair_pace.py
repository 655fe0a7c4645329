"""How fast repair may copy, and how fast it does.

The cluster's bound is `repair_bytes_per_s`. While clients are busy, which the heartbeats' counters
tell, repair gets `repair_share` of what both move together, but `repair_floor_bytes_per_s` at the
least; chunks of which one replica is left get half the bound whatever clients do. What is allowed
is shared out among the copies that may run at a time, so each is paced on its own.
"""

from __future__ import annotations

from collections import deque

from dfs.config import MasterLimits

_SMOOTHING = 0.3  # weight of the newest interval between two heartbeats


class Pace:
    """Times are seconds of boottime."""

    def __init__(self, limits: MasterLimits) -> None:
        self._limits = limits
        self._counters: dict[int, tuple[float, int]] = {}  # server -> when, client bytes
        self._client_rates: dict[int, float] = {}
        self._copied: deque[tuple[float, int]] = deque()
        self._began = 0.0
        self.copied_bytes = 0

    def restart(self, now: float) -> None:
        """A leadership begins."""
        self._counters.clear()
        self._client_rates.clear()
        self._copied.clear()
        self._began, self.copied_bytes = now, 0

    def heard(self, server: int, now: float, client_bytes: int) -> None:
        """A heartbeat's counter; one that is lower than before is of a server that restarted."""
        before = self._counters.get(server)
        self._counters[server] = (now, client_bytes)
        if before is None or now <= before[0] or client_bytes < before[1]:
            return
        rate = (client_bytes - before[1]) / (now - before[0])
        old = self._client_rates.get(server, rate)
        self._client_rates[server] = old + _SMOOTHING * (rate - old)

    def forget(self, server: int) -> None:
        """The server is gone: what it did says nothing any more."""
        self._counters.pop(server, None)
        self._client_rates.pop(server, None)

    def client_rate(self) -> float:
        """Bytes per second that clients move, all replicas counted."""
        return sum(self._client_rates.values())

    def allowed(self, *, endangered: bool = False) -> int:
        """Bytes per second for all copies together; 0: no bound."""
        limits, bound = self._limits, self._limits.repair_bytes_per_s
        client_rate = self.client_rate()
        if client_rate < limits.repair_busy_bytes_per_s:
            return bound
        share = int(client_rate * limits.repair_share / max(0.01, 1.0 - limits.repair_share))
        allowed = max(share, limits.repair_floor_bytes_per_s)
        if endangered:
            allowed = max(allowed, bound // 2) if bound else 0
        return min(allowed, bound) if bound else allowed

    # -- what was done

    def copied(self, now: float, size_bytes: int) -> None:
        """A copy has ended."""
        self._copied.append((now, size_bytes))
        self.copied_bytes += size_bytes
        self._forget_old(now)

    def rate(self, now: float) -> float:
        """Bytes per second copied lately."""
        self._forget_old(now)
        window_s = min(self._limits.repair_rate_window_s, now - self._began)
        return sum(size for _, size in self._copied) / max(1.0, window_s)

    def eta_s(self, now: float, left_bytes: int) -> float:
        """Until so much is copied; -1 when nothing shows how long that takes."""
        if left_bytes <= 0:
            return 0.0
        rate = self.rate(now)
        return left_bytes / rate if rate > 0 else -1.0

    def _forget_old(self, now: float) -> None:
        while self._copied and self._copied[0][0] < now - self._limits.repair_rate_window_s:
            self._copied.popleft()
