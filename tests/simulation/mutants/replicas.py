"""More broken chunkservers: order, intents, fences, damage; and what masters believe of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from chunkserver import format as layout
from chunkserver.chain import Turn, Turns
from chunkserver.headers import Headers
from chunkserver.quarantine import Quarantine
from chunkserver.replica import Replica
from chunkserver.syncing import Syncing
from dfs.client import chunk_read
from dfs.client.chunk_write import ChunkWriter
from dfs.messages.metadata import ChunkLocation
from dfs.runtime.current import current_env
from master import reports
from master.commands import ReplicaChange
from master.deletions import Deletions
from master.settling import Entry, Settling
from master.state import replicas
from master.state.transaction import Transaction
from tests.simulation.mutants.kinds import mutant
from tests.simulation.taps import Taps

CHAINS = ("cut_chain", "kill_chunkserver")
POWER = ("power_chunkserver", "power_chunkserver_at_sync")


@mutant("blocks", "chunks.", "replicas", "reads", seeds=5)
def wait_for_no_turn(taps: Taps) -> None:
    """Requests for a chunk overtake each other."""

    async def wait(self: Turn) -> None: ...

    taps.replace(Turn, "wait", wait)
    taps.replace(Turns, "busy", lambda self, handle: False)


@mutant("blocks", "chunks.primary", seeds=1, seconds=10.0)
def choose_ones_own_primary(taps: Taps) -> None:
    """Each client has an order of its own in which it writes to a chunk's replicas."""

    async def attempt(original: Any, self: ChunkWriter, location: ChunkLocation, send: Any) -> Any:
        if current_env.get().name.endswith(("1", "3")):
            replicas = tuple(reversed(location.replicas))
            location = dataclasses.replace(location, replicas=replicas)
        return await original(self, location, send)

    taps.around(ChunkWriter, "_attempt", attempt)


@mutant(
    "logs",
    "chunks.",
    "repair",
    "replicas",
    "logs",
    seeds=5,
    faults=("kill_chunkserver", "isolate_chunkserver", *POWER),
)
def believe_every_report(taps: Taps) -> None:
    """A replica that a returning server reports counts as current, whatever its version."""
    taps.replace(reports, "_in_order", lambda replica, chunk: True)


@mutant("trees", "chunks.quarantine", seeds=4, faults=("rot",))
def throw_damage_away(taps: Taps) -> None:
    """What is set aside as damaged is deleted."""

    def add_replica(self: Quarantine, path: str, handle: int, why: str) -> None:
        self._env.disk.unlink(path)

    taps.replace(Quarantine, "add_replica", add_replica)


@mutant("blocks", "chunks.ahead", seeds=1, faults=CHAINS)
def settle_at_a_version_of_ones_own(taps: Taps) -> None:
    """The leader orders the next version of a chunk without having it committed."""

    async def raised(self: Settling, entry: Entry, change: ReplicaChange) -> bool:
        entry.unserved, entry.source = change.version + 1, None
        return True

    taps.replace(Settling, "_raise", raised)


@mutant("blocks", "chunks.deleted", seeds=1, faults=CHAINS)
def delete_what_is_referenced(taps: Taps) -> None:
    """When a chunk's set changes, a replica that stays is noted for deletion as well."""

    def change(transaction: Transaction, inode: int, index: int, chunk: Any, servers: Any) -> None:
        original(transaction, inode, index, chunk, servers)
        replicas.note_deletion(transaction, servers[0], chunk.handle)

    original = replicas._change
    taps.replace(replicas, "_change", change)
    taps.replace(Deletions, "_may_join_again", lambda self, handle: False)


@mutant("blocks", "chunks.doubt", seeds=4, faults=("kill_chunkserver", *POWER))
def believe_after_a_stop(taps: Taps) -> None:
    """What a chunkserver finds after a crash counts as if it had been stopped in order."""
    taps.replace(layout, "state_after_stop", lambda header, boot: header.state)


@mutant("blocks", "chunks.intent", seeds=3)
def announce_nothing(taps: Taps) -> None:
    """The header does not say which blocks are about to change (replicas soon come to rest)."""

    def init(original: Callable[..., None], self: Syncing, *arguments: Any) -> None:
        original(self, *arguments)
        self._rest_after_s = 1.0

    taps.replace(Headers, "announce", lambda self, needed, *, appends: None)
    taps.around(Syncing, "__init__", init)


@mutant("logs", "logs hold", seeds=3, seconds=60.0, faults=("rot",))
def read_unverified(taps: Taps) -> None:
    """Nobody compares what is read with its checksum."""
    taps.replace(chunk_read, "verify", lambda *arguments: None)
    taps.replace(Replica, "_edge", lambda *arguments: None)
