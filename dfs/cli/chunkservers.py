"""The chunkservers and their disks as an operator sees them.

Pure. Joins what the leader knows of the machines (`ServerStatus`: alive, space) with what an
operator has said of them and how far that is (`ServerRepair`: mode, replicas left, graces). Of a
leader that does not tell the latter (an older one) all servers are in service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dfs.cli import output
from dfs.errors import Code, Failure
from dfs.messages.cluster import (
    ClusterStatus,
    DiskReport,
    RepairStatus,
    ServerMode,
    ServerRepair,
    ServerStatus,
)


@dataclass(frozen=True)
class Disk:
    """One data directory. `report` is None when its server does not tell of it (any more)."""

    path: str
    report: DiskReport | None
    repair: ServerRepair | None

    @property
    def draining(self) -> bool:
        return self.repair is not None and self.repair.mode == ServerMode.DRAINING

    @property
    def replicas(self) -> int:
        if self.repair is not None:
            return self.repair.replicas
        return self.report.replicas if self.report is not None else 0

    @property
    def healthy(self) -> bool:
        return self.report is not None and self.report.healthy

    @property
    def state(self) -> str:
        """In a few words."""
        if self.report is None:
            return "not reported"
        if not self.healthy:
            return "FAILED" if self.replicas else "FAILED, empty"
        if self.draining:
            return "draining" if self.replicas else "drained"
        return "in service"


@dataclass(frozen=True)
class Chunkserver:
    """One chunkserver of the registry. `repair` is None when there is nothing to be said.

    `awaited`: it has not registered with a new leader, and may be well all the same.
    """

    status: ServerStatus
    repair: ServerRepair | None
    disks: tuple[Disk, ...]
    awaited: bool = False

    @property
    def id(self) -> int:
        return self.status.id

    @property
    def name(self) -> str:
        return f"chunkserver {self.status.id} at {self.status.address}"

    @property
    def alive(self) -> bool:
        return self.status.alive

    @property
    def mode(self) -> int:
        return self.repair.mode if self.repair is not None else ServerMode.IN_SERVICE

    @property
    def replicas(self) -> int | None:
        """How many chunks have a replica here; None when it is dead and the leader does not say."""
        if self.repair is not None:
            return self.repair.replicas
        return self.status.replicas if self.alive else None

    @property
    def total_bytes(self) -> int:
        return sum(disk.total_bytes for disk in self.status.disks)

    @property
    def free_bytes(self) -> int:
        return sum(disk.free_bytes for disk in self.status.disks)

    @property
    def used_bytes(self) -> int:
        return max(0, self.total_bytes - self.free_bytes)

    @property
    def takes_replicas(self) -> bool:
        return self.alive and self.mode == ServerMode.IN_SERVICE

    @property
    def state(self) -> str:
        """In a few words: in service, draining, drained, maintenance (25 min left), DEAD (42 s)."""
        if self.awaited:
            return "awaited"
        if not self.alive and self.mode != ServerMode.MAINTENANCE:
            return f"DEAD{_time_in_brackets(self.repair.dead_for_s if self.repair else 0)}"
        if self.mode == ServerMode.DRAINING:
            return "draining" if self.replicas else "drained"
        if self.mode == ServerMode.MAINTENANCE:
            left_s = self.repair.until_s if self.repair else 0
            down = "" if self.alive else ", down"
            return f"maintenance{down}{_time_in_brackets(left_s, ' left')}"
        return "in service"


def _time_in_brackets(seconds: float, after: str = "") -> str:
    return f" ({output.duration(seconds)}{after})" if seconds > 0 else ""


def joined(view: ClusterStatus, repair: RepairStatus | None) -> tuple[Chunkserver, ...]:
    """The servers of the registry by id, as a leader tells of them."""
    said = {(s.server, s.disk): s for s in (repair.servers if repair is not None else ())}
    return tuple(
        Chunkserver(
            status,
            said.get((status.id, "")),
            _disks(status, said),
            awaited=view.gathering and not status.alive,
        )
        for status in sorted(view.servers, key=lambda s: s.id)
    )


def _disks(status: ServerStatus, said: dict[tuple[int, str], ServerRepair]) -> tuple[Disk, ...]:
    reported = {disk.path: disk for disk in status.disks}
    known = [disk for server, disk in said if server == status.id and disk]
    paths = [*reported, *(path for path in known if path not in reported)]
    return tuple(Disk(p, reported.get(p), said.get((status.id, p))) for p in paths)


def find(servers: Sequence[Chunkserver], id: int) -> Chunkserver:
    """The server with that id. Raises Failure(CONFIG)."""
    for server in servers:
        if server.id == id:
            return server
    known = ", ".join(str(server.id) for server in servers) or "none"
    raise Failure(Code.CONFIG, f"no chunkserver has the id {id}; there are: {known}")


def find_disk(server: Chunkserver, path: str) -> Disk:
    """The server's data directory of that path. Raises Failure(CONFIG)."""
    for disk in server.disks:
        if disk.path.rstrip("/") == path.rstrip("/"):
            return disk
    if not server.disks and not server.alive:
        raise Failure(Code.CONFIG, f"{server.name} is dead: which disks it has is not known")
    known = ", ".join(disk.path for disk in server.disks) or "none"
    raise Failure(Code.CONFIG, f"{server.name} has no disk {path}; it has: {known}")


