"""How a cluster begins: all configured masters show empty disks, the one with the lowest id founds.

Only one master decides, and only when it has heard all others, so there is one set of founding
members with the nonces of their disks; the others take it from the first hello that carries it. A
disk that lost its contents cannot found anything anew: it hears from the others that there is a
cluster, or hears nothing and waits.
"""

from __future__ import annotations

from collections.abc import Mapping

from master.raft import formats
from master.raft.formats import Member


class Founding:
    """What is known of the masters' disks before there is a cluster."""

    def __init__(self, me: int, configured: Mapping[int, str]) -> None:
        self._me, self._configured = me, configured
        self._nonces: dict[int, bytes] = {}

    def empty_disk(self, id: int, nonce: bytes) -> None:
        """That master is there and has an empty disk."""
        self._nonces[id] = nonce

    def lost(self, id: int) -> None:
        """That master is not there any more."""
        self._nonces.pop(id, None)

    def decided(self) -> bytes | None:
        """The packed founding members, if it is this master's to decide and it can."""
        if self._me != min(self._configured, default=0):
            return None
        if any(id not in self._nonces for id in self._configured):
            return None
        configured = sorted(self._configured.items())
        return formats.pack_founding([Member(id, a, self._nonces[id]) for id, a in configured])
