"""A cluster of Raft nodes in the simulated world, and monitors that watch it from inside.

The monitors see what no end state shows: an acknowledgement or a vote that leaves before what it
asserts is on disk, two votes or two leaders in a term, an entry counted that the follower has lost,
an entry applied that no majority has on disk, masters that apply different things at the same
index, two leases at a time. Each raises at once, in the node that broke the rule.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import trio
import xxhash

from dfs.config import Master, Raft, Rpc
from dfs.errors import Failure
from dfs.rpc import Endpoint, Identity, serve
from dfs.runtime.sim import SimEnv, World
from master.raft import RaftNode, formats
from master.raft.core import Core
from master.raft.formats import Entry, Message
from master.raft.transport import PeerTransport
from master.store import JOURNAL, META, Store
from master.tables import STATE_TABLES
from tests.master.raft.ledger import Add, Ledger, Sum

T = TypeVar("T")

KEY = b"the key of a simulated cluster"
STATE_FILE = "/data/state.mdb"


class Broken(AssertionError):
    """A monitor has seen a rule broken."""


class Monitors:
    """What is known of all nodes over all their lives."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._votes: dict[tuple[str, int], int] = {}
        self._leaders: dict[int, int] = {}
        self._applied: dict[int, bytes] = {}
        self.wiped: list[int] = []  # whose disks the test took away
        self.seen: Counter[str] = Counter()  # reach: what happened at all

    def durable(self, name: str, table: str, key: bytes) -> bytes | None:
        """What is on that node's disk, dead or alive."""
        media = self._world.disk(name)
        store = media.inode(STATE_FILE).store if media.exists(STATE_FILE) else None
        if store is None:
            return None
        value: bytes | None = store.tables[table].get(key)
        return value

    def leaves(self, name: str, core: Core, message: Message) -> None:
        """A message goes out."""
        kind = message["type"]
        self.seen[kind] += 1
        if kind == "next_node_idx" and message["success"]:
            self._check_entry(name, core, message["next_node_idx"] - 1)
        elif kind in ("request_vote", "response_vote"):
            self._check_vote(name, message["term"])

    def _check_entry(self, name: str, core: Core, index: int) -> None:
        entry = core.journal.entry(index)
        value = self.durable(name, JOURNAL, formats.pack_u64(index))
        if entry is not None and value != formats.pack_entry(entry)[1]:
            raise Broken(f"{name} acknowledges {index} before it is on disk")

    def _check_vote(self, name: str, term: int) -> None:
        value = self.durable(name, META, b"term")
        stored, vote = formats.unpack_vote(value) if value else (0, None)
        if stored < term or (stored == term and vote is None):
            raise Broken(f"{name} votes in {term}, on disk are {stored}, {vote}")
        if stored == term and vote is not None:
            first = self._votes.setdefault((name, term), vote)
            if first != vote:
                raise Broken(f"{name} votes for {first} and {vote} in term {term}")

    def leads(self, id: int, term: int) -> None:
        self.seen["elected"] += 1
        if self._leaders.setdefault(term, id) != id:
            raise Broken(f"{id} and {self._leaders[term]} lead in term {term}")

    def applies(self, core: Core, entry: Entry) -> None:
        command, index, term = entry
        digest = xxhash.xxh3_128_digest(command + b"%d" % term)
        if self._applied.setdefault(index, digest) != digest:
            raise Broken(f"{core.id} applies another entry {index} than others did")
        if core.is_leader():
            self._check_majority(core, entry)

    def counts(self, core: Core) -> None:
        """A leader is about to count what its followers have: they must have it."""
        for id in core.membership.present:
            entry = core.journal.entry(core.match_index(id))
            if id == core.id or id in self.wiped or entry is None:
                continue
            key, value = formats.pack_entry(entry)
            durable = self.durable(name_of(id), JOURNAL, key)
            applied = self.durable(name_of(id), META, b"applied") or bytes(8)
            if durable != value and formats.unpack_u64(applied) < entry[1]:
                raise Broken(f"{core.id} counts {entry[1]} of master {id}, which lacks it")

    def _check_majority(self, core: Core, entry: Entry) -> None:
        key, value = formats.pack_entry(entry)
        members = core.membership.present
        have = sum(self.durable(name_of(id), JOURNAL, key) == value for id in members)
        if len(members) > 1 and 2 * have <= len(members):
            raise Broken(f"{core.id} applies {entry[1]}, on disk at {have} of {len(members)}")


class WatchedTransport(PeerTransport):
    monitors: Monitors

    def post(self, peer: int, message: Message) -> bool:
        self.monitors.leaves(self._core.env.name, self._core, message)
        return super().post(peer, message)


class WatchedCore(Core):
    monitors: Monitors

    def tick(self) -> None:
        if self.is_leader():
            self.monitors.counts(self)
        super().tick()

    def _state_changed(self, old: int, new: int) -> None:
        if new == 2:
            self.monitors.leads(self.id, self.raftCurrentTerm)
        super()._state_changed(old, new)

    def _apply(self, entry: Entry) -> None:
        self.monitors.applies(self, entry)
        super()._apply(entry)


def name_of(id: int) -> str:
    return f"master-{id}"


def address_of(id: int) -> str:
    return f"{name_of(id)}:7000"


