"""What workloads share: their pace, and which errors a client may be told."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dfs.client import Client
from dfs.errors import Code, Failure
from dfs.messages.common import ROOT, Attributes
from dfs.messages.operations import MakeDirectory
from master.state import queries
from tests.simulation.history import Op
from tests.simulation.stage import Stage

EXPIRES_S = 15.0  # sessions that live shorter than this may expire while a fault lasts
CLEAN_S, BITE_S = 90.0, 2.0
ORPHANS_MAX = 10_000


def sessions_expire(stage: Stage) -> bool:
    """Whether a client may lose its session, and what it had in doubt with it."""
    return stage.plan.knobs.session_ttl_s < EXPIRES_S


def loses_power(stage: Stage) -> bool:
    """Whether all chunkservers may lose their power at once, and with it what was not synced."""
    return any(strike.kind in ("blackout", "brownout") for strike in stage.plan.strikes)


async def pace(stage: Stage, chance: Any, per_second: float) -> None:
    """Wait between two operations."""
    await stage.world.clock.sleep(chance.expovariate(per_second))


async def make_directory(client: Client, parent: int, name: bytes) -> int:
    made = await client.perform(MakeDirectory(parent, name, 0o755, ROOT))
    assert isinstance(made, Attributes)
    return made.inode


async def until_clean(stage: Stage) -> None:
    """Wait until all that nobody needs is gone, as long as the masters take it in small bites.

    A bite of orphans ripens for a second; what dead clients had open waits for their sessions' end.
    """
    await stage.cluster.until_leader()
    count = len(queries.orphans(stage.cluster.leading().tables, ORPHANS_MAX))
    bites = count / stage.plan.knobs.reap_batch
    await stage.cluster.until_clean(CLEAN_S + stage.plan.knobs.session_ttl_s + BITE_S * bites)


@asynccontextmanager
async def recorded(
    stage: Stage, client: str, action: str, *arguments: Any, judged: bool = False
) -> AsyncIterator[Op]:
    """One operation of the history; errors that no client may be told fail the run.

    `judged`: the file system's own answers (ENOENT, ...) are for the caller to judge, or for a
    checker; otherwise there is no reason for any. Where sessions expire
    an operation in doubt ends with ESTALE, where all lose power one with EIO, where a server is
    full one with ENOSPC; its outcome is open.
    """
    try:
        with stage.history.op(client, action, *arguments) as op:
            yield op
    except Failure as failure:
        if not (_is_due(stage, failure) if op.is_open else judged):
            stage.broken("no error reaches a client", f"{op}: {failure!r}", [op])
        stage.reach[f"answer.{failure.code.name.lower()}"] += 1


def _is_due(stage: Stage, failure: Failure) -> bool:
    """Whether a client is rightly told of it."""
    if failure.code is Code.NO_SESSION:
        return sessions_expire(stage)
    if failure.errno == errno.ENOSPC and failure.code is Code.DISK:
        # A new chunk may have two replicas for a while, neither of which is given up.
        return any(strike.kind == "full_chunkserver_disk" for strike in stage.plan.strikes)
    return failure.code is Code.DISK and loses_power(stage)
