"""Draining a chunkserver or a disk, and waiting until it is empty.

A drain is the leader's work and goes on whether or not anybody waits for it. Waiting is looking
every `watch_interval_s`; on a terminal a bar shows the chunks that are gone, the pace, and the time
left by the pace of the last minutes: "unknown" before anything has moved, never a guess.
"""

from __future__ import annotations

import errno
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfs.cli import output
from dfs.cli.cluster import Session
from dfs.cli.exits import Exit
from dfs.cli.output import counted, duration
from dfs.cli.overview import Overview, change, look
from dfs.errors import Code, Failure
from dfs.messages.cluster import ServerMode, SetServerMode

if TYPE_CHECKING:
    from rich.console import Console

WINDOW_S = 180.0  # what a pace is measured over
PLAIN_STEP_PERCENT = 10  # without a terminal: a line each time that much more is done


@dataclass(frozen=True)
class Drained:
    """What is drained: a server, or one of its disks."""

    server: int
    disk: str = ""

    @property
    def name(self) -> str:
        server = f"chunkserver {self.server}"
        return f"disk {self.disk} of {server}" if self.disk else server

    def command(self, verb: str) -> str:
        """The command that does something with it."""
        if self.disk:
            return f"dfs disk {verb} {self.server} {shlex.quote(self.disk)}"
        return f"dfs node {verb} {self.server}"


class Pace:
    """How fast chunks leave, by what was seen lately."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, int]] = deque()  # (time, left), oldest first

    def see(self, now_s: float, left: int) -> None:
        """So many chunks are left now."""
        self._seen.append((now_s, left))
        while now_s - self._seen[0][0] > self._window_s:
            self._seen.popleft()

    @property
    def per_s(self) -> float:
        """Chunks per second; 0 when none has left."""
        (began, had), (now, left) = self._seen[0], self._seen[-1]
        return max(0.0, (had - left) / (now - began)) if now > began else 0.0

    @property
    def time_left_s(self) -> float | None:
        """None when it cannot be told."""
        return self._seen[-1][1] / self.per_s if self.per_s > 0 else None

    def words(self) -> str:
        """`12 chunks/min, about 3 min left`"""
        left_s = self.time_left_s
        if left_s is None:
            return "time left unknown"
        per_s = self.per_s
        rate = f"{per_s:.0f} chunks/s" if per_s >= 2 else f"{60 * per_s:.1f} chunks/min"
        return f"{rate}, about {duration(left_s)} left"


Show = Callable[[int, int, str], None]  # chunks left, chunks in all, a few words


async def drain(session: Session, what: Drained, holds: int, *, wait: bool) -> int:
    """Have it drained, and tell; with `wait` return when it is empty."""
    await change(session, SetServerMode(what.server, ServerMode.DRAINING, what.disk))
    if not wait:
        output.line(f"{what.name} is being drained: {counted(holds, 'chunk')} to go")
        return Exit.OK
    with _goes_on(what), shown(what.name) as show:
        empty = await until_empty(session, what, show)
    if not empty:
        text = f"{what.name} is not being drained any more: somebody took that back"
        raise Failure(Code.ERRNO, text, errno=errno.ECANCELED)
    output.line(f"{what.name} is empty")
    return Exit.OK


async def until_empty(session: Session, what: Drained, show: Show) -> bool:
    """Return when no chunk is left there, or False when it is not being drained any more."""
    pace, total = Pace(), 0
    while True:
        view = await look(session)
        left = chunks_left(view, what)
        if left is None:
            return False
        pace.see(session.env.clock.monotonic(), left)
        total = max(total, left)
        show(left, total, _words(view, pace))
        if left == 0:
            return True
        await session.env.clock.sleep(session.settings.limits.watch_interval_s)


def chunks_left(view: Overview, what: Drained) -> int | None:
    """How many chunks are still to go; None when it is not being drained."""
    for said in view.repair.servers if view.repair is not None else ():
        if (said.server, said.disk) == (what.server, what.disk):
            return said.replicas if said.mode == ServerMode.DRAINING else None
    return None


def _words(view: Overview, pace: Pace) -> str:
    stuck = view.repair.stuck if view.repair is not None else ""
    return f"{pace.words()}; repair cannot go on: {stuck}" if stuck else pace.words()


@contextmanager
def _goes_on(what: Drained) -> Iterator[None]:
    """Tell whoever stops waiting that the drain does not stop."""
    try:
        yield
    except (KeyboardInterrupt, Failure):
        again, back = what.command("drain"), what.command("back")
        goes_on = f"the drain goes on; `{again} --wait` waits again, `{back}` takes it back"
        output.remark(f"{what.name}: {goes_on}")
        raise


# -- showing it


@contextmanager
def shown(name: str, console: Console | None = None) -> Iterator[Show]:
    """A bar where standard error is a terminal, now and then a line elsewhere."""
    if console is None and not sys.stderr.isatty():
        yield _plain(name)
        return
    with _bar(name, console) as show:
        yield show


def _plain(name: str) -> Show:
    told = -1

    def show(left: int, total: int, words: str) -> None:
        nonlocal told
        step = 100 * (total - left) // max(1, total) // PLAIN_STEP_PERCENT
        if step > told:
            told = step
            output.remark(f"{name}: {left} of {counted(total, 'chunk')} to go; {words}")

    return show


@contextmanager
def _bar(name: str, console: Console | None) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as rich:
        task = rich.add_task(output.printable(name), total=None, words="")

        def show(left: int, total: int, words: str) -> None:
            done = total - left
            rich.update(task, completed=done, total=total, words=output.printable(words))

        yield show