def server_table(servers: Sequence[Chunkserver]) -> list[str]:
    """A line for each server, below a head."""
    rows = [["id", "address", "zone", "state", "chunks", "used", "free", "use", "disks"]]
    for server in servers:
        status, total = server.status, server.total_bytes
        healthy = sum(disk.healthy for disk in status.disks)
        space = [output.human_bytes(server.used_bytes), output.human_bytes(server.free_bytes)]
        rows.append(
            [
                str(status.id),
                output.printable(status.address),
                output.printable(status.zone),
                server.state,
                "?" if server.replicas is None else str(server.replicas),
                *(space if total else ["-", "-"]),
                f"{100 * server.used_bytes // total}%" if total else "-",
                f"{healthy}/{len(status.disks)}" if status.disks else "-",
            ]
        )
    return output.table(rows, right=frozenset({4, 5, 6, 7}))


def disk_table(servers: Sequence[Chunkserver]) -> list[str]:
    """A line for each disk of each server, below a head."""
    rows = [["server", "disk", "state", "chunks", "used", "free", "use", "problem"]]
    for server in servers:
        rows += [_disk_row(server, disk) for disk in server.disks]
    return output.table(rows, right=frozenset({3, 4, 5, 6}))


def _disk_row(server: Chunkserver, disk: Disk) -> list[str]:
    space, problem = ["-", "-", "-"], ""
    if disk.report is not None:
        total, damaged = disk.report.total_bytes, disk.report.damaged_blocks
        problem = disk.report.problem or (output.counted(damaged, "damaged block") * bool(damaged))
        used = max(0, total - disk.report.free_bytes)
        space = [output.human_bytes(used), output.human_bytes(disk.report.free_bytes)]
        space.append(f"{100 * used // total}%" if total else "-")
    path, problem = output.printable(disk.path), output.printable(problem)
    return [str(server.id), path, disk.state, str(disk.replicas), *space, problem]


def as_dict(server: Chunkserver) -> dict[str, Any]:
    """A server as `--json` shows it; null where the leader does not say."""
    repair = server.repair
    return {
        "id": server.id,
        "address": server.status.address,
        "zone": server.status.zone,
        "alive": server.alive,
        "awaited": server.awaited,
        "mode": mode_name(server.mode),
        "chunks": server.replicas,
        "total_bytes": server.total_bytes,
        "free_bytes": server.free_bytes,
        "used_bytes": server.used_bytes,
        "maintenance_left_s": repair.until_s if repair else None,
        "dead_for_s": repair.dead_for_s if repair else None,
        "repaired_in_s": repair.repaired_in_s if repair else None,
        "disks": [disk_as_dict(disk) for disk in server.disks],
    }


def disk_as_dict(disk: Disk) -> dict[str, Any]:
    """A disk as `--json` shows it."""
    report = disk.report
    return {
        "path": disk.path,
        "mode": "draining" if disk.draining else "in-service",
        "healthy": disk.healthy,
        "problem": report.problem if report else "not reported",
        "chunks": disk.replicas,
        "damaged_blocks": report.damaged_blocks if report else None,
        "quarantined_files": report.quarantined_files if report else None,
        "scrubbed_ns": report.scrubbed_ns if report else None,
        "total_bytes": report.total_bytes if report else None,
        "free_bytes": report.free_bytes if report else None,
    }


def mode_name(mode: int) -> str:
    """in-service, draining or maintenance; the number of one that a newer leader may send."""
    known = {int(m): m.name.lower().replace("_", "-") for m in ServerMode}
    return known.get(mode, str(mode))
