"""What a run fails with: the property that did not hold, and the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.history import Op


class Violation(AssertionError):
    """A property of the system did not hold. `ops` are the clients' operations concerned."""

    def __init__(self, rule: str, text: str, ops: Sequence[Op] = ()) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule, self.text, self.ops = rule, text, tuple(ops)
