"""When this master may seek, grant and rely on leadership: stickiness, pre-vote, lease.

Three promises that hold each other up. *Stickiness* (H10): who heard a leader within the minimum
election timeout T grants no vote, nor does it for one T after a restart, when it cannot know.
*Pre-vote*: nobody raises its term before a majority has said that it would vote, so a master that
was away disturbs nobody. *Lease*: the leader stamps what it sends with its own boottime, followers
echo the newest stamp; a majority has heard the leader at the majority-th largest echo E, so nobody
else can be elected before E + T, and until E + 0.9 T (clocks drift) the leader may answer reads
by itself, once an entry of its own term is applied. A transfer breaks stickiness on purpose, so
the lease is given up for the rest of the term before one is sent.

Times: `boottime` for lease and stickiness, as it goes on while a machine sleeps; `monotonic` for
retries. Knows nothing of messages: `transport` brings and sends them.
"""

from __future__ import annotations

from collections.abc import Iterable

from dfs.config import Raft
from dfs.runtime import Env


class Stickiness:
    """Loyalty to a leader that was heard just now."""

    def __init__(self, env: Env, limits: Raft) -> None:
        self._clock, self._limits = env.clock, limits
        self._heard_at = env.clock.boottime()  # perhaps, before the restart

    def heard_leader(self) -> None:
        self._heard_at = self._clock.boottime()

    def holds(self) -> bool:
        return self.silence_s() < self._limits.election_timeout_min_s

    def silence_s(self) -> float:
        """For how long no leader has been heard."""
        return self._clock.boottime() - self._heard_at


class Lease:
    """The leader's right to answer reads from its own state."""

    def __init__(self, env: Env, limits: Raft) -> None:
        self._clock = env.clock
        self._length_s = limits.election_timeout_min_s * limits.lease_fraction
        self._echoes: dict[int, float] = {}
        self._given_up = True

    def begin(self) -> None:
        """A new leadership: nothing is known of it yet."""
        self._echoes.clear()
        self._given_up = False

    def give_up(self) -> None:
        """For the rest of this leadership."""
        self._given_up = True

    def echoed(self, peer: int, stamp: float) -> None:
        """The peer has heard what this leader sent at `stamp`."""
        self._echoes[peer] = max(self._echoes.get(peer, 0.0), stamp)

    def valid(self, others: Iterable[int]) -> bool:
        """Whether it holds now, with those other members."""
        if self._given_up:
            return False
        stamps = sorted((self._echoes.get(peer, 0.0) for peer in others), reverse=True)
        needed = (len(stamps) + 1) // 2  # with the leader itself a majority
        if needed == 0:
            return True
        stamp = stamps[needed - 1]
        return stamp > 0 and self._clock.boottime() < stamp + self._length_s


class PreVote:
    """Asking whether an election would be won, before holding it."""

    def __init__(self, env: Env, limits: Raft) -> None:
        self._env, self._limits = env, limits
        self._term = 0
        self._supporters: dict[int, None] = {}
        self._forced_until = 0.0
        self.retry_at = 0.0

    def due(self) -> bool:
        """Whether it is time to ask (again)."""
        return self._env.clock.monotonic() >= self.retry_at

    def postpone(self) -> None:
        """Ask again after about one heartbeat, not in step with the others."""
        wait_s = self._limits.heartbeat_s * self._env.random.uniform(0.5, 1.5)
        self.retry_at = self._env.clock.monotonic() + wait_s

    def begin(self, term: int) -> None:
        """Ask for that term."""
        self._term, self._supporters = term, {}
        self.postpone()

    def supported(self, peer: int, term: int) -> None:
        if term == self._term:
            self._supporters[peer] = None

    def cancel(self) -> None:
        """A leader is there after all."""
        self._term, self._supporters = 0, {}

    def won(self, term: int, others: int) -> bool:
        """Whether a majority of `others` and this one would vote for it in that term."""
        if others == 0:
            return True
        return term == self._term and 2 * (len(self._supporters) + 1) > others + 1

    def force(self) -> None:
        """The leader asked this master to take over: no questions for the next heartbeat."""
        self._forced_until = self._env.clock.monotonic() + self._limits.heartbeat_s

    def forced(self) -> bool:
        return self._env.clock.monotonic() < self._forced_until
