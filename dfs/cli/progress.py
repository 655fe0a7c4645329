"""Progress of long copies: a bar on a terminal, nothing elsewhere.

The bar shows bytes, the rate, the time left and the file last begun. The total grows as files are
found, because nobody wants to wait for a tree to be counted first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from dfs.cli import output


class Progress(Protocol):
    def begin(self, path: bytes, size_bytes: int) -> None:
        """A file of about that size (0: unknown) is next."""
        ...

    def advance(self, length_bytes: int) -> None: ...


class Silent:
    """No progress shown."""

    def begin(self, path: bytes, size_bytes: int) -> None:
        pass

    def advance(self, length_bytes: int) -> None:
        pass


@contextmanager
def shown_progress(*, quiet: bool = False) -> Iterator[Progress]:
    """The progress that fits standard error."""
    if quiet or not sys.stderr.isatty():
        yield Silent()
        return
    with _bar() as bar:
        yield bar


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as rich:
        task = rich.add_task("", total=0)
        total = 0

        class Bar:
            def begin(self, path: bytes, size_bytes: int) -> None:
                nonlocal total
                total += size_bytes
                name = output.quoted(path.rpartition(b"/")[2])
                rich.update(task, total=total or None, description=name[:40])

            def advance(self, length_bytes: int) -> None:
                rich.advance(task, length_bytes)

        yield Bar()