# Flushes always leave the event loop, so that everything happens during them that can.
LIMITS = Raft(inline_flush_below_s=0.0, compact_entries=400, keep_entries=200)


class Cluster:
    """Masters `ids` of one cluster; others may be started besides."""

    node_class: type[RaftNode] = RaftNode
    core_class: type[WatchedCore] = WatchedCore
    transport_class: type[WatchedTransport] = WatchedTransport

    def __init__(self, seed: int, count: int = 3, limits: Raft = LIMITS) -> None:
        self.world = World(seed)
        self.limits = limits
        self.ids = list(range(1, count + 1))
        self.founders = tuple(self.ids)
        self.nodes: dict[int, RaftNode] = {}
        self.ledgers: dict[int, Ledger] = {}
        self.stores: dict[int, Store] = {}
        self.envs: dict[int, SimEnv] = {}  # of the incarnation that the node belongs to
        self.monitors = Monitors(self.world)
        watched = {"monitors": self.monitors}
        transport = type("Transport", (self.transport_class,), watched)
        core = type("Core", (self.core_class,), {**watched, "transport_class": transport})
        self._node = type("Node", (self.node_class,), {"core_class": core})

    def run(self, main: Callable[[], Awaitable[T]], *, limit_s: float = 600.0) -> T:
        """Run the test; no node may have ended by itself."""
        result = self.world.run(main, limit_s=limit_s)
        fatal = [ending for ending in self.world.endings if ending[1].startswith("fatal")]
        assert not fatal, fatal
        return result

    # -- nodes

    async def start(self, *ids: int) -> None:
        for id in ids or self.ids:
            await self.world.start(name_of(id), partial(self._main, id))

    async def _main(
        self,
        id: int,
        env: SimEnv,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        env.disk.make_directory("/data")
        endpoint = Endpoint(env, KEY, Identity("master", id, address_of(id)), Rpc())
        store = self.stores[id] = Store.open(env, STATE_FILE, self.limits)
        ledger = self.ledgers[id] = Ledger(store)
        node = self._node(env, endpoint, self._config(id), store, ledger)
        self.nodes[id], self.envs[id] = node, env
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, endpoint, address_of(id), node.handlers()))
            await nursery.start(node.run)
            task_status.started()

    def _config(self, id: int) -> Master:
        masters = {str(i): address_of(i) for i in self.founders}
        return Master("test", id, address_of(id), "/data", "", masters, raft=self.limits)

    def crash(self, id: int) -> None:
        self.world.crash(name_of(id))

    def wipe(self, id: int) -> None:
        """Replace the disk of a crashed master by an empty one."""
        self.world.disk(name_of(id)).wipe()
        self.monitors.wiped.append(id)

    async def restart(self, id: int) -> None:
        """Start it again; its node is there when this returns, or has ended already."""
        env = self.world.restart(name_of(id))
        await self.until(lambda: self.envs.get(id) is env or env.dead)

    async def ends(self, id: int) -> str:
        """Wait for that master to end by itself; its reason."""
        await self.until(lambda: not self.world.is_alive(name_of(id)))
        ((_, reason),) = [e for e in self.world.endings if e[1].startswith("fatal")]
        self.world.endings.clear()
        return reason

    def alive(self) -> list[int]:
        return [id for id in sorted(self.nodes) if not self.envs[id].dead]

    # -- waiting

    async def until(self, condition: Callable[[], bool], within_s: float = 30.0) -> float:
        """Wait for it; how long it took. Raises TimeoutError."""
        clock = self.world.clock
        started = clock.monotonic()
        while not condition():
            if clock.monotonic() - started > within_s:
                raise TimeoutError(f"not within {within_s} s")
            await clock.sleep(0.005)
        return clock.monotonic() - started

    def serving(self) -> list[int]:
        return [id for id in self.alive() if self.nodes[id].may_read()]

    async def leader(self, within_s: float = 30.0) -> RaftNode:
        await self.until(lambda: bool(self.serving()), within_s)
        return self.nodes[self.serving()[0]]

    async def settled(self, *ids: int) -> None:
        """All of these have applied the same."""
        chosen = list(ids) or self.alive()

        def same() -> bool:
            applied = {self.nodes[id].applied_index for id in chosen}
            last = {self.nodes[id].commit_index for id in chosen}
            return len(applied | last) == 1 and bool(self.serving())

        await self.until(same, 60.0)

    def digest(self, id: int) -> str:
        """Of the whole replicated state."""
        digest = xxhash.xxh3_128()
        for table in (*STATE_TABLES, "members"):
            for key, value in self.stores[id].scan(table):
                digest.update(repr((table, key, value)).encode())
        return digest.hexdigest()

    # -- clients

    async def add(self, add: Add) -> int:
        """Do it, whoever leads, retrying under the same number."""
        while True:
            for id in self.alive():
                value = await self.try_add(id, add)
                if value is not None:
                    return value
            await self.world.clock.sleep(0.02)

    async def try_add(self, id: int, add: Add) -> int | None:
        """Do it at that master; None when it cannot, or perhaps has."""
        with self.world.clock.move_on_after(2.0):
            try:
                answer: Sum = await self.nodes[id].propose(add)
            except Failure as failure:
                if not failure.retryable:
                    raise
            else:
                return answer.value
        return None


def changed(limits: Raft, **changes: Any) -> Raft:
    return dataclasses.replace(limits, **changes)
