"""The way to the leading master: which one it is, and asking again until it answers.

Owns the guess at the leader's address. A request goes to that address; NOT_LEADER names a better
one, silence or a lost connection moves on to the next master that is known, with jittered waits
in between, until `limits.retry_for_s` are over. So an election shows as a stall.

Whoever holds volatile state at the leader (open inodes) gives `introduce`: it runs on each new
connection to a leader before any other request goes there, and again whenever a master said that
it does not lead, since a leader that comes back begins with an empty memory.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from dfs.client.meter import ClientMeter
from dfs.config import ClientLimits, Rpc
from dfs.errors import Code, Failure
from dfs.known_masters import KnownMasters
from dfs.messages.cluster import GetMasters, Masters
from dfs.rpc import Connection, Pool
from dfs.rpc.retry import Backoff
from dfs.runtime import Env

log = logging.getLogger(__name__)

A = TypeVar("A")

# What an attempt may have left applied at a master although no answer came.
AMBIGUOUS = frozenset({Code.OUTCOME_UNKNOWN, Code.CONNECTION_LOST, Code.TIMEOUT})


@dataclass(slots=True)
class Attempts:
    """What became of the attempts of one call, for callers to whom a doubtful one matters."""

    doubtful: int = 0


class Leader:
    """Asks the leader. One per client; calls may run at the same time."""

    def __init__(
        self,
        env: Env,
        pool: Pool,
        masters: tuple[str, ...],
        limits: ClientLimits,
        rpc: Rpc,
        meter: ClientMeter,
    ) -> None:
        self._env, self._pool, self._limits, self._meter = env, pool, limits, meter
        self._masters = KnownMasters(tuple(env.random.shuffled(list(masters))))
        self._rpc = rpc
        self._address = self._masters.all[0]
        self._introduced_on: Connection | None = None
        self._introducing = trio.Lock()
        self._answered = trio.Event()
        self.introduce: Callable[[Connection], Awaitable[None]] | None = None

    @property
    def address(self) -> str:
        """Where the leader is believed to be."""
        return self._address

    async def call(self, message: object, answer: type[A]) -> A:
        """The leader's answer. Raises its Failure, or the last one when time is up (EIO)."""
        return await self.ask(lambda: message, answer)

    async def ask(
        self,
        make: Callable[[], object],
        answer: type[A],
        *,
        attempts: Attempts | None = None,
        retry_for_s: float | None = None,
    ) -> A:
        """As `call`, with the message made anew for each attempt, after the introduction."""

        async def send(connection: Connection) -> object:
            timeout_s = self._limits.metadata_timeout_s
            return (await connection.call(make(), timeout_s=timeout_s)).message

        received = await self._retry(send, attempts or Attempts(), retry_for_s)
        if not isinstance(received, answer):
            text = f"{self._address} answered {type(received).__name__}, not {answer.__name__}"
            raise Failure(Code.BAD_MESSAGE, text)
        return received

    async def learn_masters(self) -> None:
        """Ask who the masters are now, for the day when those known so far are gone."""
        told = await self.call(GetMasters(), Masters)
        if self._masters.learn(told.addresses):
            log.info("%s: the masters are %s", self._env.name, ", ".join(told.addresses))

    async def ready(self) -> None:
        """Return when a leader has been introduced to."""

        async def nothing(_: Connection) -> None:
            return None

        await self._retry(nothing, Attempts(), None)

    async def _retry(
        self,
        send: Callable[[Connection], Awaitable[object]],
        attempts: Attempts,
        retry_for_s: float | None,
    ) -> object:
        patience_s = self._limits.retry_for_s if retry_for_s is None else retry_for_s
        give_up_at = self._env.clock.monotonic() + patience_s
        backoff, redirected = Backoff(self._env, self._rpc), False
        while True:
            address = self._address
            try:
                connection = await self._introduced(address)
                if connection is None:
                    continue
                answer = await send(connection)
                self._answered.set()
                self._meter.unanswered_since = None
                return answer
            except Failure as failure:
                if not failure.retryable:
                    raise
                self._note_failure()
                attempts.doubtful += failure.code in AMBIGUOUS
                if self._env.clock.monotonic() >= give_up_at:
                    raise _gave_up(patience_s, failure) from failure
                # One redirection is followed at once; two masters naming each other are not.
                redirected = self._follow(address, failure) and not redirected
            if not redirected:
                await self._wait(backoff)

    def _note_failure(self) -> None:
        self._meter.master_retries += 1
        if self._meter.unanswered_since is None:
            self._meter.unanswered_since = self._env.clock.monotonic()

    async def _wait(self, backoff: Backoff) -> None:
        """Until the next attempt makes sense: some time, or until another call has an answer.

        Elections are short, so the wait does not grow as long as it might.
        """
        if self._answered.is_set():
            self._answered = trio.Event()
        wait_s = min(backoff.next_s(), self._limits.leader_search_s)
        await self._env.clock.wait(self._answered, wait_s)

    def notify(self, message: object) -> bool:
        """Send a notice to the leader if it is connected; whether it was sent."""
        connection = self._introduced_on
        return connection is not None and connection.notify(message)

    def forget_introduction(self) -> None:
        """Have `introduce` run again before the next request."""
        self._introduced_on = None

    async def _introduced(self, address: str) -> Connection | None:
        """The connection; None when another call has found out that this is not the way."""
        connection = await self._pool.get(address)
        if connection is not self._introduced_on and not await self._introduce(connection, address):
            return None
        return connection

    async def _introduce(self, connection: Connection, address: str) -> bool:
        async with self._introducing:
            if connection is self._introduced_on:
                return True
            if self._address != address:
                return False  # who waited here must not wait for the same silence once more
            if self.introduce is not None:
                await self.introduce(connection)
            self._introduced_on = connection
            log.info("%s: the leading master is %s", self._env.name, connection.peer.address)
            return True

    def _follow(self, asked: str, failure: Failure) -> bool:
        """Where to ask next after `asked` failed; whether that may be done at once."""
        if failure.code in (Code.OVERLOADED, Code.OUTCOME_UNKNOWN):
            return False
        if failure.code is Code.NOT_LEADER:
            self._introduced_on = None
        if self._address != asked:
            return False  # another call has moved on meanwhile
        if failure.detail and failure.code is Code.NOT_LEADER and failure.detail != asked:
            log.debug("%s: the leader is %s, says %s", self._env.name, failure.detail, asked)
            self._address = failure.detail
            return True
        self._address = self._masters.after(asked)
        log.debug("%s: %s does not lead: %s", self._env.name, asked, failure.message)
        return False


def _gave_up(patience_s: float, last: Failure) -> Failure:
    text = f"no leader answered for {patience_s:.0f} s: {last.message}"
    return Failure(last.code, text, errno=errno.EIO, detail=last.detail)
