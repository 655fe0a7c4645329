"""A check of the cluster, as the command line asks the leader for it and follows it.

Owns the conversation of `dfs.messages.checking`. A leader that does not know the check (another one
leads now) is asked to begin it anew; findings then come anew, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from dfs.client import Client
from dfs.errors import Code, Failure
from dfs.messages.checking import (
    CheckProgress,
    Finding,
    FollowCheck,
    MendFindings,
    Severity,
    StartCheck,
)
from dfs.runtime import Env

ATTEMPTS = 5  # under as many leaders
KEEP_S = 5.0  # a finished check is kept by asking for it that often
_NUMBER_BYTES = 8
Watch = Callable[[CheckProgress], None]


@dataclass
class Checked:
    """A finished check."""

    number: int
    progress: CheckProgress
    findings: list[Finding] = field(default_factory=list)

    @property
    def severity(self) -> Severity:
        """The gravest of what was found."""
        found = (Severity(f.severity) for f in self.findings)
        gravest = max(found, default=Severity.NOTE)
        return max(gravest, Severity.UNCHECKED) if self.progress.problem else gravest

    @property
    def mendable(self) -> list[Finding]:
        return [f for f in self.findings if f.mend]


class Checks:
    """Asks one cluster for checks."""

    def __init__(self, env: Env, client: Client) -> None:
        self._env, self._client = env, client

    async def check(self, watch: Watch, *, deep: bool, inode: int) -> Checked:
        """One check from beginning to end. Raises Failure when it cannot be had."""
        for attempt in range(ATTEMPTS):
            try:
                return await self._check(watch, deep=deep, inode=inode)
            except Failure as error:
                if error.code is not Code.NO_SESSION or attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _check(self, watch: Watch, *, deep: bool, inode: int) -> Checked:
        number = int.from_bytes(self._env.random.token(_NUMBER_BYTES)) >> 1
        await self._client.cluster_call(StartCheck(number, deep, inode))
        return await self._follow(number, [], watch)

    async def _follow(self, number: int, findings: list[Finding], watch: Watch) -> Checked:
        while True:
            message = FollowCheck(number, len(findings))
            progress: CheckProgress = await self._client.cluster_call(message)
            findings += progress.findings
            watch(progress)
            if progress.finished:
                return Checked(number, progress, findings)

    async def keep(self, checked: Checked) -> None:
        """Keep a finished check from being given up, until cancelled."""
        while True:
            message = FollowCheck(checked.number, len(checked.findings))
            await self._client.cluster_call(message)
            await self._env.clock.sleep(KEEP_S)

    async def mend(self, checked: Checked, findings: list[Finding], watch: Watch) -> list[Finding]:
        """Have these findings mended; what is told of those that could not be."""
        numbers = tuple(f.number for f in findings)
        await self._client.cluster_call(MendFindings(checked.number, numbers))
        told = len(checked.findings)
        after = await self._follow(checked.number, list(checked.findings), watch)
        return after.findings[told:]


async def while_kept(checks: Checks, checked: Checked, ask: Callable[[], bool]) -> bool:
    """What a person answers, who may take as long as they like."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checks.keep, checked)
        answer = await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    return answer
