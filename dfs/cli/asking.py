"""Asking the chunkservers themselves, one by one: what the master has no part in.

Their addresses come from the leader, or from any master while none leads. Each is asked once, all
at the same time; one that cannot be asked has an answer that says why.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from dfs import config
from dfs.cli.masters import ask_all, leader_among
from dfs.errors import Code, Failure, first_failure
from dfs.messages.cluster import ServerStatus
from dfs.rpc import Connection, Endpoint, Identity, connect
from dfs.runtime import Env

T = TypeVar("T")


@dataclass(frozen=True)
class Told(Generic[T]):
    """What one chunkserver said; None when it could not be asked, `problem` says why."""

    server: int
    address: str
    answer: T | None
    problem: str = ""


async def ask_servers(
    env: Env,
    settings: config.Client,
    timeout_s: float,
    server: int | None,
    ask: Callable[[Connection], Awaitable[T]],
) -> list[Told[T]]:
    """Have `ask` talk to each chunkserver, or to that one; by id. Raises Failure."""
    servers = await _servers(env, settings, timeout_s, server)
    endpoint = Endpoint(
        env,
        config.load_key(settings.key_file),
        Identity("cli", os.getpid(), ""),
        settings.rpc,
    )
    told: dict[int, Told[T]] = {}

    async def one(asked: ServerStatus) -> None:
        told[asked.id] = await _ask(endpoint, asked, timeout_s, ask)

    async with trio.open_nursery() as nursery:
        for each in servers:
            nursery.start_soon(one, each)
    return [told[each.id] for each in servers]


async def _servers(
    env: Env, settings: config.Client, timeout_s: float, server: int | None
) -> list[ServerStatus]:
    answers = await ask_all(env, settings, timeout_s)
    known = [answer for answer in answers if answer.status is not None]
    best = leader_among(answers) or (known[0] if known else None)
    if best is None or best.status is None:
        problems = "; ".join(f"{a.address}: {a.problem}" for a in answers)
        raise Failure(Code.UNAVAILABLE, f"no master can be asked: {problems}")
    servers = sorted(best.status.servers, key=lambda s: s.id)
    found = [s for s in servers if server is None or s.id == server]
    if server is not None and not found:
        raise Failure(Code.CONFIG, f"the cluster knows no chunkserver {server}")
    return found


async def _ask(
    endpoint: Endpoint,
    server: ServerStatus,
    timeout_s: float,
    ask: Callable[[Connection], Awaitable[T]],
) -> Told[T]:
    problem = "no answer in time"
    try:
        async with trio.open_nursery() as nursery:
            with endpoint.env.clock.move_on_after(timeout_s):
                connection = await connect(endpoint, server.address, nursery)
                answer = await ask(connection)
                nursery.cancel_scope.cancel()
                return Told(server.id, server.address, answer)
            nursery.cancel_scope.cancel()
    except* Failure as group:
        problem = first_failure(group).message
    return Told(server.id, server.address, None, problem)
