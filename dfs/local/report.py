"""`dfs local status`: every process of the cluster, and the mounts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dfs import config
from dfs.cli.masters import ask_all, leader_among
from dfs.local import configure, processes, state
from dfs.local.layout import MASTER, MOUNT, Member, Root
from dfs.local.state import State
from dfs.mountinfo import mount_table
from dfs.runtime import Env

_ASK_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Row:
    """One process. `pid` is None when it does not run; a mount's `address` is its directory.

    `metrics` is where its metrics are to be had, "" for nowhere.
    """

    role: str
    id: int
    pid: int | None
    address: str
    data_dir: str
    alive: bool
    leader: bool
    metrics: str


async def report(env: Env, root: Root) -> list[Row]:
    """All processes that the cluster consists of. Raises Failure(CONFIG) when there is none."""
    known = state.must_load(root)
    leader = await _leader_address(env, root, known)
    servers = [_server(root, known, member, leader) for member in known.members()]
    return servers + [_mount(root, known, member) for member in known.mount_members()]


async def _leader_address(env: Env, root: Root, known: State) -> str:
    masters = [member for member in known.members() if member.role == MASTER]
    if not any(processes.running(root, member) for member in masters):
        return ""
    settings = config.load(config.Client, root.client_config)
    leader = leader_among(await ask_all(env, settings, _ASK_TIMEOUT_S))
    return leader.address if leader else ""


def _server(root: Root, known: State, member: Member, leader: str) -> Row:
    process, address = processes.running(root, member), known.address(member)
    return Row(
        role=member.role,
        id=member.id,
        pid=process.pid if process else None,
        address=address,
        data_dir=root.data(member),
        alive=process is not None,
        leader=address == leader,
        metrics=configure.metrics_listen(root, known, member),
    )


def _mount(root: Root, known: State, member: Member) -> Row:
    process = processes.running(root, member)
    return Row(
        role=member.role,
        id=member.id,
        pid=process.pid if process else None,
        address=known.mounts[member.id],
        data_dir="",
        alive=process is not None,
        leader=False,
        metrics=configure.metrics_listen(root, known, member),
    )


def mounted(rows: list[Row]) -> list[str]:
    """The directories at which the cluster is mounted now."""
    directories = {entry.mountpoint for entry in mount_table()}
    return [
        row.address
        for row in rows
        if row.role == MOUNT and row.alive and row.address in directories
    ]


def as_dict(rows: list[Row]) -> dict[str, Any]:
    """What `--json` shows."""
    return {"processes": [asdict(row) for row in rows], "mounts": mounted(rows)}
