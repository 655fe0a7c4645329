"""The outcome of a command over several files: each failure a line at once, the rest goes on.

A failure that would befall every other file too (the cluster is gone) is not collected: it ends
the command.
"""

from __future__ import annotations

import os

from dfs.cli import output
from dfs.cli.exits import Exit, exit_for
from dfs.errors import Failure


class Outcome:
    """Counts what was done and what failed."""

    def __init__(self) -> None:
        self.done = 0
        self.failed = 0

    def succeed(self) -> None:
        self.done += 1

    def fail(self, error: Failure | OSError, path: bytes = b"") -> None:
        """Say what failed; `path` is for an OSError that does not name its own."""
        if isinstance(error, Failure):
            if exit_for(error) is Exit.UNREACHABLE:
                raise error
            output.complain(error.message)
        else:
            named = os.fsencode(error.filename) if error.filename else path
            output.complain(f"{output.quoted(named)}: {error.strerror or error}")
        self.failed += 1

    def exit_code(self) -> Exit:
        if not self.failed:
            return Exit.OK
        return Exit.PARTIAL if self.done else Exit.FAILURE
