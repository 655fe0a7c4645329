"""Bytes that servers are rid of although their figures do not show it yet.

A replica that has left its chunk stays on its server for the grace of deletions. Who evens out the
servers' use by what they report would go on moving from a server that has moved enough; so what was
moved is kept in mind until the deletion is carried out and a heartbeat has told of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dfs.config import MasterLimits
from master.state import queries
from master.tables import Tables


@dataclass(slots=True)
class Outflow:
    server: int
    handle: int
    size_bytes: int
    until: float | None = None  # boottime; None: the deletion is still to come


class Outflows:
    """As many as the repair queue is long, four times over; beyond, they are not kept."""

    def __init__(self, tables: Tables, limits: MasterLimits) -> None:
        self._tables, self._limits = tables, limits
        self._outflows: list[Outflow] = []

    def clear(self) -> None:
        self._outflows.clear()

    def note(self, handle: int, servers: tuple[int, ...], size_bytes: int) -> None:
        """The chunk has left these servers."""
        if len(self._outflows) + len(servers) <= 4 * self._limits.repair_queue:
            self._outflows += [Outflow(server, handle, size_bytes) for server in servers]

    def by_server(self) -> dict[int, int]:
        """How much less each will have, as negative bytes."""
        found: dict[int, int] = {}
        for outflow in self._outflows:
            found[outflow.server] = found.get(outflow.server, 0) - outflow.size_bytes
        return found

    def age(self, now: float) -> None:
        """Forget what the servers' figures show by now."""
        for outflow in self._outflows:
            if outflow.until is None:
                noted = queries.deletion_noted(self._tables, outflow.server, outflow.handle)
                outflow.until = now + self._limits.heartbeat_s if noted is None else None
        self._outflows = [o for o in self._outflows if o.until is None or o.until > now]
