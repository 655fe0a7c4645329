"""The scrub: reads every replica of every disk now and then, and has what is damaged mended.

One `Walk` per disk goes through its replicas in the order of their handles, at the pace of `pace`.
Each is looked at without its turn (`verify.Survey`), so that no client waits for it; what looks
wrong is verified under the turn, a few blocks at a time, and only that counts: a block that is
being written meanwhile is no damage. Damage goes the way of all damage (`damage`): to the leader,
who has the chunk settled from good replicas.

The walk's position, a pause that an operator ordered and the damage known are kept in a file of the
disk (`scrub_state`), written now and then and at an orderly stop: a restart goes on from there, and
first verifies what was damaged before. Replicas made behind the position are left to the next
pass, which begins `scrub_interval_s` after the present one began.

Readers that were given bad data say so (`CheckBlocks`); these blocks are verified at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio

from chunkserver import format as layout
from chunkserver import scrub_state
from chunkserver.datadir import DataDir
from chunkserver.format import DATA_OFFSET
from chunkserver.pace import Pace, allowed_rate
from chunkserver.scrub_state import ScrubState
from chunkserver.store import Entry, Store
from chunkserver.verify import Survey, verify_blocks, verify_header
from dfs.config import ChunkserverLimits
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES
from dfs.messages.scrubbing import DiskScrub, ScrubAction, ScrubPass
from dfs.runtime import Env, File

log = logging.getLogger(__name__)

T = TypeVar("T")

_BLOCKS_PER_TURN = 16  # verified before others may have the turn
_LONGEST_WAIT_S = 3600.0  # then the wall clock, which may have been set, is looked at again


class Walk:
    """The scrub of one disk."""

    def __init__(
        self, env: Env, store: Store, directory: DataDir, limits: ChunkserverLimits
    ) -> None:
        self._env, self._store, self._directory, self._limits = env, store, directory, limits
        now = env.clock.monotonic()
        self.state = ScrubState()
        self._recheck: dict[int, int] = {}  # damage that the last run of this server knew
        self._walking = False
        self._wanted = False  # an operator wants a pass to begin now
        self._changed = trio.Event()  # an order came
        self._first_at = now + limits.scrub_first_s
        self._saved_at = now
        self._saving = trio.Lock()
        self._ahead_bytes = 0  # of the present pass
        self._pace = Pace(limits, now, directory.lane.busy_s)

    async def run(self) -> None:
        """For ever: a pass now and then. `load` comes before."""
        await self._verify_known()
        while self._limits.scrub_bytes_per_s:
            await self._until_due()
            self._walking = True
            await self._walk()
            self._walking = False

    # -- orders, status

    async def order(self, action: ScrubAction) -> None:
        """Do what an operator says; durable when this returns."""
        self.state.paused = action is ScrubAction.PAUSE
        self._wanted |= action is ScrubAction.START and not self._walking
        self._changed.set()
        await self.save()

    def status(self) -> DiskScrub:
        """How far it is."""
        rate = self._pace.bytes_per_s or allowed_rate(self._limits, 0.0)
        quarantine = self._directory.quarantine
        damaged = sum(blocks.bit_count() for blocks in self._damaged().values())
        return DiskScrub(
            self._directory.path,
            self._word(),
            self.state.current or ScrubPass(),
            self.state.last or ScrubPass(),
            position=self.state.position,
            fraction=self._fraction(),
            eta_s=self._ahead_bytes / rate if self._walking and rate else -1.0,
            bytes_per_s=self._pace.bytes_per_s if self._walking else 0.0,
            next_in_s=0.0 if self._walking else self._next_in_s(),
            damaged_blocks=damaged,
            read_errors=self._directory.read_errors,
            quarantined_blocks=quarantine.blocks,
            quarantined_replicas=quarantine.replicas,
            quarantined_bytes=quarantine.total_bytes,
        )

    def _fraction(self) -> float:
        if self.state.current is None:
            return 0.0
        total = self.state.current.bytes + self._ahead_bytes
        return self.state.current.bytes / total if total else 1.0

    def _show(self) -> None:
        """What the master hears of with the disk's figures."""
        self._directory.scrub_fraction = self._fraction()
        self._directory.scrubbed_ns = self.state.last.ended_ns if self.state.last else 0

    def _word(self) -> str:
        if not self._limits.scrub_bytes_per_s:
            return "off"
        if not self._directory.writable:
            return "failed"
        if self.state.paused:
            return "paused"
        return "running" if self._walking else "waiting"

    # -- when

    async def _until_due(self) -> None:
        while self._held() or self._due_in_s() > 0:
            self._changed = trio.Event()
            wait_s = _LONGEST_WAIT_S if self._held() else min(self._due_in_s(), _LONGEST_WAIT_S)
            await self._env.clock.wait(self._changed, wait_s)

    def _held(self) -> bool:
        return self.state.paused or not self._directory.writable

    def _due_in_s(self) -> float:
        if self._wanted:
            return 0.0
        first_s = max(0.0, self._first_at - self._env.clock.monotonic())
        return first_s if self.state.current else max(first_s, self._next_in_s())

    def _next_in_s(self) -> float:
        """Until the interval since the beginning of the last pass is over."""
        if self.state.last is None:
            return 0.0
        since_s = (self._env.clock.wall_ns() - self.state.last.began_ns) / 1e9
        return max(0.0, self._limits.scrub_interval_s - max(0.0, since_s))

    async def _go_on(self) -> bool:
        """Wait while the scrub is paused; whether the disk can be read at all."""
        while self.state.paused:
            self._changed = trio.Event()
            await self._changed.wait()
        return self._directory.writable

    # -- one pass

    async def _walk(self) -> None:
        name, path = self._env.name, self._directory.path
        self._wanted = False
        if self.state.current is None:
            self.state.begin(self._env.clock.wall_ns())
        ahead = self._ahead()
        log.info("%s: scrub of %s: %d replicas to verify", name, path, len(ahead))
        for handle, size in ahead:
            if not await self._go_on():
                return
            found = await self._verify_replica(handle)
            self._ahead_bytes -= size
            self.state.verified(handle, size, found)
            self._show()
            if self._env.clock.monotonic() - self._saved_at >= self._limits.scrub_save_s:
                await self.save()
        done = self.state.end(self._env.clock.wall_ns())
        self._show()
        await self.save()
        text = "%s: scrub of %s is complete: %d replicas, %d bytes, %d found damaged"
        log.info(text, name, path, done.replicas, done.bytes, done.found)

    def _ahead(self) -> list[tuple[int, int]]:
        """Handle and size of the replicas that the present pass is yet to verify."""
        replicas = self._store.on(self._directory, self.state.position)
        ahead = [(entry.handle, entry.length_bytes + DATA_OFFSET) for entry in replicas]
        self._ahead_bytes = sum(size for _, size in ahead)
        return ahead

    async def _verify_replica(self, handle: int) -> int:
        """How many of its blocks turned out to be damaged."""
        if not self._store.has(handle):
            return 0
        suspects, bad_header = await self._survey(handle)
        known = self._store.damage.blocks(handle)
        found = 0
        if suspects or known or bad_header:
            found = await verify(self._store, handle, suspects | known, header=bad_header)
        version = self._store.version_of(handle)
        if known & self._store.damage.blocks(handle) and version is not None:
            self._store.damage.again(handle, version)
        return found

    async def _survey(self, handle: int) -> tuple[int, bool]:
        """Blocks that look wrong, and whether the header does, or the file as a whole."""
        try:
            file, survey = await self._read(
                partial(_begin_survey, self._directory, handle), DATA_OFFSET
            )
        except OSError:
            return 0, True  # `verify` finds out what is the matter
        step = max(1, self._limits.scrub_read_bytes // BLOCK_BYTES) * BLOCK_BYTES
        try:
            for offset in range(0, survey.length_bytes, step):
                size = min(step, survey.length_bytes - offset)
                await self._go_on()
                await self._read(partial(survey.look, offset, size), size)
        except OSError as error:
            log.error("%s: scrub of %s: %s", self._env.name, self._directory.path, error)
            return survey.suspects, True
        finally:
            file.close()
        return survey.suspects, survey.bad_header

    async def _read(self, work: Callable[[], T], size_bytes: int) -> T:
        """Read in a thread, then pause. Not in the disk's lane: this is no client's work."""
        clock, lane = self._env.clock, self._directory.lane
        started = clock.monotonic()
        result = await self._env.run_blocking(work, self._directory.path)
        now = clock.monotonic()
        await clock.sleep(self._pace.after(size_bytes, now - started, now, lane.busy_s))
        return result

    # -- what outlives this process

    async def load(self) -> None:
        """Take up what the last run of this server left."""
        disk, path = self._env.disk, self._path()
        try:
            if disk.exists(path):
                content = await self._env.run_blocking(partial(disk.read_file, path))
                self.state = scrub_state.decode(content)
        except (OSError, ValueError) as error:
            log.error("%s: %s is not used, the scrub begins anew: %s", self._env.name, path, error)
        self._recheck = dict(self.state.damaged)
        if self.state.current is not None:
            self._ahead()
        self._show()

    async def _verify_known(self) -> None:
        for handle, blocks in sorted(self._recheck.items()):
            if self._store.has(handle) and self._directory.writable:
                await verify(self._store, handle, blocks)
            del self._recheck[handle]

    async def save(self) -> None:
        """Write the file; a disk that does not take it only costs a part of a pass."""
        async with self._saving:
            self._saved_at = self._env.clock.monotonic()
            if not self._directory.writable:
                return
            self.state.damaged = self._recheck | self._damaged()
            work = partial(self._env.disk.write_file, self._path(), scrub_state.encode(self.state))
            try:
                await self._env.run_blocking(work, self._directory.path)
            except OSError as error:
                log.warning("%s: cannot write %s: %s", self._env.name, self._path(), error)

    def _damaged(self) -> dict[int, int]:
        return self._store.damaged_on(self._directory)

    def _path(self) -> str:
        return f"{self._directory.path}/scrub.json"


def _begin_survey(directory: DataDir, handle: int) -> tuple[File, Survey]:
    file = directory.open_apart(handle)
    try:
        return file, Survey(file, handle)
    except BaseException:
        file.close()
        raise


# -- under the turn


async def verify(store: Store, handle: int, blocks: int, *, header: bool = False) -> int:
    """Verify blocks of a replica under its turn; how many are newly known to be damaged.

    A replica of which nothing can be read counts as one. Errors are logged.
    """
    before = store.damage.blocks(handle)
    try:
        if header:
            await _in_turn(store, handle, _verify_file)
        while blocks:
            first = (blocks & -blocks).bit_length() - 1
            some = blocks & layout.block_bits(0, first + _BLOCKS_PER_TURN)
            await _in_turn(store, handle, partial(_verify_some, some))
            blocks &= ~some
    except Failure as error:
        if error.code is Code.NO_REPLICA:
            return 0  # it was deleted meanwhile
        log.warning("replica %x cannot be verified: %s", handle, error.message)
        return 1
    return (store.damage.blocks(handle) & ~before).bit_count()


async def _in_turn(
    store: Store, handle: int, work: Callable[[Store, Entry], Awaitable[None]]
) -> None:
    turn = store.turns.enter(handle)
    try:
        await turn.wait()
        await work(store, store.find(handle))
    finally:
        turn.leave()


async def _verify_file(store: Store, entry: Entry) -> None:
    await store.must_exist(entry)
    await store.verify(entry, partial(verify_header, entry.directory.writable))


async def _verify_some(blocks: int, store: Store, entry: Entry) -> None:
    await store.verify(entry, partial(verify_blocks, blocks, entry.directory.writable))
