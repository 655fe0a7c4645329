"""The addresses at which to look for the leader, as they change while a process runs.

Masters are added and removed; all those of a process's configuration may be gone one day. So
whoever looks for the leader (clients, chunkservers) asks each one that it finds for the present
members, and looks there first, and only then at what its configuration says.
"""

from __future__ import annotations


class KnownMasters:
    """What was told last, then what was configured. Never empty."""

    def __init__(self, configured: tuple[str, ...]) -> None:
        self._configured = configured
        self._all = configured

    @property
    def all(self) -> tuple[str, ...]:
        """Every address worth asking, the likeliest first."""
        return self._all

    def learn(self, members: tuple[str, ...]) -> bool:
        """The leader said that these are the masters; whether that was new."""
        known = (*members, *(a for a in self._configured if a not in members))
        is_new = set(known) != set(self._all)
        if is_new:
            self._all = known
        return is_new

    def after(self, address: str) -> str:
        """The next one to ask when that one does not lead."""
        at = self._all.index(address) if address in self._all else -1
        return self._all[(at + 1) % len(self._all)]
