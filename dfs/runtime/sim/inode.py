"""The contents of one simulated file: pages as the kernel caches them, and pages on the platter.

Invariant: the two differ at most in the pages of `_dirty` and in the size, until a sync has failed.
`datasync` makes them equal; a power loss settles each dirty page by lot: old, new, or torn at a
sector's edge, and the size old or new.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dfs.runtime.network import Buffer

if TYPE_CHECKING:
    from dfs.runtime.sim.key_value import Store

PAGE_BYTES = 4096
_SECTOR_BYTES = 512
_ZERO_PAGE = bytes(PAGE_BYTES)


class Inode:
    """One file, named or not."""

    def __init__(self) -> None:
        self.size = 0
        self.store: Store | None = None  # the file is a key-value store
        self._pages: dict[int, bytes] = {}
        self._dirty: dict[int, None] = {}
        self._stable_pages: dict[int, bytes] = {}
        self._stable_size = 0
        self._spoilt: dict[int, None] = {}  # sectors that cannot be read

    @property
    def used_bytes(self) -> int:
        own = len(self._pages) * PAGE_BYTES
        return own + (self.store.used_bytes() if self.store else 0)

    def new_bytes(self, offset: int, length_bytes: int) -> int:
        """How much space a write there would take."""
        if length_bytes == 0:
            return 0
        pages = range(offset // PAGE_BYTES, (offset + length_bytes - 1) // PAGE_BYTES + 1)
        return sum(page not in self._pages for page in pages) * PAGE_BYTES

    def read_into(self, buffer: memoryview, offset: int) -> int:
        total = max(0, min(len(buffer), self.size - offset))
        done = 0
        while done < total:
            page, start = divmod(offset + done, PAGE_BYTES)
            step = min(PAGE_BYTES - start, total - done)
            buffer[done : done + step] = self._pages.get(page, _ZERO_PAGE)[start : start + step]
            done += step
        return total

    def read_all(self) -> bytes:
        data = bytearray(self.size)
        self.read_into(memoryview(data), 0)
        return bytes(data)

    def write(self, data: Buffer, offset: int) -> None:
        view = memoryview(data).cast("B")
        self._heal(offset, offset + len(view))
        done = 0
        while done < len(view):
            page, start = divmod(offset + done, PAGE_BYTES)
            part = view[done : done + PAGE_BYTES - start]
            self._put(page, start, part)
            done += len(part)
        if len(view):
            self.size = max(self.size, offset + len(view))

    def _put(self, page: int, start: int, part: Buffer) -> None:
        self._dirty[page] = None
        if len(part) == PAGE_BYTES:
            self._pages[page] = bytes(part)
            return
        patched = bytearray(self._pages.get(page, _ZERO_PAGE))
        patched[start : start + len(part)] = part
        self._pages[page] = bytes(patched)

    def truncate(self, length_bytes: int) -> None:
        if length_bytes < self.size:
            self._clear(length_bytes, self.size)
        self.size = length_bytes

    def punch(self, offset: int, length_bytes: int) -> None:
        self._clear(offset, min(offset + length_bytes, self.size))

    def _clear(self, start: int, end: int) -> None:
        """Make a range zeros and give up the pages that lie wholly in it, or past the end."""
        for page in [
            p for p in self._pages if p * PAGE_BYTES < end and (p + 1) * PAGE_BYTES > start
        ]:
            first = max(start - page * PAGE_BYTES, 0)
            last = min(end - page * PAGE_BYTES, PAGE_BYTES)
            if first == 0 and (last == PAGE_BYTES or end >= self.size):
                del self._pages[page]
                self._dirty[page] = None
            elif first < last:
                self._put(page, first, bytes(last - first))

    def datasync(self) -> None:
        for page in self._dirty:
            if page in self._pages:
                self._stable_pages[page] = self._pages[page]
            else:
                self._stable_pages.pop(page, None)
        self._dirty.clear()
        self._stable_size = self.size

    def fail_sync(self, chance: random.Random) -> None:
        """As Linux does when it cannot write back: no page counts as dirty any more.

        Some are on the platter, the others in the cache only, where a later sync overlooks them.
        """
        for page in self._dirty:
            if page in self._pages and chance.random() < 0.5:
                self._stable_pages[page] = self._pages[page]
        self._dirty.clear()

    @property
    def is_synced(self) -> bool:
        return not self._dirty and self.size == self._stable_size

    def lose_power(self, chance: random.Random) -> None:
        """Forget the page cache: what was not synced is lost, kept or torn."""
        for page in self._dirty:
            old = self._stable_pages.get(page, _ZERO_PAGE)
            new = self._pages.get(page, _ZERO_PAGE)
            self._stable_pages[page] = _survivor(old, new, chance)
        if self.size != self._stable_size:
            self._stable_size = chance.choice((self.size, self._stable_size))
        self._dirty.clear()
        self._pages = dict(self._stable_pages)
        self.size = self._stable_size
        last = -(-self.size // PAGE_BYTES) * PAGE_BYTES
        self._clear(self.size, max(last, self.size))
        self._pages = {p: data for p, data in self._pages.items() if p * PAGE_BYTES < self.size}
        self._stable_pages = dict(self._pages)
        self._dirty.clear()

    def forget(self, offset: int, length_bytes: int) -> None:
        """The pages that lie wholly in the range and are synced come from the platter again."""
        first, stop = -(-offset // PAGE_BYTES), (offset + length_bytes) // PAGE_BYTES
        pages: Iterable[int] = range(first, stop)
        if stop - first > len(self._pages) + len(self._stable_pages):
            known = self._pages.keys() | self._stable_pages.keys()
            pages = sorted(page for page in known if first <= page < stop)
        for page in pages:
            if page in self._dirty:
                continue
            if page in self._stable_pages:
                self._pages[page] = self._stable_pages[page]
            else:
                self._pages.pop(page, None)  # a sync failed to write it

    def spoil(self, offset: int, length_bytes: int) -> None:
        """Make the sectors of that range unreadable."""
        self._spoilt.update(dict.fromkeys(_sectors(offset, offset + length_bytes)))

    def unspoil(self) -> None:
        self._spoilt.clear()

    def is_spoilt(self, offset: int, length_bytes: int) -> bool:
        sectors = _sectors(offset, offset + length_bytes)
        return any(sector in sectors for sector in self._spoilt)

    def _heal(self, start: int, end: int) -> None:
        """A disk puts what is written to a bad sector elsewhere."""
        sectors = _sectors(start, end)
        for sector in [sector for sector in self._spoilt if sector in sectors]:
            del self._spoilt[sector]

    def content(self, start: int, end: int) -> dict[int, bytes]:
        """What is there of a range that begins with a page: by page, without what is zero."""
        found: dict[int, bytes] = {}
        for page, data in sorted(self._pages.items()):
            if start <= page * PAGE_BYTES < end:
                kept = data[: end - page * PAGE_BYTES]
                if kept.strip(b"\0"):
                    found[page] = kept
        return found

    def pages(self) -> list[int]:
        """Those that hold something; elsewhere are holes."""
        return sorted(self._pages)

    def flip_bit(self, offset: int, *, cached: bool = True) -> None:
        """Corrupt one bit on the platter and, unless told otherwise, in the page cache too."""
        page, start = divmod(offset, PAGE_BYTES)
        for pages in (self._pages, self._stable_pages) if cached else (self._stable_pages,):
            if page in pages:
                flipped = bytearray(pages[page])
                flipped[start] ^= 1
                pages[page] = bytes(flipped)


def _sectors(start: int, end: int) -> range:
    return range(start // _SECTOR_BYTES, -(-end // _SECTOR_BYTES))


def _survivor(old: bytes, new: bytes, chance: random.Random) -> bytes:
    match chance.randrange(4):
        case 0:
            return old
        case 1:
            return new
        case 2:
            edge = _SECTOR_BYTES * chance.randrange(1, PAGE_BYTES // _SECTOR_BYTES)
            return new[:edge] + old[edge:]
        case _:
            edge = _SECTOR_BYTES * chance.randrange(1, PAGE_BYTES // _SECTOR_BYTES)
            return old[:edge] + new[edge:]
