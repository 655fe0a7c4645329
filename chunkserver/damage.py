"""Which replicas here are damaged or may differ, and what the leader is yet to be told of them.

Whoever finds damage (a reader, a write's merge, the scrub) finds it in a `Replica`, which remembers
it; `store` tells it here. One report per replica and version is due when blocks are found that were
not known; it is repeated until the replica is mended or its version moves on, which says that the
leader has had the chunk settled. What is damaged after that no other replica had whole either: it
is not reported again before the next pass of the scrub finds it, so that chunk and leader do not
go round in circles.

A replica that may differ from the others of its chunk, because a link of the chain or a disk failed
in the middle of a change, is reported too, after some time in which the client that wrote may have
done so itself: it may be dead.

A replica that is lost as a whole (its file vanished, or was set aside) is reported the same way,
until there is one again or the leader has been told `LOST_REPORTS` times. Version 0 stands for one
that could not even be read any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import trio

from dfs.config import ChunkserverLimits
from dfs.errors import Failure
from dfs.messages.cluster import ReportSuspicions, Suspicion
from dfs.rpc import Connection
from dfs.runtime import Env

log = logging.getLogger(__name__)

LOST_REPORTS = 8
VersionOf = Callable[[int], int | None]  # a replica's present version, None when there is none


@dataclass(slots=True)
class _Due:
    version: int
    at: float  # when it is to be told (again)
    lost: bool
    damaged: bool = True
    address: str = ""  # the link or server that failed a change
    told: int = 0


class Damage:
    """What is known, by handle; at most `max_due` reports wait."""

    def __init__(self, env: Env, max_due: int) -> None:
        self._env, self._max_due = env, max_due
        self._known: dict[int, int] = {}
        self._due: dict[int, _Due] = {}
        self.found = trio.Event()  # something is due that was not before; replaced by `take`

    # -- what is found

    def saw(self, handle: int, version: int, damaged: int) -> None:
        """A replica has exactly these damaged blocks (a bitmap)."""
        old = self._known.pop(handle, 0)
        if damaged:
            self._known[handle] = damaged
        else:
            self._due.pop(handle, None)
        if damaged & ~old:
            self._report(handle, version, lost=False)

    def again(self, handle: int, version: int) -> None:
        """The scrub has come by a replica that is still damaged."""
        self._report(handle, version, lost=False)

    def lost(self, handle: int, version: int) -> None:
        """There is no replica any more, though nobody ordered that."""
        self._known.pop(handle, None)
        self._report(handle, version, lost=True)

    def differs(self, handle: int, version: int, address: str, after_s: float) -> None:
        """A change that was made here failed at `address`, or the other way round."""
        due = self._due.get(handle)
        if due is None or due.version != version:
            self._report(handle, version, lost=False)
            if handle in self._due:
                due = self._due[handle]
                due.at, due.damaged, due.address = due.at + after_s, False, address

    def gone(self, handle: int) -> None:
        """The replica was deleted, as ordered."""
        self._known.pop(handle, None)
        self._due.pop(handle, None)

    def _report(self, handle: int, version: int, *, lost: bool) -> None:
        if handle not in self._due and len(self._due) >= self._max_due:
            text = "%s: trouble of replica %x is not reported for now: %d reports wait"
            log.error(text, self._env.name, handle, len(self._due))
            return
        self._due[handle] = _Due(version, self._env.clock.monotonic(), lost)
        self.found.set()

    # -- what is known

    def known(self) -> dict[int, int]:
        """Handle -> bitmap of damaged blocks."""
        return dict(self._known)

    def blocks(self, handle: int) -> int:
        """The bitmap of that replica's damaged blocks."""
        return self._known.get(handle, 0)

    # -- what is to be told

    def take(self, limit: int, version_of: VersionOf) -> list[Suspicion]:
        """At most `limit` reports whose time has come, in the order of handles."""
        self.found = trio.Event()
        now = self._env.clock.monotonic()
        for handle in [h for h, due in self._due.items() if _is_over(due, version_of(h))]:
            del self._due[handle]
        ready = sorted(handle for handle, due in self._due.items() if due.at <= now)
        return [_suspicion(handle, self._due[handle]) for handle in ready[:limit]]

    def told(self, suspicions: list[Suspicion], repeat_s: float) -> None:
        """The leader has taken these."""
        for suspicion in suspicions:
            due = self._due.get(suspicion.handle)
            if due is not None and due.version == suspicion.version:
                due.told += 1
                due.at = self._env.clock.monotonic() + repeat_s

    def next_in_s(self) -> float | None:
        """How long until something is due; None for nothing."""
        earliest = min((due.at for due in self._due.values()), default=None)
        return None if earliest is None else max(0.0, earliest - self._env.clock.monotonic())

    def repeat_all(self) -> None:
        """Another leader knows nothing yet."""
        now = self._env.clock.monotonic()
        for due in self._due.values():
            due.at, due.told = now, 0


def _suspicion(handle: int, due: _Due) -> Suspicion:
    return Suspicion(handle, due.version, damaged=due.damaged, address=due.address)


def _is_over(due: _Due, version: int | None) -> bool:
    """Whether the leader need not hear of it again."""
    if due.lost:
        return version is not None or due.told >= LOST_REPORTS
    return version != due.version


async def report_damage(
    env: Env,
    limits: ChunkserverLimits,
    server: int,
    damage: Damage,
    version_of: VersionOf,
    connection: Connection,
) -> None:
    """Tell the leader at the other end of what is due, for as long as the connection lasts."""
    damage.repeat_all()
    while True:
        wait_s = damage.next_in_s()
        if wait_s is None:
            await damage.found.wait()
        else:
            await env.clock.wait(damage.found, wait_s)
        due = damage.take(limits.suspicion_batch, version_of)
        if not due:
            continue
        try:
            message = ReportSuspicions(server, tuple(due))
            await connection.call(message, timeout_s=limits.control_timeout_s)
        except Failure as error:
            text = "%s: %d suspicious replicas not reported yet: %s"
            log.warning(text, env.name, len(due), error.message)
            await env.clock.sleep(limits.heartbeat_s)
        else:
            damage.told(due, limits.suspicion_repeat_s)
