"""What a check has found so far, in the form in which it is told.

Bounded: of each kind a certain number is named one by one, and of more only how many there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dfs.messages.checking import Finding
from master.check.findings import Found, Kind, Mend, describe, severity_of
from master.check.paths import Paths


class Ledger:
    """The findings of one check. `scope`: the inodes that count, None for all there is."""

    def __init__(self, most: int) -> None:
        self._most = most  # of a kind
        self.scope: Mapping[int, None] | None = None
        self._unnamed: list[Found] = []
        self._listed: Counter[Kind] = Counter()
        self._unlisted: Counter[Kind] = Counter()
        self.findings: list[Finding] = []
        self._mends: dict[int, Mend] = {}  # by the finding's number

    def in_scope(self, found: Found) -> bool:
        """Whether it is about what was asked for."""
        if self.scope is None:
            return True
        return found.inode in self.scope or (found.name is not None and found.name[0] in self.scope)

    def is_full(self, kind: Kind) -> bool:
        """Whether findings of that kind are only counted any more."""
        return self._listed[kind] >= self._most

    def add(self, found: Found) -> None:
        """One more, to be told once it has a name."""
        if not self.in_scope(found):
            return
        if self.is_full(found.kind):
            self._unlisted[found.kind] += 1
            return
        self._listed[found.kind] += 1
        self._unnamed.append(found)

    def count(self, found: Found) -> None:
        """One more that is not named."""
        if self.in_scope(found):
            self._unlisted[found.kind] += 1

    # -- telling

    def want(self, paths: Paths) -> bool:
        """Say whose names are needed; whether there is anything to name."""
        for found in self._unnamed:
            paths.want(found)
        return bool(self._unnamed)

    def publish(self, paths: Paths | None = None) -> None:
        """Tell what has been found since the last time."""
        unnamed, self._unnamed = self._unnamed, []
        for found in unnamed:
            path = b"" if paths is None else paths.of(found)
            finding = self._told(found, path)
            if found.mend is not None:
                self._mends[finding.number] = found.mend

    def publish_counts(self) -> None:
        """Tell how many more there are than were listed."""
        for kind, more in sorted(self._unlisted.items()):
            self._told(Found(kind, f"{more} more of this kind are not listed"), b"")
        self._unlisted.clear()

    def mend_of(self, number: int) -> Mend | None:
        return self._mends.get(number)

    def _told(self, found: Found, path: bytes) -> Finding:
        finding = Finding(
            number=len(self.findings) + 1,
            kind=str(found.kind),
            severity=int(severity_of(found.kind)),
            text=found.text,
            path=path,
            inode=found.inode,
            offset=found.offset,
            length_bytes=found.length_bytes,
            handle=found.handle,
            server=found.server,
            mend=describe(found.mend),
            saved=found.saved,
        )
        self.findings.append(finding)
        return finding
