"""Waiting until what was started works: the cluster as a whole, or a process's last words."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Awaitable, Callable, Mapping

import trio

from dfs import config
from dfs.cli.masters import Answer, ask_all, leader_among
from dfs.errors import Code, Failure, first_failure
from dfs.local import processes
from dfs.local.layout import Member, Root
from dfs.local.state import State
from dfs.rpc.retry import Backoff
from dfs.runtime import Env

_ASK_TIMEOUT_S = 2.0
_LAST_LINES = 4


class Cluster:
    """Asks the masters until nothing is lacking any more."""

    def __init__(self, env: Env, settings: config.Client, wanted: State) -> None:
        self._env, self._settings, self._wanted = env, settings, wanted
        self.lacking = "nothing has been asked yet"

    async def ready(self) -> None:
        """Return when every master answers, one leads, and all chunkservers are registered."""
        backoff = Backoff(self._env, self._settings.rpc)
        while True:
            answers = await ask_all(self._env, self._settings, _ASK_TIMEOUT_S)
            self.lacking = lacking(answers, self._wanted.chunkservers)
            if not self.lacking:
                return
            await backoff.wait()


def lacking(answers: list[Answer], chunkservers: int) -> str:
    """What is not there yet, in a few words; "" when all is."""
    silent = [answer.address for answer in answers if answer.status is None]
    leader = leader_among(answers)
    if silent:
        return f"the master at {silent[0]} does not answer"
    if leader is None or leader.status is None:
        return "the masters have not elected a leader"
    alive = sum(server.alive for server in leader.status.servers)
    if alive < chunkservers:
        return f"{alive} of {chunkservers} chunkservers are registered"
    return ""


async def until(
    env: Env,
    root: Root,
    children: Mapping[Member, subprocess.Popen[bytes]],
    ready: Callable[[], Awaitable[None]],
    timeout_s: float,
) -> bool:
    """Wait for `ready`; False when it takes longer than that.

    Raises Failure with its last words when one of the children ends before.
    """
    try:
        with env.clock.move_on_after(timeout_s) as scope:
            async with trio.open_nursery() as nursery:
                for member, child in children.items():
                    nursery.start_soon(_fail_when_it_ends, root, member, child)
                await ready()
                nursery.cancel_scope.cancel()
    except* Failure as group:
        raise first_failure(group) from None
    return not scope.cancelled_caught


async def _fail_when_it_ends(root: Root, member: Member, child: subprocess.Popen[bytes]) -> None:
    descriptor = os.pidfd_open(child.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    log = root.log(member)
    words = " | ".join(processes.last_lines(log, _LAST_LINES)) or "it said nothing"
    text = f"{member.name} ended with exit code {child.wait()}: {words} (see {log})"
    raise Failure(Code.UNAVAILABLE, text)
