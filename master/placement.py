"""Where a new chunk's replicas go.

Owns one pure decision: from what is known of the chunkservers now, which of them get the next
chunk, in chain order. Different zones before anything else, then free space and recent load.
Leaves it to the caller to know who is alive and to remember what it gave out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunkserver that could take a replica."""

    server: int
    zone: str
    free_bytes: int
    recent: int  # chunks given to it lately


def score(candidate: Candidate, jitter: float) -> float:
    """The higher the better: free space shared among what was already promised, shaken a little.

    `jitter` in [0, 1) keeps equal servers from being taken in the same order for ever, which
    would make one of them every chunk's primary.
    """
    return candidate.free_bytes / (candidate.recent + 1) * (0.5 + jitter)


def choose(
    candidates: Sequence[Candidate],
    count: int,
    avoid: Collection[int],
    jitters: Sequence[float],
) -> tuple[int, ...]:
    """Up to `count` server ids, the primary first; fewer when there are not enough servers.

    `jitters` has one number in [0, 1) per candidate. Servers in `avoid` (they just failed the
    client that asks) are left out.
    """
    ranked = sorted(
        (c for c in zip(candidates, jitters, strict=True) if c[0].server not in avoid),
        key=lambda c: (-score(*c), c[0].server),
    )
    chosen: list[Candidate] = []
    zones: list[str] = []
    for candidate, _ in ranked:
        if candidate.zone not in zones:
            chosen.append(candidate)
            zones.append(candidate.zone)
    chosen += [c for c, _ in ranked if c not in chosen]
    return tuple(c.server for c in chosen[:count])
