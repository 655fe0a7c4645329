"""How far the scrub of one disk is, and what it found: the file DIR/scrub.json.

    {"magic": "dfs scrub", "format": 1,
     "paused": BOOL,              held by an operator
     "position": HANDLE,          the replica verified last in the present pass, -1 for none
     "current": PASS or null,     null between two passes
     "last": PASS or null,        the last one that was completed
     "damaged": {"HANDLE": "BITMAP in hex"}}   damaged blocks known, bit i is block i

PASS: {"began_ns": N, "ended_ns": N or 0, "replicas": N, "bytes": N, "found": N}, times in
nanoseconds since 1970. Handles are decimal. A file that cannot be used only costs a pass.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from dfs.messages.scrubbing import ScrubPass

MAGIC = "dfs scrub"
FORMAT = 1
BEFORE_ALL = -1


@dataclass(slots=True)
class ScrubState:
    """The file's contents."""

    paused: bool = False
    position: int = BEFORE_ALL
    current: ScrubPass | None = None
    last: ScrubPass | None = None
    damaged: dict[int, int] = field(default_factory=dict)

    def begin(self, now_ns: int) -> None:
        """A pass begins."""
        self.position, self.current = BEFORE_ALL, ScrubPass(began_ns=now_ns)

    def verified(self, handle: int, size_bytes: int, found: int) -> None:
        """The present pass has come past that replica."""
        done = self.current or ScrubPass()
        self.current = dataclasses.replace(
            done,
            replicas=done.replicas + 1,
            bytes=done.bytes + size_bytes,
            found=done.found + found,
        )
        self.position = handle

    def end(self, now_ns: int) -> ScrubPass:
        """The present pass is complete."""
        ended = dataclasses.replace(self.current or ScrubPass(), ended_ns=now_ns)
        self.position, self.current, self.last = BEFORE_ALL, None, ended
        return ended


def encode(state: ScrubState) -> bytes:
    """The file's bytes."""
    content = {
        "magic": MAGIC,
        "format": FORMAT,
        "paused": state.paused,
        "position": state.position,
        "current": dataclasses.asdict(state.current) if state.current else None,
        "last": dataclasses.asdict(state.last) if state.last else None,
        "damaged": {str(handle): f"{blocks:x}" for handle, blocks in sorted(state.damaged.items())},
    }
    return json.dumps(content).encode() + b"\n"


def decode(content: bytes) -> ScrubState:
    """What the file says. Raises ValueError when it cannot be used."""
    try:
        found = json.loads(content)
        if (found["magic"], found["format"]) != (MAGIC, FORMAT):
            raise ValueError("another magic or format")
        return ScrubState(
            bool(found["paused"]),
            int(found["position"]),
            _pass(found["current"]),
            _pass(found["last"]),
            {int(handle): int(blocks, 16) for handle, blocks in found["damaged"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no scrub state, {type(error).__name__}: {error}") from None


def _pass(found: Any) -> ScrubPass | None:
    if found is None:
        return None
    names = [each.name for each in dataclasses.fields(ScrubPass)]
    return ScrubPass(**{name: int(found[name]) for name in names})
