"""What one node holds of the world: its clock, network, disk, random numbers and blocking work.

Several nodes may live in one process (the simulator), so nothing here is a module global and
every node gets an `Env` of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar

from dfs.runtime.clock import Clock
from dfs.runtime.disk import Disk
from dfs.runtime.network import Network

T = TypeVar("T")


class Random(Protocol):
    """Random numbers; the simulated one is seeded."""

    def random(self) -> float:
        """Uniform in [0, 1)."""
        ...

    def uniform(self, low: float, high: float) -> float: ...

    def randrange(self, stop: int) -> int: ...

    def shuffled(self, items: list[T]) -> list[T]:
        """A shuffled copy."""
        ...

    def token(self, length_bytes: int) -> bytes:
        """Unpredictable bytes, fit for nonces and keys."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process uses of its machine. All zeros when simulated nodes share one process."""

    resident_bytes: int = 0
    open_files: int = 0
    max_open_files: int = 0
    cpu_s: float = 0.0
    started_s: float = 0.0  # since 1970


class Env(Protocol):
    """One node's world."""

    @property
    def name(self) -> str:
        """For log lines: `master-1`, `chunkserver-3`, `client`."""
        ...

    @property
    def clock(self) -> Clock: ...

    @property
    def network(self) -> Network: ...

    @property
    def disk(self) -> Disk: ...

    @property
    def random(self) -> Random: ...

    async def run_blocking(self, work: Callable[[], T], lane: str = "") -> T:
        """Run work that may wait for the disk without holding up the event loop.

        A worker thread when real, a virtual delay and an inline call when simulated. Calls of one
        lane run at most `lane limit` at a time (the real default: 8), "" has a lane of its own.
        Not cancellable once begun.
        """
        ...

    async def run_beside(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run an async function so that blocking calls in this loop do not hold it up.

        A thread with an event loop of its own when real, a plain task when simulated. It shares
        only plain values with this loop. Returns when it does; cancelling cancels it.
        """
        ...

    def usage(self) -> Usage:
        """What this node's process uses just now; blocks for less than a millisecond."""
        ...

    def fatal(self, reason: str) -> NoReturn:
        """Log the reason and end this node at once: the only way a process ends by itself."""
        ...
