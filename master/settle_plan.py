"""How a chunk is settled: from which replica, which others take part, and who is waited for.

Pure decisions. What makes a replica a good source: every write that was acknowledged reached every
member of the set, at the version of that moment. So a member that was away lacks nothing that was
acknowledged while it stayed in the set, whatever its version; only two kinds can lack something:

- LOST replicas (power loss before a sync). They come last, and if there is nothing better the loss
  is counted, after `lost_wait_s` for a better one.
- JOINING ones, and those that do not exist. They are never a source.

Among the others an undamaged one comes before a damaged one, then the higher version (readers have
seen it), then one that had no room for what another source holds (what that one holds more was not
acknowledged), then the more settled, then the chain's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dfs.messages.chunks import ReplicaState

FAILURES_MAX = 2  # a member that failed so often in turn is left out


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a replica set, as far as the leader knows."""

    server: int
    alive: bool  # it beats, or may be about to, because the leader is new
    reported: bool  # it has told this leader what it has
    version: int  # of its replica; 0: it has none
    state: int = ReplicaState.SETTLED
    damaged: bool = False
    failures: int = 0  # of settling this chunk with it, in turn
    ahead: bool = False  # its version is higher than the chunk's
    length_bytes: int = 0  # of a LOST replica: what it has kept
    full: bool = False  # it had no room for what another source has, which nobody was promised

    @property
    def present(self) -> bool:
        return self.alive and self.reported

    @property
    def complete(self) -> bool:
        """Whether it is a whole replica, good or bad."""
        return self.version > 0 and self.state != ReplicaState.JOINING and not self.ahead


@dataclass(frozen=True, slots=True)
class Patience:
    settle_wait_s: float
    lost_wait_s: float


@dataclass(frozen=True, slots=True)
class Order:
    """Settle: `servers` is the replica set to have, the source first; the others take part or not.

    `joining` are those of `chain` that hold no complete replica. `left_out` stay in the set and
    are settled later. `lost`: what was acknowledged may be gone. `suffices`: when this is done,
    so many will be here that those left out need not stay.
    """

    servers: tuple[int, ...]
    chain: tuple[int, ...]
    joining: tuple[int, ...]
    left_out: tuple[int, ...]
    lost: bool
    suffices: bool

    @property
    def source(self) -> int:
        return self.servers[0]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done, or not yet: look again after that time."""

    seconds: float
    reason: str


def decide(
    members: Sequence[Member], *, fresh: bool, least: int, waited_s: float, patience: Patience
) -> Order | Wait | None:
    """What to do for a chunk with these members, in chain order; None: there is nothing to settle.

    `fresh`: a replica may not exist yet. `least`: so many complete replicas the set must keep.
    """
    usable = [m for m in members if m.present and m.failures < FAILURES_MAX and not m.ahead]
    sources = [m for m in usable if m.complete]
    if not sources:
        if fresh and all(m.present and m.version == 0 for m in members):
            return None
        return Wait(patience.lost_wait_s, "no complete replica is here")
    source = min(sources, key=_badness)
    left_s = _wait_for_others(members, source, patience) - waited_s
    if left_s > 0:
        return Wait(left_s, "more replicas may come back")
    part = [m for m in usable if m.complete or m.state == ReplicaState.JOINING or fresh]
    if sum(m.complete for m in part) < least:
        part = [m for m in members if m in part or _may_be_reached(m)]
    return _order(members, source, part, least)


def _may_be_reached(member: Member) -> bool:
    """Whether the source should try a member that this leader does not hear of.

    Without it there would be too few to go on writing; and it may be cut off from the leader alone.
    """
    return not member.present and member.complete and member.failures == 0


def _badness(member: Member) -> tuple[object, ...]:
    """The least bad is the source; of equals `min` takes the first in the chain."""
    lost = member.state == ReplicaState.LOST
    kept = member.length_bytes if lost else 0  # of several that lost something, who kept most
    return (
        lost,
        member.failures,
        member.damaged,
        -member.version,
        not member.full,  # what it holds fits everywhere
        member.state,
        -kept,
    )


def _wait_for_others(members: Sequence[Member], source: Member, patience: Patience) -> float:
    if all(m.present for m in members):
        return 0.0
    if source.state == ReplicaState.LOST:
        return patience.lost_wait_s
    about_to_report = any(m.alive and not m.reported for m in members)
    if source.state == ReplicaState.UNSETTLED or about_to_report:
        return patience.settle_wait_s
    return 0.0


def _order(members: Sequence[Member], source: Member, part: list[Member], least: int) -> Order:
    out = [m for m in members if m not in part]
    leaving = [m for m in out if m.present and not m.ahead and _may_leave(m, members, part, least)]
    staying = [m for m in members if m is not source and m not in leaving]
    chain = tuple(m.server for m in part if m is not source)
    return Order(
        servers=(source.server, *(m.server for m in staying)),
        chain=chain,
        joining=tuple(m.server for m in part if not m.complete),
        left_out=tuple(m.server for m in staying if m.server not in chain),
        lost=source.state == ReplicaState.LOST,
        suffices=sum(m.present for m in part) >= least,
    )


def _may_leave(member: Member, members: Sequence[Member], part: list[Member], least: int) -> bool:
    """Whether a member that is here and takes no part may leave the set (C1).

    One that never became a replica may, always. One that has lost its replica may while enough of
    the set have theirs, wherever they are; one that has it and fails, while enough are here.
    """
    if member.state == ReplicaState.JOINING:
        return True
    if not member.complete:
        others = [m for m in members if m.complete and m.failures < FAILURES_MAX]
        return len(others) >= least
    return sum(m.complete and m.present and m.state != ReplicaState.LOST for m in part) >= least
