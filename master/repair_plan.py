"""What a chunk's replica set lacks, and the one next step that mends it. Pure decisions.

A set is in the first of these classes that fits: ENDANGERED (one replica left alive while more are
wanted: no grace), UNDER_REPLICATED, DRAINING, SURPLUS, MISPLACED (two in one zone while another
zone has room). Whatever the class, the plan is a copy or a removal, and afterwards the set is
looked at again: replacing a server is a copy and then a removal. So nothing is removed before what
replaces it is a settled replica, and a plan that was interrupted needs no undoing.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from master.fleet import Fleet, ServerView


class RepairClass(enum.IntEnum):
    """In the order in which they are worked on."""

    ENDANGERED = 1
    UNDER_REPLICATED = 2
    DRAINING = 3
    MISPLACED = 4
    REBALANCING = 5
    SURPLUS = 6

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Needs:
    """A chunk, or any chunk with that replica set."""

    wanted: int
    servers: tuple[int, ...]  # in chain order
    size_bytes: int
    missing: Collection[int] = ()  # members that have no replica of it
    behind: Collection[int] = ()  # members whose replica could not be settled
    leaving: Collection[int] = ()  # members that it is to be moved away from, beside draining ones
    stale: Collection[int] = ()  # servers that have an older replica of it, not deleted yet
    avoid: Collection[int] = ()  # servers that have just failed to take it


@dataclass(frozen=True, slots=True)
class Copy:
    """Make a replica at `target`, from one of `sources` (the least busy first), and let it join."""

    target: int
    sources: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Remove:
    """Take these out of the set: enough others serve."""

    servers: tuple[int, ...]


class Pause(enum.Enum):
    """Why a chunk's next step cannot begin now."""

    BUSY = 1  # the servers have enough to do
    LATER = 2  # somebody may come back, and then there is less to do


def is_taken(step: Copy | Remove, servers: Collection[int]) -> bool:
    """Whether this set is one after the step."""
    if isinstance(step, Copy):
        return step.target in servers
    return not any(server in servers for server in step.servers)


class _Members:
    """A chunk's members, sorted by what they are worth."""

    def __init__(self, needs: Needs, fleet: Fleet) -> None:
        known = [fleet[s] for s in needs.servers if s in fleet]
        self.holding = [v for v in known if v.id not in needs.missing]
        self.alive = [v for v in self.holding if v.alive and v.id not in needs.behind]
        self.present = [v for v in self.holding if not v.lost]
        self.kept = [v for v in self.present if not v.draining and v.id not in needs.leaving]
        self.serving = [v for v in self.kept if v in self.alive]


def classify(needs: Needs, fleet: Fleet) -> RepairClass | None:
    """Which class the set is in; None: nothing is to be done, or nothing can be."""
    members, wanted = _Members(needs, fleet), needs.wanted
    if not members.alive:
        return None
    if len(members.alive) == 1 and wanted > 1:
        return RepairClass.ENDANGERED
    if len(members.present) < wanted:
        return RepairClass.UNDER_REPLICATED
    if len(members.kept) < len(members.present):
        return RepairClass.DRAINING
    if len(members.kept) < len(needs.servers) or len(members.kept) > wanted:
        return RepairClass.SURPLUS
    if _new_zones(members.kept, needs, fleet):
        return RepairClass.MISPLACED
    return None


def is_unreadable(needs: Needs, fleet: Fleet) -> bool:
    """Whether nobody who is alive has a replica."""
    return not _Members(needs, fleet).alive


def plan(needs: Needs, fleet: Fleet, copies_per_server: int) -> Copy | Remove | None:
    """The next step; None: nothing is to be done, or nothing can be just now."""
    kind = classify(needs, fleet)
    if kind is None:
        return None
    members = _Members(needs, fleet)
    if len(members.serving) >= needs.wanted and kind != RepairClass.MISPLACED:
        return Remove(_victims(needs, members))
    if kind == RepairClass.SURPLUS:
        return None  # enough in number, but somebody has to come back first
    target = _target(needs, members, fleet, copies_per_server, kind)
    sources = [v for v in members.alive if v.ready and v.copies < copies_per_server]
    if target is None or not sources:
        return None
    sources.sort(key=lambda v: v.copies)
    return Copy(target.id, tuple(v.id for v in sources))


