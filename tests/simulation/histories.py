"""Histories made by hand, for the tests of those who judge them."""

from __future__ import annotations

import math
from typing import Any

from tests.simulation.history import Op


class Script:
    """Operations one by one: `did(begin, end, action, arguments, answer, errno)`."""

    def __init__(self) -> None:
        self.ops: list[Op] = []

    def did(
        self,
        began_s: float,
        ended_s: float,
        action: str,
        *arguments: Any,
        answer: Any = None,
        errno: int = 0,
    ) -> Op:
        number = len(self.ops)
        op = Op(number, f"c{number}", action, arguments, began_s, ended_s, errno, answer)
        self.ops.append(op)
        return op

    def lost(self, began_s: float, action: str, *arguments: Any) -> Op:
        """Its client never heard what became of it."""
        return self.did(began_s, math.inf, action, *arguments)
