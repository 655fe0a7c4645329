"""A whole cluster of real processes with a real mount, as `dfs local` makes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.driver import Local


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    """Not yet up; taken down, and everything of it deleted, at the end."""
    made = Local(tmp_path)
    yield made
    made("down", "--force", "--purge", "--yes")
