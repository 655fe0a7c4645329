"""`Tables` in memory, for tests."""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedDict

from master.tables import STATE_TABLES


class MemoryTables:
    """Every table a sorted dictionary. A write while a scan is open fails the test."""

    def __init__(self) -> None:
        self.tables: dict[str, SortedDict[bytes, bytes]] = {t: SortedDict() for t in STATE_TABLES}
        self.writes = 0
        self._scans = 0

    def get(self, table: str, key: bytes) -> bytes | None:
        value: bytes | None = self.tables[table].get(key)
        return value

    def put(self, table: str, key: bytes, value: bytes) -> None:
        assert not self._scans, f"put into {table} while a scan is open"
        self.writes += 1
        self.tables[table][key] = value

    def delete(self, table: str, key: bytes) -> None:
        assert not self._scans, f"delete from {table} while a scan is open"
        self.writes += 1
        self.tables[table].pop(key, None)

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        self._scans += 1
        try:
            keys = self.tables[table].irange(start, end, inclusive=(True, False))
            for key in keys:
                yield key, self.tables[table][key]
        finally:
            self._scans -= 1

    def copy(self) -> dict[str, dict[bytes, bytes]]:
        """All contents, to compare with."""
        return {table: dict(values) for table, values in self.tables.items()}
