"""The clock seam: time as one node sees it.

Two nodes' clocks may differ and drift; only durations measured on one node mean anything, but for
`wall_ns`, which is what people see in timestamps.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import trio


class Clock(Protocol):
    """Time and waiting."""

    def monotonic(self) -> float:
        """Seconds since some fixed instant; never goes back; stops while the machine sleeps."""
        ...

    def boottime(self) -> float:
        """Seconds since boot; goes on while the machine sleeps, so leases are measured by it."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC; may jump either way."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        ...

    def move_on_after(self, seconds: float) -> AbstractContextManager[trio.CancelScope]:
        """Cancel what is inside after that long and go on; see `scope.cancelled_caught`."""
        ...

    def fail_after(self, seconds: float) -> AbstractContextManager[trio.CancelScope]:
        """Cancel what is inside after that long and raise `trio.TooSlowError`."""
        ...

    async def wait(self, event: trio.Event, seconds: float) -> bool:
        """Wait for the event, but no longer than that; whether the event came."""
        ...
