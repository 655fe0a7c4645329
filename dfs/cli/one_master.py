"""A conversation with one master, whichever it is: for what is that master's own.

Unlike the client library it begins no session, looks for no leader and repeats nothing, so that it
works with a master that does not lead.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from dfs import config
from dfs.cli.masters import Answer, ask_all, leader_among
from dfs.errors import Code, Failure, first_failure
from dfs.rpc import Connection, Endpoint, Identity, connect
from dfs.runtime import Env

R = TypeVar("R")


async def leader_or_newest(env: Env, settings: config.Client, timeout_s: float) -> str:
    """The leader's address; without one, that of the master that has applied most.

    Raises Failure(UNAVAILABLE) when no master answers.
    """
    answers = await ask_all(env, settings, timeout_s)
    leader = leader_among(answers)
    if leader is not None:
        return leader.address
    there = [answer for answer in answers if answer.status is not None]
    if not there:
        problems = "; ".join(f"{answer.address}: {answer.problem}" for answer in answers)
        raise Failure(Code.UNAVAILABLE, f"no master answers: {problems}")
    return max(there, key=_applied).address


def _applied(answer: Answer) -> int:
    return answer.status.applied_index if answer.status is not None else 0


async def conversing(
    env: Env,
    settings: config.Client,
    address: str,
    talk: Callable[[Connection], Awaitable[R]],
) -> R:
    """What `talk` returns, over a connection to that master. Raises the first Failure."""
    try:
        async with _connected(env, settings, address) as connection:
            return await talk(connection)
    except* Failure as group:
        failure = first_failure(group)
    raise failure


@asynccontextmanager
async def _connected(env: Env, settings: config.Client, address: str) -> AsyncIterator[Connection]:
    key = config.load_key(settings.key_file)
    endpoint = Endpoint(env, key, Identity("cli", os.getpid(), ""), settings.rpc)
    async with trio.open_nursery() as nursery:
        connection = await connect(endpoint, address, nursery)
        yield connection
        connection.close()
        nursery.cancel_scope.cancel()
