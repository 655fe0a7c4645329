"""One check of a live cluster, from its beginning to its findings.

    copy of the state  ->  the state against itself        (exact: a copy does not move)
                       ->  chunk map and servers' listings, merged by handle
                           -> what is suspicious is looked at again, in the leader's present state
                              and at the servers, twice in the same version, some time apart
                       ->  names of the files concerned

Nothing is changed. The copy is a file in the master's data directory (`check.mdb`, of the store's
format) that goes when the check ends. Memory: a page of each source, the suspicions of one batch,
and the findings, all bounded by the configuration.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import trio

from dfs.config import Master
from dfs.errors import Code, Failure
from dfs.messages.chunks import ListedReplica
from dfs.rpc import Pool
from dfs.runtime import Env
from master import tables as names
from master.check.asking import Asking
from master.check.driving import LANE, Driver, Slice
from master.check.findings import Event, Found, Kind, Unreadable, decoded
from master.check.ledger import Ledger
from master.check.merging import Pages, merged
from master.check.paths import Paths, find_below
from master.check.replicas import Place, Row, Servers, compare, confirmed, same_moment
from master.check.state import check_state
from master.chunkservers import Chunkservers
from master.raft import RaftNode
from master.raft.snapshots import remove_store
from master.state import chunkmap, queries, records
from master.state.records import Chunk, key, key2, key_number
from master.store import Store
from master.tables import Tables

log = logging.getLogger(__name__)

COPY = "check.mdb"
MAP = -1  # the chunk map among the sources that are merged by handle; servers have their ids
_SERVERS_POLL_S = 0.1

Item = Place | ListedReplica


@dataclass(frozen=True, slots=True)
class Parts:
    """What a check needs of the master that makes it."""

    env: Env
    config: Master
    raft: RaftNode
    store: Store
    chunkservers: Chunkservers
    pool: Pool


class Audit:
    """A check under way, or finished: what there is to tell of it."""

    def __init__(self, parts: Parts, *, deep: bool, inode: int) -> None:
        self._parts, self._env, self._limits = parts, parts.env, parts.config.limits
        self._deep, self._inode = deep, inode
        self._driver = Driver(parts.env, self._limits)
        self._asking = Asking(parts.env, parts.pool, self._limits)
        self._suspects: list[int] = []
        self._silent: dict[int, str] = {}  # servers that could not be asked -> why
        self.ledger = Ledger(self._limits.check_findings)
        self.phase, self.done, self.total = "copying", 0, 0
        self.inodes = self.chunks = self.replicas = 0
        self.problem = ""
        self.finished = False
        self.news = trio.Event()  # set when there is something to tell; then replaced

    def tell(self) -> None:
        """There are news for whoever follows."""
        self.news.set()
        self.news = trio.Event()

    def _begin(self, phase: str, total: int = 0) -> None:
        self.phase, self.done, self.total = phase, 0, total
        self.tell()

    async def run(self) -> None:
        """Check everything; what goes wrong ends it with a `problem`."""
        try:
            await self._check_copy()
        except Failure as error:
            self.problem = error.message
        except (OSError, ValueError) as error:
            self.problem = f"the check could not go on: {error}"
        self.finished = True
        self._begin("finished")

    async def _check_copy(self) -> None:
        path = f"{self._parts.config.data_dir}/{COPY}"
        await self._parts.raft.flush_applied()
        remove = partial(remove_store, self._env.disk, path)
        await self._env.run_blocking(remove, LANE)
        copy: Store | None = None
        try:
            await self._parts.store.copy_to(self._env, path)
            opening = partial(Store.open, self._env, path, self._parts.config.raft)
            copy = await self._env.run_blocking(opening, LANE)
            await self._check(copy)
        finally:
            with trio.CancelScope(shield=True):
                if copy is not None:
                    await self._env.run_blocking(copy.close, LANE)
                await self._env.run_blocking(remove, LANE)

    async def _check(self, copy: Tables) -> None:
        if self._inode:
            scope: dict[int, None] = {}
            await self._run(find_below(copy, self._inode, scope))
            self.ledger.scope = scope
        counts = queries.counts(copy)
        self.inodes = counts.inodes
        self._begin("metadata")
        await self._run(check_state(copy))
        await self._name(copy)
        self._begin("verifying" if self._deep else "replicas", counts.chunks)
        await self._check_replicas(copy)
        await self._name(copy)
        self.ledger.publish_counts()

    async def _run(self, events: Iterator[Event]) -> None:
        await self._driver.run(events, self._take)

    def _take(self, done: Slice) -> None:
        self.done += done.records
        for found in done.found:
            self.ledger.add(found)

    async def _name(self, copy: Tables) -> None:
        """Give what was found the names of its files, and tell it."""
        paths = Paths(copy)
        if self.ledger.want(paths):
            await self._driver.run(paths.search(), lambda _: None)
        self.ledger.publish(paths)
        self.tell()

    # -- the chunk map against the servers

    async def _check_replicas(self, copy: Tables) -> None:
        addresses = await self._live_servers()
        servers = self._servers(copy)
        asked = frozenset(addresses)
        sources: dict[int, Pages[Item]] = {s: Pages() for s in (MAP, *addresses)}
        while True:
            await self._fill(copy, sources, addresses)
            asked = frozenset(s for s in asked if s not in self._silent)
            rows = self._rows(copy, sources, asked)
            await self._driver.run(_compared(rows, servers), self._suspect)
            await self._look_again(least=self._limits.check_batch)
            if all(p.complete and p.next_handle() is None for p in sources.values()):
                break
        await self._look_again(least=1)
        for server, why in sorted(self._silent.items()):
            text = f"chunkserver {server} cannot be asked what it has: {why}"
            self.ledger.add(Found(Kind.SILENT_SERVER, text, server=server))

    async def _live_servers(self) -> dict[int, str]:
        """Their addresses; a leader waits a little for those that have yet to register."""
        known = queries.servers(self._parts.store)
        give_up_at = self._env.clock.monotonic() + self._limits.server_timeout_s
        while True:
            live = {s.id: s.address for s in self._parts.chunkservers.alive()}
            missing = [s for s, _, _ in known if s not in live]
            if not missing or self._env.clock.monotonic() >= give_up_at:
                break
            await self._env.clock.sleep(_SERVERS_POLL_S)
        for server in missing:
            self._silent[server] = "it is not alive"
        return live

    def _servers(self, tables: Tables) -> Servers:
        zones = {s.id: s.zone for s in self._parts.chunkservers.alive()}
        stored = tables.get(names.COUNTERS, records.COUNTERS_KEY)
        next_handle = 1 if stored is None else records.Counters.decode(stored).next_handle
        return Servers(zones, next_handle)

    async def _fill(
        self, copy: Tables, sources: Mapping[int, Pages[Item]], addresses: Mapping[int, str]
    ) -> None:
        """The next page of every source that needs one."""

        async def ask(server: int, pages: Pages[Item]) -> None:
            try:
                page = await self._asking.page(addresses[server], pages.after, verify=self._deep)
                self._quarantined(server, page.quarantined)
                listed = [(r.handle, r) for r in page.replicas]
                pages.add(listed, complete=page.complete)
                self.replicas += len(listed)
            except (Failure, ValueError) as error:
                pages.give_up()
                self._silent[server] = str(error)

        async with trio.open_nursery() as nursery:
            for source, pages in sources.items():
                if pages.starved and source != MAP:
                    nursery.start_soon(ask, source, pages)
        if sources[MAP].starved:
            work = partial(_map_page, copy, sources[MAP].after, self._limits.check_page)
            page, complete = await self._env.run_blocking(work, LANE)
            sources[MAP].add(page, complete=complete)
            self.chunks += len(page)

    def _quarantined(self, server: int, paths: tuple[str, ...]) -> None:
        for path in paths:
            text = f"chunkserver {server} has set {path} aside"
            self.ledger.add(Found(Kind.QUARANTINED, text, server=server))

    def _rows(
        self, copy: Tables, sources: Mapping[int, Pages[Item]], asked: frozenset[int]
    ) -> Iterator[Row]:
        for handle, items in merged(sources):
            place = items.pop(MAP, None)
            listed = {s: item for s, item in items.items() if isinstance(item, ListedReplica)}
            assert place is None or isinstance(place, Place)
            yield Row(handle, place, listed, asked, _doomed(copy, handle, listed), self._deep)

    def _suspect(self, done: Slice) -> None:
        """What was found is only suspicious: somebody may just be changing it."""
        self.done += done.records
        for found in done.found:
            if self.ledger.is_full(found.kind):
                self.ledger.count(found)
            elif self.ledger.in_scope(found) and self._suspects[-1:] != [found.handle]:
                self._suspects.append(found.handle)

    # -- looking again

    async def _look_again(self, least: int) -> None:
        """Settle the suspicions, once there are so many, a batch at a time."""
        while len(self._suspects) >= least and self._suspects:
            batch = self._suspects[: self._limits.check_batch]
            del self._suspects[: len(batch)]
            await self._settle_batch(batch)

    async def _settle_batch(self, handles: list[int]) -> None:
        servers, before = await self._look([h for h in handles if not self._is_dead(h)])
        for _ in range(self._limits.check_looks):
            await self._env.clock.sleep(self._limits.check_confirm_s)
            servers, after = await self._look(list(before))
            moving: dict[int, Row] = {}
            for handle, row in after.items():
                if not same_moment(before[handle], row):
                    moving[handle] = row
                    continue
                for found in confirmed(before[handle], row, servers):
                    self.ledger.add(found)
            before = moving
            if not before:
                return
        for handle, row in before.items():
            if any(True for _ in compare(row, servers)):
                text = f"chunk {handle:x} keeps changing: it could not be judged"
                inode = row.place.inode if row.place is not None else 0
                self.ledger.add(Found(Kind.IN_FLUX, text, inode=inode, handle=handle))

    async def _look(self, handles: list[int]) -> tuple[Servers, dict[int, Row]]:
        """What those chunks are like now, for the leader and for the servers."""
        live = {s.id: s.address for s in self._parts.chunkservers.alive()}
        places = {handle: self._place(handle) for handle in handles}
        await trio.lowlevel.checkpoint()
        listed, asked = await self._asking.about(handles, live, verify=self._deep)
        tables = self._parts.store
        rows = {
            handle: Row(
                handle,
                places[handle],
                listed[handle],
                asked,
                _doomed(tables, handle, listed[handle]),
                self._deep,
            )
            for handle in handles
        }
        return self._servers(tables), rows

    def _place(self, handle: int) -> Place | None:
        """The chunk in the leader's present state. Raises Failure when it does not lead."""
        if not self._parts.raft.may_read():
            raise Failure(Code.UNAVAILABLE, f"{self._env.name} leads no longer")
        found = queries.chunk_by_handle(self._parts.store, handle)
        return None if found is None else Place(*found)

    def _is_dead(self, handle: int) -> bool:
        """Whether a truncate has cut the chunk off: nobody misses it, it is about to be freed."""
        tables, place = self._parts.store, self._place(handle)
        if place is None:
            return False
        inode = queries.find_inode(tables, place.inode)
        pending = [] if inode is None else chunkmap.trims(tables, inode)
        return chunkmap.is_dead(pending, place.index, place.chunk)

    def now_ns(self) -> int:
        """The time that the state has come to; commands are never earlier."""
        stored = self._parts.store.get(names.COUNTERS, records.COUNTERS_KEY)
        return 0 if stored is None else records.Counters.decode(stored).now_ns

    async def look_at(self, handle: int) -> tuple[list[Found], Row]:
        """What is amiss with a chunk just now."""
        servers, rows = await self._look([handle])
        return list(compare(rows[handle], servers)), rows[handle]


