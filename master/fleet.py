"""The chunkservers as repair and placement see them: whom to count on, to read from, to fill.

Puts together what the leader hears (`chunkservers`), what operators have said (the replicated
modes) and the time. A dead server is waited for: it counts as lost only after `repair_grace_s`,
under MAINTENANCE only when that is over, and the wait begins anew each time it comes back, so one
that comes and goes starts no storm. A server with a disk that is being drained gets nothing new:
nobody could say that it would not land on that disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dfs.config import MasterLimits
from dfs.messages.cluster import ServerMode
from dfs.runtime import Env
from master.chunkservers import STALLED_S, Chunkservers
from master.state import queries
from master.state.records import Mode
from master.tables import Tables


@dataclass(frozen=True, slots=True)
class ServerView:
    """One chunkserver of the registry."""

    id: int
    zone: str
    alive: bool  # it beats, or this leader is too young to know
    ready: bool  # it can be told to do something, and has reported what it has
    lost: bool  # dead for so long that its replicas are to be replaced
    draining: bool
    excused: bool  # under maintenance: its absence starts nothing
    takes: bool  # may be given new replicas
    total_bytes: int = 0
    free_bytes: int = 0
    copies: int = 0  # under way to it and from it
    moved_bytes: int = 0  # more than it says that it will have, when all that was begun is done


Fleet = Mapping[int, ServerView]


class FleetWatch:
    """Makes views of the servers."""

    def __init__(
        self, env: Env, tables: Tables, chunkservers: Chunkservers, limits: MasterLimits
    ) -> None:
        self._env, self._tables = env, tables
        self._chunkservers, self._limits = chunkservers, limits

    def modes(self) -> dict[tuple[int, str], Mode]:
        """What operators have said and is not over yet, by (server, disk or "")."""
        return queries.active_modes(self._tables, self._env.clock.wall_ns())

    def views(
        self, copies: Mapping[int, int], moved_bytes: Mapping[int, int]
    ) -> dict[int, ServerView]:
        """Every server of the registry, by id; what is under way, by server."""
        modes = self.modes()
        special = frozenset(server for server, _ in modes)
        return {
            server: replace(
                self._view(server, zone, modes, server in special),
                copies=copies.get(server, 0),
                moved_bytes=moved_bytes.get(server, 0),
            )
            for server, _, zone in queries.servers(self._tables)
        }

    def _view(
        self,
        server: int,
        zone: str,
        modes: Mapping[tuple[int, str], Mode],
        special: bool,
    ) -> ServerView:
        live = self._chunkservers.connected(server)
        mode = modes[server, ""].mode if (server, "") in modes else ServerMode.IN_SERVICE
        dead_for_s = self._chunkservers.dead_for_s(server)
        ready = live is not None and live.reported
        grace_over = dead_for_s > self._limits.repair_grace_s
        fit = live is not None and live.free_bytes > 0 and live.stalled_s < STALLED_S
        return ServerView(
            server,
            zone,
            alive=dead_for_s == 0,
            ready=ready,
            lost=grace_over and mode != ServerMode.MAINTENANCE,
            draining=mode == ServerMode.DRAINING,
            excused=mode == ServerMode.MAINTENANCE,
            takes=ready and fit and not special,
            total_bytes=live.total_bytes if live is not None else 0,
            free_bytes=live.free_bytes if live is not None else 0,
        )
