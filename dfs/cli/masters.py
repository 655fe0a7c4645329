"""Asking the masters one by one, without a leader: what status commands do.

Unlike the client library, which looks for the leader and retries, every master is asked once, all
at the same time, so that a cluster without a majority still tells how it is.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from dfs import config
from dfs.errors import Code, Failure, first_failure
from dfs.messages.cluster import (
    ClusterStatus,
    GetClusterStatus,
    GetRepairStatus,
    GetStateDigest,
    RepairStatus,
)
from dfs.rpc import Connection, Endpoint, Identity, connect
from dfs.runtime import Env


@dataclass(frozen=True)
class Answer:
    """What one master said; `status` is None when it could not be asked, `problem` says why.

    `repair` is the leader's alone; None when it was not asked or, as `repair_problem` says then,
    could not tell.
    """

    address: str
    status: ClusterStatus | None
    problem: str = ""
    repair: RepairStatus | None = None
    repair_problem: str = ""

    @property
    def leads(self) -> bool:
        """Whether this master says that it is the leader itself."""
        return self.status is not None and self.status.leader == self.status.master


@dataclass(frozen=True)
class _Asked:
    """What is asked of each master, and for how long it is waited for."""

    timeout_s: float
    digest: bool
    repair: bool


async def ask_all(
    env: Env,
    settings: config.Client,
    timeout_s: float,
    *,
    digest: bool = False,
    repair: bool = False,
) -> list[Answer]:
    """Ask every master of the configuration; answers in its order. Raises Failure(CONFIG).

    With `repair` whoever leads is asked about that too.
    """
    key = config.load_key(settings.key_file)
    endpoint = Endpoint(env, key, Identity("cli", os.getpid(), ""), settings.rpc)
    asked = _Asked(timeout_s, digest, repair)
    answers: dict[str, Answer] = {}

    async def ask(address: str) -> None:
        answers[address] = await _ask(endpoint, address, asked)

    async with trio.open_nursery() as nursery:
        for address in settings.masters:
            nursery.start_soon(ask, address)
    return [answers[address] for address in settings.masters]


async def _ask(endpoint: Endpoint, address: str, asked: _Asked) -> Answer:
    message = GetStateDigest() if asked.digest else GetClusterStatus()
    try:
        async with trio.open_nursery() as nursery:
            connection = await connect(endpoint, address, nursery)
            received = await connection.call(message, timeout_s=asked.timeout_s)
            answer = Answer(address, received.message)
            if asked.repair and answer.leads:
                answer = await _with_repair(connection, answer, asked.timeout_s)
            connection.close()
            nursery.cancel_scope.cancel()
            return answer
    except* Failure as group:
        problem = first_failure(group)
    return Answer(address, None, problem.message)


async def _with_repair(connection: Connection, answer: Answer, timeout_s: float) -> Answer:
    """The answer with what the leader tells about repair. One that cannot tell is still good."""
    try:
        received = await connection.call(GetRepairStatus(), timeout_s=timeout_s)
    except Failure as failure:
        old = failure.code is Code.BAD_MESSAGE
        problem = "it is of an older version" if old else failure.message
        return dataclasses.replace(answer, repair_problem=problem)
    return dataclasses.replace(answer, repair=received.message)


def leader_among(answers: Iterable[Answer]) -> Answer | None:
    """The one that leads: of several who say so, that of the highest term."""
    leading = [answer for answer in answers if answer.leads]
    return max(leading, key=lambda a: a.status.term if a.status else 0, default=None)


def best_view(answers: Iterable[Answer]) -> ClusterStatus | None:
    """Whose word holds about the group: the leader's, else that of who has applied the most."""
    answers = list(answers)
    leader = leader_among(answers)
    if leader is not None:
        return leader.status
    told = [answer.status for answer in answers if answer.status is not None]
    return max(told, key=lambda status: status.applied_index, default=None)


def is_member(status: ClusterStatus, view: ClusterStatus | None) -> bool:
    """Whether the master that answered so belongs to the group, as `best_view` has it.

    One that was removed, or is yet to be added, may run and answer all the same.
    """
    return any(master.id == status.master for master in (view or status).masters)