def choose_target(
    needs: Needs,
    remaining: Sequence[ServerView],
    fleet: Fleet,
    copies_per_server: int,
) -> ServerView | None:
    """Who gets a copy: another zone first, then an older replica, then free space and load."""
    zones = [v.zone for v in remaining]
    fit = [v for v in fleet.values() if _fits(v, needs) and v.copies < copies_per_server]
    return min(
        fit,
        key=lambda v: (
            v.zone in zones,
            v.id not in needs.stale and v.id not in needs.missing,
            -v.free_bytes / (v.copies + 1),
            v.id,
        ),
        default=None,
    )


def _fits(view: ServerView, needs: Needs) -> bool:
    member = view.id in needs.servers and view.id not in needs.missing
    outside = not member and view.id not in needs.avoid and view.id not in needs.leaving
    room = view.free_bytes > needs.size_bytes * (view.copies + 1)
    return view.takes and outside and room


def _target(
    needs: Needs, members: _Members, fleet: Fleet, copies_per_server: int, kind: RepairClass
) -> ServerView | None:
    remaining = members.kept or members.present
    target = choose_target(needs, remaining, fleet, copies_per_server)
    if kind == RepairClass.MISPLACED and target is not None:
        return target if target.zone in _new_zones(members.kept, needs, fleet) else None
    return target


def _new_zones(kept: Sequence[ServerView], needs: Needs, fleet: Fleet) -> list[str]:
    """Zones with room that have none of the replicas, when another zone has two of them."""
    zones = [v.zone for v in kept]
    if len(frozenset(zones)) == len(zones):
        return []
    return sorted({v.zone for v in fleet.values() if _fits(v, needs) and v.zone not in zones})


def _victims(needs: Needs, members: _Members) -> tuple[int, ...]:
    """Who goes: those that are not kept, and of the others as many as are too many."""
    staying = list(members.kept)
    while len(staying) > needs.wanted:
        staying.remove(max(staying, key=lambda v: _dispensable(v, staying)))
    ids = [v.id for v in staying]
    return tuple(s for s in needs.servers if s not in ids)


def _dispensable(view: ServerView, staying: Sequence[ServerView]) -> tuple[object, ...]:
    """Somebody who is away, then one of two in a zone, then the fullest."""
    twins = sum(v.zone == view.zone for v in staying)
    return not view.alive, twins > 1, used_fraction(view), view.id


# -- rebalancing


def used_fraction(view: ServerView) -> float:
    """Of the server's space, when all that was begun is done."""
    if view.total_bytes == 0:
        return 0.0
    return (view.total_bytes - view.free_bytes + view.moved_bytes) / view.total_bytes


@dataclass(frozen=True, slots=True)
class Shift:
    """Move chunks from the fullest server to the emptiest."""

    source: int
    target: int


def find_shift(fleet: Fleet, size_bytes: int, band: float) -> Shift | None:
    """Between whom chunks should be moved; None while all are within the band.

    A move has to leave the fuller one the fuller one, so that nothing goes back and forth.
    """
    used = {v.id: used_fraction(v) for v in fleet.values()}
    givers = [v for v in fleet.values() if v.ready and v.total_bytes and not v.draining]
    takers = [v for v in fleet.values() if v.takes and v.total_bytes]
    if not givers or not takers:
        return None
    fullest = max(givers, key=lambda v: (used[v.id], v.id))
    emptiest = min(takers, key=lambda v: (used[v.id], v.id))
    if used[fullest.id] - used[emptiest.id] <= band:
        return None
    after = used[fullest.id] - size_bytes / fullest.total_bytes
    if after < used[emptiest.id] + size_bytes / emptiest.total_bytes:
        return None
    return Shift(fullest.id, emptiest.id)


def may_shift(shift: Shift, needs: Needs, fleet: Fleet) -> bool:
    """Whether this chunk can be moved so, without putting two into one zone."""
    if shift.source not in needs.servers or classify(needs, fleet) is not None:
        return False
    if shift.target not in fleet or not _fits(fleet[shift.target], needs):
        return False
    others = [fleet[s].zone for s in needs.servers if s != shift.source and s in fleet]
    zone = fleet[shift.target].zone
    return zone not in others or fleet[shift.source].zone in others
