"""What the leader knows of the clients' sessions beyond the replicated state.

Owns, in memory of the leader alone: when each session was last heard of and which inodes it has
open. A new leader starts with every session just heard of and with no open inodes; until each
session has told it what it has open (`RegisterOpens`) or has expired, nothing may be reaped.
A notice of a close may be lost with its connection, so what a session leaves out twice in turn is
closed: leaving it out once may only mean that the answer to its open was still on its way.
Leaves ending a session to a replicated command.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from dfs.errors import Code, Failure


@dataclass(slots=True)
class LiveSession:
    heard_at: float  # boottime
    registered: bool = False
    registrations: int = 0
    opens: dict[int, int] = field(default_factory=dict)  # inode -> registrations when last named
    gone: trio.Event | None = None  # the end of its connection; None: it has not come yet

    def may_be_using(self, inode: int) -> bool:
        if not self.registered:
            return True
        return inode in self.opens and (self.gone is None or not self.gone.is_set())


class LiveSessions:
    """The sessions as the leader sees them; every method takes `now`, seconds of boottime."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._live: dict[int, LiveSession] = {}

    def restart(self, sessions: Iterable[int], now: float) -> None:
        """Begin a leadership: all replicated sessions are given a whole time to live."""
        self._live = {session: LiveSession(now) for session in sessions}

    def begin(self, session: int, now: float) -> None:
        """A session that was just committed; it has nothing open yet."""
        self._live[session] = LiveSession(now, registered=True)

    def end(self, session: int) -> None:
        self._live.pop(session, None)

    def touch(self, session: int, now: float) -> LiveSession:
        """Note a sign of life. Raises Failure(NO_SESSION)."""
        live = self._live.get(session)
        if live is None:
            raise Failure(Code.NO_SESSION, f"session {session:#x} is not known or has expired")
        live.heard_at = now
        return live

    def register(self, session: int, inodes: Iterable[int], now: float) -> None:
        """All that the session has open."""
        live = self.touch(session, now)
        live.registrations += 1
        live.opens.update(dict.fromkeys(inodes, live.registrations))
        kept = live.registrations - 1
        live.opens = {inode: at for inode, at in live.opens.items() if at >= kept}
        live.registered = True

    def open(self, session: int, inode: int) -> None:
        """The session has the inode open; a session that just ended is no matter."""
        if session in self._live:
            self._live[session].opens[inode] = self._live[session].registrations

    def connected(self, session: int, closed: trio.Event) -> None:
        """The session has come on a connection that ends with that event."""
        if session in self._live:
            self._live[session].gone = closed

    def is_open_elsewhere(self, session: int, inode: int) -> bool:
        """Whether another session that lives has the inode open, as far as can be known.

        One whose connection has ended counts as dead here long before it expires, because a client
        that was killed is what this is asked for. One that a new leader has not heard of yet counts
        as living.
        """
        return any(
            other != session and live.may_be_using(inode) for other, live in self._live.items()
        )

    def release(self, session: int, inode: int) -> None:
        """The session's last handle of the inode is closed."""
        if session in self._live:
            self._live[session].opens.pop(inode, None)

    def expired(self, now: float) -> list[int]:
        """Sessions to be ended, oldest id first."""
        return sorted(s for s, live in self._live.items() if now - live.heard_at > self._ttl_s)

    def next_expiry(self, now: float) -> float:
        """Seconds until a session may expire; the time to live when there is none."""
        oldest = min((live.heard_at for live in self._live.values()), default=now)
        return max(0.0, oldest + self._ttl_s - now)

    def all_registered(self) -> bool:
        """Whether the open inodes of every session are known, so that orphans may be judged."""
        return all(live.registered for live in self._live.values())

    def is_open(self, inode: int) -> bool:
        return any(inode in live.opens for live in self._live.values())

    def __len__(self) -> int:
        return len(self._live)
