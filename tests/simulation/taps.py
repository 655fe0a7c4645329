"""Wraps methods of the real classes, for monitors that look on and mutants that break something.

Everything put in place within `Taps` is taken away at its end, in reverse order, so that a run
leaves no trace in the process. A tap put in later wraps the earlier one: mutants go in first,
monitors see what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

_MISSING = object()


class Taps:
    """A context: what was replaced comes back when it ends."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Taps:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._undo:
            self._undo.pop()()

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Set a class's or module's attribute, which must exist; staticmethods stay such."""
        getattr(owner, name)  # a misspelt name is an error, not a tap that does nothing
        old = vars(owner).get(name, _MISSING)
        setattr(owner, name, value)

        def undo() -> None:
            if old is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, old)

        self._undo.append(undo)

    def around(self, owner: type, name: str, wrapper: Callable[..., Any]) -> None:
        """Call `wrapper(original, self, *arguments)` in place of a method, async ones included."""
        original = getattr(owner, name)

        def method(self: Any, *arguments: Any, **named: Any) -> Any:
            return wrapper(original, self, *arguments, **named)

        self.replace(owner, name, method)
