"""From a profile and a seed to a plan: who works at what, on which cluster, under which faults.

A profile says what may happen; the seed decides what does, swarm style: each run gets a random few
of the kinds of faults and random knobs, since runs that have everything reach less than runs that
have a lot of a little.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

from tests.simulation.cluster import Knobs
from tests.simulation.faults import of_families
from tests.simulation.plan import Plan, Strike

ALWAYS = ("masters", "chunkservers", "clients", "links", "clocks")
DISKS = ("power", "disks", "master disks")
KINDS_MAX = 6
GAP_MIN_S, GAP_MAX_S = 0.5, 8.0


@dataclass(frozen=True)
class Profile:
    """`focus` are families of which every run has at least one kind."""

    name: str
    about: str
    workloads: tuple[str, ...]
    families: tuple[str, ...] = ALWAYS
    focus: tuple[str, ...] = ()
    seconds: float = 60.0
    clients_max: int = 3
    session_ttl_s: float = 20.0
    reap_batches: tuple[int, int] = (2, 256)  # so many orphans a second, about
    stall_max_s: float = math.inf  # Raft's times are the usual ones where it is finite


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "trees",
            "each client in a tree of its own, knowing every answer; shared files in turn",
            ("trees",),
            (*ALWAYS, *DISKS, "everything", "operations", "members"),
        ),
        Profile(
            "namespace",
            "storms on few names; linearizable",
            ("namespace",),
            (*ALWAYS, "everything", "operations", "members", "client deaths", "blackout"),
            clients_max=4,
        ),
        Profile(
            "orphans",
            "files unlinked while open; trees built and torn down",
            ("orphans", "teardown"),
            (*ALWAYS, *DISKS, "everything", "client deaths"),
            reap_batches=(16, 256),
        ),
        Profile(
            "sessions",
            "clients away for longer than their sessions live, storms on names beside",
            ("sessions", "namespace"),
            ("masters", "clients", "client deaths", "links", "clocks"),
            session_ttl_s=5.0,
        ),
        Profile(
            "blocks",
            "overwrites of shared blocks; each block a register",
            ("blocks",),
            (*ALWAYS, *DISKS, "everything", "operations", "client deaths"),
            clients_max=4,
        ),
        Profile(
            "logs",
            "append-only logs read along; prefixes of dead clients",
            ("logs",),
            (*ALWAYS, *DISKS, "everything", "operations", "client deaths"),
            focus=("client deaths",),
        ),
        Profile(
            "turns",
            "files changed in turn: cuts, growth, holes, ends of chunks",
            ("turns",),
            (*ALWAYS, *DISKS, "everything", "operations"),
        ),
        Profile(
            "streams",
            "big sequential streams through failing chains",
            ("streams",),
            ("masters", "chunkservers", *DISKS, "links"),
            focus=("chunkservers",),
            clients_max=2,
        ),
        Profile(
            "blackout",
            "the power of everything fails; what was synced is there",
            ("blocks", "logs"),
            ("masters", "blackout", "chunkservers", "clocks"),
            focus=("blackout",),
        ),
        Profile(
            "members",
            "masters come, go and are replaced; everything is drained and restarted",
            ("namespace", "logs"),
            ("masters", "members", "operations", "clients", "clocks"),
            focus=("members", "operations"),
        ),
        Profile(
            "losses",
            "a master, a chunkserver or a disk is lost, one at a time; nobody waits for long (C6)",
            ("trees",),
            ("losses", "power", "disks"),
            focus=("losses",),
            stall_max_s=3.0,
        ),
        Profile(
            "double-losses",
            "a master and a chunkserver are lost at a time; nobody waits for very long",
            ("trees",),
            ("double losses",),
            stall_max_s=10.0,
        ),
    )
}


def draw(
    profile_name: str, seed: int, *, seconds: float | None = None, faults: tuple[str, ...] = ()
) -> Plan:
    """The plan of that seed; with `faults`, just these kinds strike."""
    profile = PROFILES[profile_name]
    chance = random.Random(f"{profile.name}/{seed}")
    seconds = profile.seconds if seconds is None else seconds
    return Plan(
        seed=seed,
        profile=profile.name,
        masters=chance.choice((3, 3, 3, 5)),
        chunkservers=chance.choice((3, 3, 4, 4, 5, 6)),
        clients=chance.randint(2, profile.clients_max),
        seconds=seconds,
        knobs=replace(_knobs(profile, chance), repair_grace_s=_grace_s(profile, seed)),
        workloads=profile.workloads,
        strikes=_strikes(profile, seed, chance, seconds, faults),
        stall_max_s=profile.stall_max_s,
    )


def _knobs(profile: Profile, chance: random.Random) -> Knobs:
    keep = chance.choice([5, 100])
    paces = [1.0, 1.0, 2.0] if profile.stall_max_s == math.inf else [1.0]
    return Knobs(
        compact_entries=chance.choice([10, 40, 200]) + keep,
        keep_entries=keep,
        session_ttl_s=profile.session_ttl_s,
        packet_bytes=chance.choice([65_536, 256 << 10]),
        reap_batch=chance.choice(profile.reap_batches),
        raft_pace=chance.choice(paces),
        batch_bytes=chance.choice([256 << 10, 4 << 20]),
        inline_flush_below_s=chance.choice([0.0, 0.004]),
        submits_in_flight=chance.choice([1, 4]),
        write_window_bytes=chance.choice([256 << 10, 1 << 20]),
        read_cache_bytes=chance.choice([0, 128 << 20]),
    )


def _grace_s(profile: Profile, seed: int) -> float:
    """Longer than anybody is away, mostly, or shorter, so that servers count as lost."""
    return random.Random(f"{profile.name}/{seed}/grace").choice((3.0, 20.0, 20.0))


def _kinds(profile: Profile, seed: int, many: int) -> list[str]:
    """So many of the kinds of its families, and one of each that it focuses on.

    Each kind has a rank of its own in each seed, and the first are taken: a kind that is new
    displaces others in few seeds and leaves the rest as they were.
    """
    ranks = {
        name: random.Random(f"{profile.name}/{seed}/{name}").random()
        for name in of_families(profile.families)
    }
    chosen = sorted(ranks, key=ranks.__getitem__)[:many]
    chosen += [min(of_families([family]), key=ranks.__getitem__) for family in profile.focus]
    return chosen


def _strikes(
    profile: Profile,
    seed: int,
    chance: random.Random,
    seconds: float,
    faults: tuple[str, ...],
) -> tuple[Strike, ...]:
    many = chance.randint(1, KINDS_MAX)
    chosen = list(faults) or _kinds(profile, seed, many)
    found: list[Strike] = []
    at_s = chance.uniform(0.0, GAP_MAX_S)
    pace = chance.choice((0.5, 1.0, 2.0))
    while at_s < seconds:
        found.append(Strike(round(at_s, 3), chance.choice(chosen), chance.randrange(1 << 32)))
        at_s += chance.uniform(GAP_MIN_S, GAP_MAX_S) * pace
    return tuple(found)
