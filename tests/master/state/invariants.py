"""What must hold of the whole state at any time: that `dfs fsck` finds nothing in it."""

from __future__ import annotations

from master.check.findings import Found
from master.check.state import check_state
from master.tables import Tables


def check(tables: Tables) -> None:
    """Raise AssertionError where the state contradicts itself."""
    found = [event for event in check_state(tables, window=1000) if isinstance(event, Found)]
    assert not found, "\n".join(f"{f.kind}: {f.text}" for f in found)
