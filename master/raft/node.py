"""One master's Raft node: the task that drives `Core`, and what the rest of the master asks of it.

The loop, once around (the duties that `core` numbers):

    messages and requests that have come  ->  tick  ->  new entries from the queue  ->  entries go
    out to the followers  ->  flush, if log, term or vote changed  ->  acknowledgements and votes go
    out  ->  wait for the next message, proposal or deadline

While the flush waits for the disk the event loop runs on: messages queue in a bounded inbox, reads
under the lease are answered, proposals gather for the next entry. State that was merely applied
is not flushed at once, since the log has it; it rides with the next flush, or goes after
`apply_flush_s`.

A master whose disk is new takes part once it has heard how the cluster was founded (`founding`);
one that shows another disk under a known id is refused, and ends (`membership`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from dfs.config import Master
from dfs.errors import Code, Failure
from dfs.messages.cluster import FetchSnapshot, RaftMessage
from dfs.messages.common import Done
from dfs.rpc import Connection, Endpoint, Handlers, Reply, Request
from dfs.runtime import Env
from dfs.runtime.current import current_env
from master.raft import formats, membership
from master.raft.changes import Changes
from master.raft.core import Core, Machine, check_limits
from master.raft.formats import Message
from master.raft.founding import Founding
from master.raft.links import Links
from master.raft.meter import RaftMeter
from master.raft.proposals import Proposals, Waiter
from master.raft.snapshots import SnapshotFetch, SnapshotSource, own_values
from master.store import META, Store

log = logging.getLogger(__name__)

_EPSILON_S = 1e-6  # pysyncobj acts after a deadline, not at it


class RaftNode:
    """A member of the Raft group of masters."""

    core_class: type[Core] = Core  # tests switch single remedies off

    def __init__(
        self, env: Env, endpoint: Endpoint, config: Master, store: Store, machine: Machine
    ) -> None:
        problem = check_limits(config.raft, config.rpc)
        if problem is not None:
            raise Failure(Code.CONFIG, problem)
        self.id, self.limits = config.id, config.raft
        self._env, self._endpoint, self._config = env, endpoint, config
        self._store, self._machine = store, machine
        self.on_leadership: Callable[[bool], None] = _ignore
        self.proposals, self.meter = Proposals(config.raft), RaftMeter()
        self._source = SnapshotSource(env, config, store)
        self._fetch = SnapshotFetch(env, config)
        self.links = Links(env, endpoint, config.raft, self.handlers(), self._hello, self._lost)
        self._changes = Changes(self)
        self._core: Core | None = None  # none before the cluster is founded
        self._inbox: deque[tuple[Connection, Message]] = deque()
        self._requests: deque[Callable[[], None]] = deque()
        self._founding = Founding(self.id, self.members())
        self.guests: dict[int, str] = {}  # masters that are about to be added
        self._fetched: tuple[int, int] | None = None  # a snapshot is here: its index and term
        self._flush_wanted = False
        self._dirty_since: float | None = None
        self._wake, self._stepped = trio.Event(), trio.Event()
        self._nursery: trio.Nursery | None = None

    # -- what the rest of the master asks

    async def propose(self, command: object) -> Any:
        """Commit and apply a command of `master.commands`; its answer.

        Raises Failure: NOT_LEADER (detail: the leader's address), OUTCOME_UNKNOWN when leadership
        was lost with the command on its way, OVERLOADED, BAD_MESSAGE when it is too large.
        """
        if not self.is_leader() or self._changes.handing_over:
            raise self.not_leader()
        waiter = self.proposals.submit(command)
        self._wake.set()
        return await waiter.wait()

    def is_leader(self) -> bool:
        return self._core is not None and self._core.is_leader()

    def may_read(self) -> bool:
        """Whether the state here is sure to hold every acknowledged write (leased reads)."""
        return self._core is not None and self._core.has_lease()

    def leader_id(self) -> int:
        """0 when none is known."""
        node = self._core.leader_node() if self._core is not None else None
        return node.id if node is not None else 0

    def leader_address(self) -> str:
        """ "" when none is known."""
        return self.members().get(self.leader_id(), "")

    def not_leader(self) -> Failure:
        """The error that sends a caller to the leader."""
        address = "" if self.is_leader() else self.leader_address()
        text = f"{self._env.name} does not lead; {address or 'nobody known'} does"
        return Failure(Code.NOT_LEADER, text, detail=address)

    def members(self) -> dict[int, str]:
        """The masters' addresses by id."""
        if self._core is None:
            return {int(id): address for id, address in self._config.masters.items()}
        return {m.id: m.address for m in self._core.membership.present.values()}

    @property
    def term(self) -> int:
        return self._core.raftCurrentTerm if self._core is not None else 0

    @property
    def commit_index(self) -> int:
        return self._core.raftCommitIndex if self._core is not None else 0

    @property
    def applied_index(self) -> int:
        return self._core.raftLastApplied if self._core is not None else 0

    def is_reachable(self, id: int) -> bool:
        return id == self.id or self.links.get(id) is not None

    def state_of(self, id: int) -> str:
        """leader, follower, candidate or unknown, as far as this master can tell."""
        if id == self.leader_id():
            return "leader"
        if id == self.id and self._core is not None and self._core.is_candidate():
            return "candidate"
        return "follower" if self.is_reachable(id) and self._core is not None else "unknown"

    def handlers(self) -> Handlers:
        """To be served to the other masters."""
        return {RaftMessage: self._received, FetchSnapshot: self._piece_asked}

    # -- changes, asked of the leader by operators

    async def add_master(self, id: int, address: str) -> None:
        """Make that running master, which has an empty disk, a member. See `Changes.add`."""
        await self._changes.add(id, address)

    async def remove_master(self, id: int) -> None:
        """Take a member out. See `Changes.remove`."""
        await self._changes.remove(id)

    async def transfer(self, id: int) -> None:
        """Hand leadership over to that master (0: any). See `Changes.transfer`."""
        await self._changes.transfer(id)

    async def create_snapshot(self) -> None:
        """Write a snapshot file and shorten the log. Raises Failure or OSError."""
        if self._core is None:
            raise Failure(Code.UNAVAILABLE, "the cluster is not founded yet")
        await self.flush_applied()
        await self._source.create()
        self._core.trim_now()

    async def stop(self) -> None:
        """Stop in order: leadership goes to another, what is applied goes to disk."""
        if self.is_leader() and len(self.members()) > 1:
            try:
                await self.transfer(0)
            except Failure as failure:
                log.info("%s: stops as leader: %s", self._env.name, failure.message)
        await self.flush_applied()

    def serving_core(self) -> Core:
        """Of a leader that may begin something. Raises Failure NOT_LEADER or UNAVAILABLE."""
        if self._core is None or not self._core.is_leader():
            raise self.not_leader()
        if not self._core.serving() or self._changes.handing_over:
            raise Failure(Code.UNAVAILABLE, "this leader is not ready for that; try again")
        return self._core

    # -- waiting for the loop

    async def request(self, call: Callable[[], None]) -> None:
        """Have the loop call this between two flushes. Raises what it raises."""
        waiter = Waiter()

        def run() -> None:
            try:
                call()
            except Failure as failure:
                waiter.fail(failure)
            else:
                waiter.answer(None)

        self._requests.append(run)
        self._wake.set()
        await waiter.wait()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until it holds after some step; whether it came to hold in that time."""
        deadline = self._env.clock.monotonic() + seconds
        while not condition():
            left_s = deadline - self._env.clock.monotonic()
            if left_s <= 0 or not await self._env.clock.wait(self._stepped, left_s):
                return condition()
        return True

    @property
    def lineage(self) -> int:
        """Which group of masters this is, see `formats`."""
        return membership.lineage(self._store)

    async def flush_applied(self) -> None:
        """Return when everything applied so far is on disk."""
        self._flush_wanted = True
        self._wake.set()
        while self._flush_wanted:
            await self._stepped.wait()

    # -- the loop

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled."""
        current_env.set(self._env)
        await self._prepare_disk()
        async with trio.open_nursery() as self._nursery:
            self._begin()
            self.links.start(self._nursery)
            task_status.started()
            while True:
                self._wake = trio.Event()
                await self._step()
                await self._rest()

    async def _prepare_disk(self) -> None:
        membership.claim(self._store, self._env)
        try:
            await self._env.run_blocking(self._source.remove_leftovers, "snapshot")
            await self._store.flush(self._env)
        except (OSError, Failure) as error:
            self._env.fatal(f"the disk of {self._config.data_dir} refuses changes: {error}")

    def _begin(self) -> None:
        if membership.founding(self._store):
            self._start_core()
        else:
            log.info("%s: empty disk, looking for the other masters", self._env.name)
            self.links.want(self.members())
            self._founding.empty_disk(self.id, self._store.get(META, b"nonce") or b"")
            self._found_if_complete()

    async def _step(self) -> None:
        for _ in range(len(self._inbox)):
            self._process(*self._inbox.popleft())
        for _ in range(len(self._requests)):
            self._requests.popleft()()
        if self._fetched is not None:
            await self._install(*self._fetched)
        core = self._core
        if core is not None:
            core.tick()
            self._begin_entries(core)
            self.links.want(self._wanted(core))
        await self._flush(core)
        if core is not None:
            core.transport.release()
        self._stepped.set()
        self._stepped = trio.Event()

    def _begin_entries(self, core: Core) -> None:
        began = core.is_leader() and not self._changes.handing_over and self.proposals.ready()
        if began:
            now_ns = self._env.clock.wall_ns()
            self.proposals.begin(core.append, core.raftCurrentTerm, now_ns)
        if began or core.behind():
            core.replicate()

    async def _flush(self, core: Core | None) -> None:
        """Make durable what must be before messages leave, and what has waited long enough."""
        must = self._flush_wanted or self._store.full or (core is not None and core.journal.dirty)
        if not must and not self._flush_overdue():
            return
        last_index = core.journal.last_index if core is not None else 0
        wanted, self._flush_wanted = self._flush_wanted, False
        if core is not None:
            core.journal.dirty = False
        try:
            await self._store.flush(self._env)
        except (OSError, Failure) as error:
            self._env.fatal(
                f"the disk refused the Raft log: {error}; what was acknowledged is safe: "
                f"see to the disk of {self._config.data_dir} and start this master again"
            )
        self._dirty_since = None
        if core is not None:
            core.flushed(last_index)
        if wanted:
            self._stepped.set()

    def _flush_overdue(self) -> bool:
        if not self._store.dirty:
            self._dirty_since = None
            return False
        now = self._env.clock.monotonic()
        if self._dirty_since is None:
            self._dirty_since = now
        return now - self._dirty_since >= self.limits.apply_flush_s

    async def _rest(self) -> None:
        """Until something comes or is due."""
        core = self._core
        if core is not None and (core.backlog() or core.self_sufficient()):
            await trio.lowlevel.checkpoint()
            return
        now = self._env.clock.monotonic()
        due = core.next_deadline() if core is not None else now + self.limits.link_timeout_s
        if self._dirty_since is not None:
            due = min(due, self._dirty_since + self.limits.apply_flush_s)
        await self._env.clock.wait(self._wake, max(0.0, due - now) + _EPSILON_S)

    # -- messages

    def _received(self, request: Request) -> None:
        """Handler of RaftMessage: only queues, for a flush may be under way."""
        connection = request.connection
        try:
            if connection.peer.role != "master":
                raise Failure(Code.BAD_MESSAGE, f"{connection.peer} is no master")
            message = formats.decode_message(request.payload)
        except Failure as failure:
            log.warning("%s: %s: %s", self._env.name, connection.peer, failure.message)
            connection.close()
            return
        if len(self._inbox) < self.limits.max_inbox:  # else lost, which Raft bears
            self._inbox.append((connection, message))
            self._wake.set()

    def _process(self, connection: Connection, message: Message) -> None:
        kind = message["type"]
        if kind == "hello":
            self._on_hello(connection, message)
        elif kind == "refused":
            self._env.fatal(f"{connection.peer} refuses this master: {message['reason']}")
        elif kind == "removed":
            self._on_removed()
        elif self.links.heard(connection) and self._core is not None and kind != "alive":
            self._core.receive(connection.peer.id, message)

    def _hello(self) -> Message:
        nonce = self._store.get(META, b"nonce") or b""
        founding = membership.founding(self._store)
        return {"type": "hello", "nonce": nonce, "founding": founding, "lineage": self.lineage}

    def _on_hello(self, connection: Connection, message: Message) -> None:
        peer, nonce = connection.peer.id, message["nonce"]
        known = self._core.membership.known if self._core is not None else {}
        theirs = message["lineage"] if message["founding"] else self.lineage
        if self._core is not None and (mine := membership.outdated(theirs, self.lineage, self.id)):
            self._env.fatal(mine)  # founded anew without this master
        reason = membership.outdated(self.lineage, theirs, peer)
        reason = reason or membership.refusal(known, peer, nonce)
        if reason is not None:
            log.error("%s: %s", self._env.name, reason)
            self.links.send_over(connection, {"type": "refused", "reason": reason})
            return
        if peer in known and not known[peer].present:
            self.links.send_over(connection, {"type": "removed"})
            return
        if self._core is None and message["founding"]:
            self._take_founding(message["founding"], message["lineage"])
        elif self._core is None:
            self._founding.empty_disk(peer, nonce)
        self.links.accept(connection, nonce)
        if self._core is not None:
            self._core.transport.link_up(peer)
        self._found_if_complete()

    def _lost(self, peer: int) -> None:
        """A link has ended."""
        self._founding.lost(peer)
        self._requests.append(partial(self._link_down, peer))
        self._wake.set()

    def _link_down(self, peer: int) -> None:
        if self._core is not None and self.links.get(peer) is None:
            self._core.transport.link_down(peer)

    def _on_removed(self) -> None:
        if self._core is not None and not self._core.removed and not self._core.is_leader():
            self._core.removed = True
            log.info("%s: is no member any more; it may be stopped", self._env.name)

    # -- founding

    def _found_if_complete(self) -> None:
        packed = self._founding.decided() if self._core is None else None
        if packed is not None:
            log.info("%s: founds a cluster of masters %s", self._env.name, sorted(self.members()))
            self._take_founding(packed, 0)
            self.links.broadcast(self._hello())

    def _take_founding(self, packed: bytes, lineage: int) -> None:
        membership.found(self._store, packed)
        membership.take_lineage(self._store, lineage)
        self._flush_wanted = True
        self._start_core()

    def _start_core(self) -> None:
        self._core = self.core_class(self._env, self.id, self.limits, self._store, self, self.meter)
        for peer in self.links.up():
            self._core.transport.link_up(peer)
        self.links.want(self._wanted(self._core))

    def _wanted(self, core: Core) -> dict[int, str]:
        """Whom to keep links with."""
        return {} if core.removed else {**self.members(), **self.guests}

    # -- what Core asks (its Host)

    def send(self, peer: int, message: Message) -> bool:
        return self.links.send(peer, message)

    def apply(self, command: bytes, index: int, term: int) -> None:
        answers: list[Any] = [Done()]
        if command[0] == formats.COMMANDS:
            try:
                answers = self._machine.apply(command[1:])
            except Exception as error:  # whatever it is: the masters would differ (H11)
                log.exception("%s: entry %d", self._env.name, index)
                self._env.fatal(f"entry {index} cannot be applied: {error!r}")
        self.proposals.applied(index, term, answers)

    def leadership_changed(self, leads: bool) -> None:
        if not leads:
            self.proposals.deposed(self.not_leader)
        self.on_leadership(leads)

    def offers_snapshot(self, peer: int) -> bool:
        if self._core is None or self._nursery is None:
            return False
        return self._source.reaches(self._core.journal.first_index, self._nursery)

    async def _piece_asked(self, request: Request) -> Reply:
        return await self._source.piece(request.message)

    def fetch_snapshot(self, peer: int) -> None:
        if self._core is not None and self._nursery is not None:
            self._core.installing = True
            self._nursery.start_soon(self._fetch_from, peer)

    async def _fetch_from(self, peer: int) -> None:
        try:
            link = self.links.get(peer)
            if link is None:
                raise Failure(Code.CONNECTION_LOST, "the link is gone")
            await self._fetch.fetch(link.connection)
            self._fetched = await self._env.run_blocking(self._fetch.last_applied, "snapshot")
        except (OSError, Failure) as error:
            log.warning("%s: no snapshot from master %d: %s", self._env.name, peer, error)
            self._requests.append(self._stop_installing)
        self._wake.set()

    def _stop_installing(self) -> None:
        if self._core is not None:
            self._core.installing = False

    async def _install(self, index: int, term: int) -> None:
        """Become what was fetched, unless the log here has come as far meanwhile."""
        self._fetched, core = None, self._core
        self._stop_installing()
        if core is None or index <= core.raftCommitIndex:
            return
        if core.journal.matches(index, term):
            core.commit_known(index)
            return
        try:
            adopt = partial(self._fetch.adopt, own_values(self._store))
            await self._env.run_blocking(adopt, "snapshot")
            await self._store.replace_with(self._env, self._fetch.path)
        except (OSError, Failure) as error:  # H5
            self._env.fatal(f"a snapshot could not be installed: {error}")
        self._dirty_since = None
        log.info("%s: installed a snapshot at %d", self._env.name, index)
        self._start_core()


def _ignore(leads: bool) -> None:
    pass