def _compared(rows: Iterator[Row], servers: Servers) -> Iterator[Event]:
    for row in rows:
        yield 1
        yield from compare(row, servers)


def _doomed(tables: Tables, handle: int, listed: Mapping[int, ListedReplica]) -> frozenset[int]:
    """The servers that are to delete their replica."""
    noted = (s for s in listed if tables.get(names.DELETIONS, key2(s, handle)) is not None)
    return frozenset(noted)


def _map_page(tables: Tables, after: int, limit: int) -> tuple[list[tuple[int, Item]], bool]:
    """The next chunks of the map by handle, and whether none follow."""
    page: list[tuple[int, Item]] = []
    for handle_key, value in tables.scan(names.HANDLES, key(after + 1)):
        place = _find_place(tables, value)
        if place is not None and place.chunk.handle == key_number(handle_key):
            page.append((place.chunk.handle, place))
        if len(page) == limit:
            return page, False
    return page, True


def _find_place(tables: Tables, value: bytes) -> Place | None:
    """Where a record of `handles` leads; None when it leads nowhere, as the other checks tell."""
    try:
        inode, index = decoded(records.decode_handle, value)
        stored = tables.get(names.CHUNKS, key2(inode, index))
        return None if stored is None else Place(inode, index, decoded(Chunk.decode, stored))
    except Unreadable:
        return None
