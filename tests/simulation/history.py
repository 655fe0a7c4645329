"""What the clients did and were told: every operation with when it began, when it ended, and how.

An operation that has not ended may or may not have taken effect, then or later: its client died
or does not know. Checkers of the history (`linearize`, `registers`, ...) rely on nothing else.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dfs.errors import Code, Failure
from dfs.runtime.clock import Clock


@dataclass(eq=False)
class Op:
    """One operation of one client. Times are of the world's clock."""

    number: int
    client: str
    action: str
    arguments: tuple[Any, ...]
    began_s: float
    ended_s: float = math.inf
    errno: int = 0
    answer: Any = None

    @property
    def is_open(self) -> bool:
        """Whether its outcome is unknown."""
        return self.ended_s == math.inf

    def __str__(self) -> str:
        called = f"{self.action}({', '.join(map(_short, self.arguments))})"
        if self.is_open:
            return f"{self.began_s:9.3f}     ...    {self.client}: {called} -> ?"
        answer = f"errno {self.errno}" if self.errno else _short(self.answer)
        times = f"{self.began_s:9.3f} - {self.ended_s:8.3f}"
        return f"{times} {self.client}: {called} -> {answer}"


@dataclass
class History:
    """All operations of a run, in the order in which they began."""

    clock: Clock
    ops: list[Op] = field(default_factory=list)

    def begin(self, client: str, action: str, *arguments: Any) -> Op:
        op = Op(len(self.ops), client, action, arguments, self.clock.monotonic())
        self.ops.append(op)
        return op

    def end(self, op: Op, answer: Any = None, errno: int = 0) -> None:
        op.ended_s, op.answer, op.errno = self.clock.monotonic(), answer, errno

    @contextmanager
    def op(self, client: str, action: str, *arguments: Any) -> Iterator[Op]:
        """Around one call: it ends as the block does, `op.answer` is for the block to set.

        A Failure that is the file system's answer (ENOENT, EEXIST, ...) ends it with that errno,
        any other one leaves it open; both go on to the caller.
        """
        op = self.begin(client, action, *arguments)
        try:
            yield op
        except Failure as failure:
            if failure.code == Code.ERRNO and failure.errno != errno.EIO:
                self.end(op, errno=failure.errno)
            raise
        self.end(op, op.answer)

    def of(self, *actions: str) -> list[Op]:
        return [op for op in self.ops if op.action in actions]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
