"""How fast the scrub may read: a bounded rate, and less while clients keep the disk busy.

A reading of so many bytes that took so long is followed by a pause that makes both true:
  - all in all no more than the allowed rate, which falls in proportion to the share of time in
    which the disk had other work, down to a least one that lets every pass end;
  - at most half of the time is spent reading, so that a slow disk, or one of many small replicas,
    is left to others for the other half.
"""

from __future__ import annotations

from dfs.config import ChunkserverLimits

_WINDOW_S = 5.0  # over which the share of busy time and the present rate are taken


def allowed_rate(limits: ChunkserverLimits, busy_share: float) -> float:
    """Bytes per second that may be read of a disk that has other work for that share of time."""
    full = float(limits.scrub_bytes_per_s)
    least = min(full, float(limits.scrub_min_bytes_per_s))
    return max(least, full * (1.0 - min(1.0, max(0.0, busy_share))))


def pause_s(read_bytes: int, took_s: float, bytes_per_s: float) -> float:
    """How long to wait after a reading."""
    return max(read_bytes / bytes_per_s - took_s, took_s)


class Pace:
    """The pace on one disk: what was read lately, and how busy the disk was meanwhile."""

    def __init__(self, limits: ChunkserverLimits, now: float, busy_s: float) -> None:
        self._limits = limits
        self._began_at, self._busy_s = now, busy_s
        self._read_bytes = 0
        self._share = 0.0
        self.bytes_per_s = 0.0  # lately

    def after(self, read_bytes: int, took_s: float, now: float, busy_s: float) -> float:
        """Note a reading; how long to wait after it. `busy_s` is the disk's busy time so far."""
        self._read_bytes += read_bytes
        elapsed_s = now - self._began_at
        if elapsed_s >= _WINDOW_S:
            self._share = (busy_s - self._busy_s) / elapsed_s
            self.bytes_per_s = self._read_bytes / elapsed_s
            self._began_at, self._busy_s, self._read_bytes = now, busy_s, 0
        return pause_s(read_bytes, took_s, allowed_rate(self._limits, self._share))
