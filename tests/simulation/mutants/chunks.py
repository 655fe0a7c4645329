"""Broken chunkservers, and broken decisions about replicas: chains, syncs, versions, settling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chunkserver import chain, reopening, settling
from chunkserver.fencing import Fencing
from chunkserver.service import Service
from chunkserver.store import Entry
from chunkserver.syncing import Syncing
from dfs.messages.chunks import EndSettling
from master import settle_plan
from master.settle_plan import Member
from tests.simulation.mutants.kinds import mutant
from tests.simulation.taps import Taps

CHAINS = ("cut_chain", "kill_chunkserver", "isolate_chunkserver")
DEATHS = ("kill_client", "cut_chain", "kill_chunkserver")
POWER = ("power_chunkserver", "power_chunkserver_at_sync")


async def _nothing(*_: Any, **__: Any) -> None: ...


@mutant("blocks", "chunks.ack", seeds=2)
def sync_nothing(taps: Taps) -> None:
    """A chunkserver says that it has synced, and has not."""
    taps.replace(Syncing, "sync", _nothing)


@mutant("blocks", "chunks.ack", seeds=2)
def acknowledge_before_the_tail(taps: Taps) -> None:
    """A link answers when it has the data itself, and sends it on in vain."""

    async def alone(self: Service, message: Any, payload: Any, here: Any, arrived: float) -> None:
        await here.run()

    taps.replace(Service, "_here_and_there", alone)


@mutant("streams", "chunks.", "reads", "files", "replicas", seeds=10, faults=CHAINS)
def serve_any_version(taps: Taps) -> None:
    """Reads and writes are served whatever version they name."""
    taps.replace(chain, "check_version", lambda handle, wanted, stamp: None)


@mutant("logs", "replicas", "chunks.", "logs", "repair converges", seeds=10, faults=DEATHS)
def settle_without_comparison(taps: Taps) -> None:
    """After a change of the set nothing of what was recently written is compared."""

    async def serve(original: Any, self: Fencing, entry: Entry, message: EndSettling) -> None:
        length, digest = await self._store.run(entry, lambda r: (r.length_bytes, r.digest()))
        await original(self, entry, replace(message, length_bytes=length, digest=digest))

    taps.replace(settling, "missing", lambda own, peer: [])
    taps.around(Fencing, "_serve", serve)


@mutant("blocks", "reads", "chunks.", "no error", seeds=3, faults=POWER)
def settle_from_a_loser(taps: Taps) -> None:
    """A replica that lost power before a sync is the one that the others are made equal to."""

    def badness(member: Member) -> tuple[object, ...]:
        return (not original(member)[0], *original(member)[1:])

    original = settle_plan._badness
    taps.replace(settle_plan, "_badness", badness)


@mutant("streams", "chunks.torn", seeds=10, faults=POWER)
def leave_torn_blocks(taps: Taps) -> None:
    """A block that a crash tore is not told from a damaged one."""
    taps.replace(reopening, "_settle_block", lambda replica, block: False)
