"""Asking the masters one by one, without a leader: what status commands do.

Unlike the client library, which looks for the leader and retries, every master is asked once, all
at the same time, so that a cluster without a majority still tells how it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from dfs import config
from dfs.errors import Failure, first_failure
from dfs.messages.cluster import ClusterStatus, GetClusterStatus, GetStateDigest
from dfs.rpc import Endpoint, Identity, connect
from dfs.runtime import Env


@dataclass(frozen=True)
class Answer:
    """What one master said; `status` is None when it could not be asked, `problem` says why."""

    address: str
    status: ClusterStatus | None
    problem: str = ""

    @property
    def leads(self) -> bool:
        """Whether this master says that it is the leader itself."""
        return self.status is not None and self.status.leader == self.status.master


async def ask_all(
    env: Env, settings: config.Client, timeout_s: float, *, digest: bool = False
) -> list[Answer]:
    """Ask every master of the configuration; answers in its order. Raises Failure(CONFIG)."""
    key = config.load_key(settings.key_file)
    endpoint = Endpoint(env, key, Identity("cli", os.getpid(), ""), settings.rpc)
    answers: dict[str, Answer] = {}

    async def ask(address: str) -> None:
        answers[address] = await _ask(endpoint, address, timeout_s, digest)

    async with trio.open_nursery() as nursery:
        for address in settings.masters:
            nursery.start_soon(ask, address)
    return [answers[address] for address in settings.masters]


async def _ask(endpoint: Endpoint, address: str, timeout_s: float, digest: bool) -> Answer:
    message = GetStateDigest() if digest else GetClusterStatus()
    try:
        async with trio.open_nursery() as nursery:
            connection = await connect(endpoint, address, nursery)
            received = await connection.call(message, timeout_s=timeout_s)
            connection.close()
            nursery.cancel_scope.cancel()
            status: ClusterStatus = received.message
            return Answer(address, status)
    except* Failure as group:
        problem = first_failure(group)
    return Answer(address, None, problem.message)


def leader_among(answers: Iterable[Answer]) -> Answer | None:
    """The one that leads: of several who say so, that of the highest term."""
    leading = [answer for answer in answers if answer.leads]
    return max(leading, key=lambda a: a.status.term if a.status else 0, default=None)
