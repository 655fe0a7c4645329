"""`dfs fsck` at the master: one check at a time, followed by whoever asked for it.

Owns the life of a check (`check.audit`) and of the mending of what it found (`check.mending`): they
run beside the leader's other work, end with its leadership, and are given up when nobody follows.
A finished check is kept until then, because it is what `MendFindings` refers to.
"""

from __future__ import annotations

import dataclasses
import logging
from functools import partial

import trio

from dfs.config import Master
from dfs.errors import Code, Failure
from dfs.messages.checking import (
    CheckProgress,
    Finding,
    FollowCheck,
    MendFindings,
    StartCheck,
)
from dfs.messages.common import Done
from dfs.rpc import Endpoint, Handlers, Pool, Request
from dfs.runtime import Env
from master.check.audit import COPY, Audit, Parts
from master.check.mending import Mending
from master.chunkservers import Chunkservers
from master.raft import RaftNode
from master.raft.snapshots import remove_store
from master.store import Store

log = logging.getLogger(__name__)

_NEWS_S = 0.5  # a follower's question is answered after that time at the latest
_PAGE_FINDINGS = 256
_PAGE_BYTES = 1 << 20  # of what findings save, in one answer


@dataclasses.dataclass(slots=True)
class _Check:
    """The check that there is."""

    number: int
    audit: Audit
    followed_at: float  # boottime
    scope: trio.CancelScope = dataclasses.field(default_factory=trio.CancelScope)
    mending: bool = False


class Checking:
    """The handlers of fsck, and the task that does its work."""

    def __init__(
        self,
        env: Env,
        endpoint: Endpoint,
        config: Master,
        raft: RaftNode,
        store: Store,
        chunkservers: Chunkservers,
    ) -> None:
        self._env, self._endpoint, self._config = env, endpoint, config
        self._raft, self._store, self._chunkservers = raft, store, chunkservers
        self._check: _Check | None = None
        self._nursery: trio.Nursery | None = None
        self._pool: Pool | None = None
        self.reports: Handlers = {}  # of chunkservers' reports: who learns of bad replicas

    def handlers(self) -> Handlers:
        return {
            StartCheck: self._start,
            FollowCheck: self._follow,
            MendFindings: self._mend,
        }

    def forget_all(self) -> None:
        """A leadership begins or ends: a check belongs to one."""
        if self._check is not None:
            self._check.scope.cancel()
            self._check = None

    async def run(self) -> None:
        """Have checks run, until cancelled."""
        path = f"{self._config.data_dir}/{COPY}"
        await self._env.run_blocking(partial(remove_store, self._env.disk, path), "check")
        async with trio.open_nursery() as nursery:
            self._pool = Pool(self._endpoint, nursery)
            self._nursery = nursery
            await trio.sleep_forever()

    # -- handlers

    def _start(self, request: Request) -> Done:
        message: StartCheck = request.message
        self._must_lead()
        now = self._env.clock.boottime()
        current = self._check
        if current is not None and current.number == message.check:
            return Done()  # a retry: the first answer was lost
        if current is not None and not current.audit.finished:
            raise Failure(Code.UNAVAILABLE, "another check of this cluster is running")
        if self._nursery is None or self._pool is None:
            raise Failure(Code.UNAVAILABLE, f"{self._env.name} is just starting")
        if current is not None:
            current.scope.cancel()
        parts = Parts(
            self._env, self._config, self._raft, self._store, self._chunkservers, self._pool
        )
        audit = Audit(parts, deep=message.deep, inode=message.inode)
        self._check = _Check(message.check, audit, now)
        self._nursery.start_soon(self._run, self._check)
        log.info("%s: fsck begins", self._env.name)
        return Done()

    async def _follow(self, request: Request) -> CheckProgress:
        message: FollowCheck = request.message
        check = self._find(message.check)
        check.followed_at = self._env.clock.boottime()
        audit = check.audit
        if not audit.finished and len(audit.ledger.findings) <= message.after:
            await self._env.clock.wait(audit.news, _NEWS_S)
        page = _page(audit.ledger.findings[max(0, message.after) :])
        told_all = message.after + len(page) >= len(audit.ledger.findings)
        return CheckProgress(
            audit.phase,
            audit.done,
            audit.total,
            page,
            audit.finished and told_all,
            audit.problem,
            audit.inodes,
            audit.chunks,
            audit.replicas,
        )

    def _mend(self, request: Request) -> Done:
        message: MendFindings = request.message
        check = self._find(message.check)
        if check.mending:
            return Done()  # a retry
        if not check.audit.finished:
            raise Failure(Code.UNAVAILABLE, "the check is not finished yet")
        assert self._nursery is not None
        check.mending, check.audit.finished = True, False

        def tell(report: object) -> object:
            handler = self.reports.get(type(report))
            if handler is None:
                text = f"this leader does not take {type(report).__name__}"
                raise Failure(Code.UNAVAILABLE, text)
            own = Request(report, memoryview(b""), request.connection)
            return handler(own)

        mending = Mending(self._raft, check.audit, tell)
        self._nursery.start_soon(self._run_mending, mending, message.numbers)
        log.info("%s: fsck mends %d findings", self._env.name, len(message.numbers))
        return Done()

    # -- inside

    def _must_lead(self) -> None:
        if self._raft.may_read():
            return
        if self._raft.is_leader():
            raise Failure(Code.UNAVAILABLE, f"{self._env.name} leads but holds no lease yet")
        raise self._raft.not_leader()

    def _find(self, number: int) -> _Check:
        self._must_lead()
        check = self._check
        if check is None or check.number != number:
            text = f"{self._env.name} knows of no such check; it may be begun anew"
            raise Failure(Code.NO_SESSION, text)
        return check

    async def _run(self, check: _Check) -> None:
        with check.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, check)
                await check.audit.run()
                found = len(check.audit.ledger.findings)
                log.info("%s: fsck ends with %d findings", self._env.name, found)

    async def _watch(self, check: _Check) -> None:
        """Give the check up, running or finished, when nobody follows it any more."""
        patience_s = self._config.limits.check_abandoned_s
        while (left_s := check.followed_at + patience_s - self._env.clock.boottime()) > 0:
            await self._env.clock.sleep(left_s)
        log.info("%s: nobody follows fsck any more", self._env.name)
        if self._check is check:
            self._check = None
        check.scope.cancel()

    async def _run_mending(self, mending: Mending, numbers: tuple[int, ...]) -> None:
        """Until it is done; with the leadership it ends at the first command that is refused."""
        await mending.run(numbers)
        log.info("%s: fsck has mended what it could", self._env.name)


def _page(findings: list[Finding]) -> tuple[Finding, ...]:
    """As many of them as fit into an answer, at least one if there is one."""
    page: list[Finding] = []
    room = _PAGE_BYTES
    for finding in findings[:_PAGE_FINDINGS]:
        room -= len(finding.saved)
        if page and room < 0:
            break
        page.append(finding)
    return tuple(page)
