"""A bound on bytes held by many, handed out in the order asked (C9)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio


class ByteBudget:
    """At most `limit_bytes` taken at a time; who finds too little left waits its turn.

    `on_shortage` is called when somebody has to wait, so that holders can be made to let go.
    """

    def __init__(self, limit_bytes: int, on_shortage: Callable[[], None]) -> None:
        self.limit_bytes = limit_bytes
        self.taken_bytes = 0
        self._on_shortage = on_shortage
        self._waiting: deque[tuple[int, trio.Event]] = deque()

    def try_take(self, size_bytes: int) -> bool:
        """Take without waiting, if that is possible and fair."""
        if self._waiting or not self._fits(size_bytes):
            return False
        self.taken_bytes += size_bytes
        return True

    async def take(self, size_bytes: int) -> None:
        """Take, waiting as long as it needs. More than the limit is granted when all is free."""
        if self.try_take(size_bytes):
            return
        turn = (size_bytes, trio.Event())
        self._waiting.append(turn)
        self._on_shortage()
        try:
            await turn[1].wait()
        except trio.Cancelled:
            if turn[1].is_set():
                self.give_back(size_bytes)
            else:
                self._waiting.remove(turn)
                self._grant()
            raise

    def give_back(self, size_bytes: int) -> None:
        """Let go of that many bytes."""
        self.taken_bytes -= size_bytes
        self._grant()

    def _fits(self, size_bytes: int) -> bool:
        return self.taken_bytes + size_bytes <= self.limit_bytes or not self.taken_bytes

    def _grant(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size_bytes, event = self._waiting.popleft()
            self.taken_bytes += size_bytes
            event.set()
