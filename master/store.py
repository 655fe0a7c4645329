"""The master's durable state, held so that the event loop never waits for an fsync.

Owns the one key-value file of a master (state tables and Raft's own tables alike) and, over it,
two layers of changes that are not on disk yet:

    active overlay   being filled by `put` and `delete`
    sealed overlay   being written by `flush`, in a worker thread when the disk is slow
    KeyValue         what is durable

Reads consult the three in that order. A flush is one `KeyValue.write`: everything written before
it (log, term, vote, applied index and state) becomes durable together or not at all. Invariants:
one flush at a time; a scan shows the moment it was asked for, on every master alike, whatever has
been flushed there. Knows nothing of what the tables mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import trio
from sortedcontainers import SortedDict

from dfs.config import Raft
from dfs.errors import Failure
from dfs.metrics.instruments import Timings
from dfs.runtime import Env, KeyValue, WriteBatch
from master.tables import STATE_TABLES

JOURNAL = "journal"  # the Raft log
META = "raft"  # term, vote, applied index: this master's own
MEMBERS = "members"  # the masters, replicated

RAFT_TABLES = (JOURNAL, META, MEMBERS)

_ENTRY_OVERHEAD_BYTES = 200  # of a key and a value in an overlay, roughly
_FIRST_PAGE, _MAX_PAGE = 8, 1024  # pairs that a scan reads ahead; most scans are short
_SMOOTHING = 0.2  # weight of the newest flush in the moving average

Overlay = dict[str, "SortedDict[bytes, bytes | None]"]
Pair = tuple[bytes, bytes]


class Store:
    """Tables with writes that are visible at once and durable after `flush`."""

    def __init__(self, key_value: KeyValue, limits: Raft) -> None:
        self._key_value, self._limits = key_value, limits
        self._active: Overlay = {}
        self._sealed: Overlay = {}
        self._active_bytes = 0
        self._recent_flush_s = 2 * limits.inline_flush_below_s  # guilty until proven fast
        self._copying = trio.Lock()  # the file must not be replaced under a copy
        self.on_damage: Callable[[Failure], None] = _nothing  # the file cannot be read
        self.flushes = 0
        self.flush_timings = Timings()

    @classmethod
    def open(cls, env: Env, path: str, limits: Raft) -> Store:
        """Open or create the file. Raises Failure DISK when it is damaged."""
        tables = (*STATE_TABLES, *RAFT_TABLES)
        return cls(env.disk.open_key_value(path, tables, limits.map_size_bytes), limits)

    def close(self) -> None:
        """Release the file; unflushed writes are lost."""
        self._key_value.close()

    # -- Tables

    def get(self, table: str, key: bytes) -> bytes | None:
        for overlay in (self._active, self._sealed):
            changes = overlay.get(table)
            if changes is not None and key in changes:
                value: bytes | None = changes[key]
                return value
        try:
            return self._key_value.get(table, key)
        except Failure as failure:
            self.on_damage(failure)
            raise

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._change(table, key, value, len(value))

    def delete(self, table: str, key: bytes) -> None:
        self._change(table, key, None, 0)

    def scan(self, table: str, start: bytes = b"", end: bytes | None = None) -> Iterator[Pair]:
        """Pairs with start <= key < end in key order, as of this call."""
        overlaid = self._overlaid(table, start, end)
        durable = self._paged(table, start, end)
        return _merged(durable, overlaid) if overlaid else durable

    def _paged(self, table: str, start: bytes, end: bytes | None) -> Iterator[Pair]:
        """The durable pairs, some at a time.

        A flush may end between two pages: what it changed is in the overlay of the scan as well,
        so the scan does not see it twice or by half. (One long scan of the file could not live
        through a `get` that renews the file's read transaction.)
        """
        length = _FIRST_PAGE
        while True:
            try:
                page = list(islice(self._key_value.scan(table, start, end), length))
            except Failure as failure:
                self.on_damage(failure)
                raise
            yield from page
            if len(page) < length:
                return
            start, length = page[-1][0] + b"\0", min(2 * length, _MAX_PAGE)

    def _change(self, table: str, key: bytes, value: bytes | None, length: int) -> None:
        changes = self._active.get(table)
        if changes is None:
            changes = self._active[table] = SortedDict()
        changes[key] = value
        self._active_bytes += len(key) + length + _ENTRY_OVERHEAD_BYTES

    def _overlaid(
        self, table: str, start: bytes, end: bytes | None
    ) -> list[tuple[bytes, bytes | None]]:
        """Pending changes of the range, in key order."""
        layers = [o[table] for o in (self._sealed, self._active) if table in o]
        ranges = [
            [(key, layer[key]) for key in layer.irange(start, end, (True, False))]
            for layer in layers
        ]
        if len(ranges) < 2:
            return ranges[0] if ranges else []
        return sorted(dict(ranges[0] + ranges[1]).items())

    # -- durability

    @property
    def dirty(self) -> bool:
        """Whether there are writes that no flush has begun to carry out."""
        return bool(self._active)

    @property
    def full(self) -> bool:
        """Whether a flush is due before anything more is applied."""
        return self._active_bytes >= self._limits.overlay_bytes

    async def flush(self, env: Env) -> None:
        """Make every write made so far durable, as one transaction.

        Writes that are made meanwhile wait for the next flush. Raises OSError or Failure when the
        disk refuses: then nothing of it is durable and this master must end.
        """
        if not self._active:
            return
        work = partial(self._write_timed, env, self._seal())
        if self._recent_flush_s < self._limits.inline_flush_below_s:
            took_s = work()
        else:
            took_s = await env.run_blocking(work, "raft")
        self.flush_timings.observe(took_s)
        self._recent_flush_s += _SMOOTHING * (took_s - self._recent_flush_s)
        self._sealed = {}
        self.flushes += 1

    def _write_timed(self, env: Env, batch: WriteBatch) -> float:
        started = env.clock.monotonic()
        self._key_value.write(batch)
        return env.clock.monotonic() - started

    def _seal(self) -> WriteBatch:
        assert not self._sealed, "one flush at a time"
        self._sealed, self._active, self._active_bytes = self._active, {}, 0
        return WriteBatch({table: dict(changes) for table, changes in self._sealed.items()})

    def write_now(self, batch: WriteBatch) -> None:
        """Carry out a batch at once, past the overlays, which must be empty. Blocks."""
        assert not self._active, "there are writes that no flush has carried out"
        assert not self._sealed, "no flush may be under way"
        self._key_value.write(batch)

    def get_durable(self, table: str, key: bytes) -> bytes | None:
        """The value on disk, whatever has been written since."""
        return self._key_value.get(table, key)

    # -- snapshots

    async def copy_to(self, env: Env, path: str) -> None:
        """Copy what is durable to a new file, beside reads and flushes."""
        async with self._copying:
            try:
                await env.run_blocking(partial(self._key_value.copy_to, path), "snapshot")
            except Failure as failure:
                self.on_damage(failure)
                raise

    async def replace_with(self, env: Env, path: str) -> None:
        """Become the store in that file; what was pending here is dropped with the rest."""
        assert not self._sealed, "no flush may be under way"
        async with self._copying:
            self._active, self._active_bytes = {}, 0
            await env.run_blocking(partial(self._key_value.replace_with, path), "raft")

    def used_bytes(self) -> int:
        return self._key_value.used_bytes()


def _nothing(failure: Failure) -> None:
    pass


def _merged(durable: Iterator[Pair], overlaid: list[tuple[bytes, bytes | None]]) -> Iterator[Pair]:
    """Both in key order; an overlaid value wins, None hides the key."""
    pair = next(durable, None)
    for key, value in overlaid:
        while pair is not None and pair[0] < key:
            yield pair
            pair = next(durable, None)
        if pair is not None and pair[0] == key:
            pair = next(durable, None)
        if value is not None:
            yield key, value
    if pair is not None:
        yield pair
        yield from durable
