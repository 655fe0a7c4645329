"""Merging what several sources list in rising order, page by page and without holding any whole.

Each source is a `Pages`: what has come of it and is not merged yet. `merged` hands out rows for as
long as every source is known up to them; then the starved ones need their next page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class Pages(Generic[T]):
    """One source: items by rising handle, as far as they have come."""

    def __init__(self) -> None:
        self._items: deque[tuple[int, T]] = deque()
        self.after = 0  # everything up to this handle has come
        self.complete = False  # nothing comes beyond it

    @property
    def starved(self) -> bool:
        """Whether the next page is needed before anything can be merged."""
        return not self._items and not self.complete

    def add(self, page: Sequence[tuple[int, T]], *, complete: bool) -> None:
        """The next page. Raises ValueError for a source that does not keep to the order."""
        for handle, item in page:
            if handle <= self.after:
                raise ValueError(f"handle {handle:x} after {self.after:x}")
            self.after = handle
            self._items.append((handle, item))
        if not page and not complete:
            raise ValueError("an empty page that is not the last")
        self.complete = complete

    def give_up(self) -> None:
        """Nothing more can be had of it."""
        self.complete = True

    def next_handle(self) -> int | None:
        return self._items[0][0] if self._items else None

    def take(self, handle: int) -> T | None:
        """The item of that handle, if it is next."""
        if self._items and self._items[0][0] == handle:
            return self._items.popleft()[1]
        return None


def merged(sources: Mapping[K, Pages[T]]) -> Iterator[tuple[int, dict[K, T]]]:
    """(handle, the item of each source that has one), rising, until a source is starved."""
    while not any(pages.starved for pages in sources.values()):
        heads = [h for p in sources.values() if (h := p.next_handle()) is not None]
        if not heads:
            return
        handle = min(heads)
        row = {}
        for source, pages in sources.items():
            item = pages.take(handle)
            if item is not None:
                row[source] = item
        yield handle, row
