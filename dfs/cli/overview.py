"""What the leader knows, asked over a session; and changes of the chunkservers' modes.

The commands for operators decide on an `Overview` and then ask the leader for the change, which it
may still refuse: what is checked here only makes for better sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

from dfs.cli import chunkservers
from dfs.cli.chunkservers import Chunkserver
from dfs.cli.cluster import Session
from dfs.errors import Code, Failure
from dfs.messages.cluster import (
    ClusterStatus,
    GetClusterStatus,
    GetRepairStatus,
    RemoveServer,
    RepairStatus,
    SetServerMode,
)

_ELECTIONS = 3  # leaders that may change between two questions before it is called trouble


@dataclass(frozen=True)
class Overview:
    """The leader's view. `repair` is None when it is of a version that does not tell."""

    status: ClusterStatus
    repair: RepairStatus | None

    @property
    def servers(self) -> tuple[Chunkserver, ...]:
        return chunkservers.joined(self.status, self.repair)


async def look(session: Session) -> Overview:
    """The leader's view. Raises Failure when there is no leader for too long."""
    for _ in range(_ELECTIONS):
        repair = await _repair(session)
        status: ClusterStatus = await session.client.cluster_call(GetClusterStatus())
        if status.leader == status.master:
            return Overview(status, repair)
        # Any master answers that, of what it knows itself. This only the leader answers:
        await session.client.attributes(session.client.root_inode)
    raise Failure(Code.UNAVAILABLE, "the leader changes too often to be asked; try again")


async def _repair(session: Session) -> RepairStatus | None:
    try:
        repair: RepairStatus = await session.client.cluster_call(GetRepairStatus())
    except Failure as failure:
        if failure.code is not Code.BAD_MESSAGE:
            raise
        return None
    return repair


async def change(session: Session, message: SetServerMode | RemoveServer) -> None:
    """Have the leader make the change. Raises its Failure."""
    try:
        await session.client.cluster_call(message)
    except Failure as failure:
        if failure.code is not Code.BAD_MESSAGE:
            raise
        text = f"the leader cannot do that, it may be of an older version: {failure.message}"
        raise Failure(Code.BAD_MESSAGE, text) from failure
