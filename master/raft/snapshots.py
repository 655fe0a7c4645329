"""Snapshots: a copy of a master's whole store, fetched by another that lags too far behind.

The state on disk is its own snapshot, so none is made to shorten the log; a file is copied only
when a follower needs one (or an operator asks). It travels out of band (H14): the leader says
"fetch", the follower asks for pieces with `FetchSnapshot` over the link there is, and checks the
digest of the whole. Then the copy is made its own: the sender's journal (but for the entry at the
applied index and the one before), term and vote go, this master's term, vote and nonce come in;
the finished file takes the store's place in one atomic rename. Whatever goes wrong after the
digest was right ends the process (H5): a state that is half another's must not acknowledge
anything. A fetch that fails before is simply repeated when the leader asks again.

Files in the data directory, gone at the next start: `snapshot.mdb` (offered to others),
`snapshot.mdb.new` (being copied), `incoming.mdb` (being fetched). Never a name that a library
would rename by itself (H13). Their format is the store's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

import trio
import xxhash

from dfs.config import Master
from dfs.errors import Code, Failure
from dfs.messages.cluster import FetchSnapshot, SnapshotPiece
from dfs.rpc import Connection, Reply
from dfs.runtime import Env, WriteBatch
from dfs.runtime.disk import Disk, File
from master.raft import formats
from master.raft.membership import applied_index
from master.store import JOURNAL, META, Store

log = logging.getLogger(__name__)

LOCK_SUFFIX = "-lock"  # LMDB's
OFFERED, COPYING, INCOMING = "snapshot.mdb", "snapshot.mdb.new", "incoming.mdb"


@dataclass(frozen=True, slots=True)
class Offer:
    """A finished file: `index` is a lower bound of the index it is applied up to."""

    index: int
    total_bytes: int
    digest: int


class SnapshotSource:
    """Makes the file and hands out its pieces."""

    def __init__(self, env: Env, config: Master, store: Store) -> None:
        self._env, self._store = env, store
        self._directory, self._piece_bytes = config.data_dir, config.raft.snapshot_piece_bytes
        self._file: File | None = None
        self.offer: Offer | None = None
        self.copying = False

    def reaches(self, first_index: int, nursery: trio.Nursery) -> bool:
        """Whether there is a file that a log from `first_index` on continues; if not, make one."""
        if self.offer is not None and self.offer.index >= first_index:
            return True
        if not self.copying:
            nursery.start_soon(self._create_for_follower)
        return False

    async def _create_for_follower(self) -> None:
        if self.copying:
            return
        try:
            await self.create()
        except (OSError, Failure) as error:
            log.error("%s: no snapshot: %s", self._env.name, error)

    async def create(self) -> Offer:
        """Copy what is durable now. Raises OSError or Failure; then the old offer stands."""
        if self.copying:
            raise Failure(Code.UNAVAILABLE, "a snapshot is being made already")
        self.copying = True
        try:
            index = applied_index_on_disk(self._store)
            path = f"{self._directory}/{COPYING}"
            await self._env.run_blocking(partial(remove_store, self._env.disk, path), "snapshot")
            await self._store.copy_to(self._env, path)
            return await self._env.run_blocking(partial(self._finish, index), "snapshot")
        finally:
            self.copying = False

    def _finish(self, index: int) -> Offer:
        disk, final = self._env.disk, f"{self._directory}/{OFFERED}"
        digest = self._digest_of(f"{self._directory}/{COPYING}")
        if self._file is not None:
            self._file.close()
        disk.rename(f"{self._directory}/{COPYING}", final)
        self._file = disk.open(final)
        self.offer = Offer(index, self._file.size(), digest)
        log.info("%s: snapshot at %d, %d bytes", self._env.name, index, self.offer.total_bytes)
        return self.offer

    def _digest_of(self, path: str) -> int:
        file = self._env.disk.open(path)
        try:
            return digest_of(file, self._piece_bytes)
        finally:
            file.close()

    def remove_leftovers(self) -> None:
        """Of an earlier run. Blocks."""
        for name in (OFFERED, COPYING, INCOMING):
            remove_store(self._env.disk, f"{self._directory}/{name}")

    async def piece(self, request: FetchSnapshot) -> Reply:
        """Raises Failure UNAVAILABLE when that snapshot is not here (any more)."""
        offer, file = self.offer, self._file
        if offer is None or file is None or request.index not in (0, offer.index):
            raise Failure(Code.UNAVAILABLE, f"no snapshot at index {request.index}")
        data = bytearray(max(0, min(self._piece_bytes, offer.total_bytes - request.offset)))
        work = partial(file.pread_into, memoryview(data), request.offset)
        try:
            await self._env.run_blocking(work, "snapshot")
        except OSError as error:
            text = f"the snapshot at {offer.index} cannot be read: {error}"
            raise Failure(Code.UNAVAILABLE, text) from None
        return Reply(SnapshotPiece(offer.index, offer.total_bytes, offer.digest), [data])


class SnapshotFetch:
    """Gets a file from another master and makes it this one's."""

    def __init__(self, env: Env, config: Master) -> None:
        self._env, self._config = env, config
        self._timeout_s = config.raft.snapshot_timeout_s
        self.path = f"{config.data_dir}/{INCOMING}"

    async def fetch(self, source: Connection) -> None:
        """Bring the whole file here. Raises Failure (CORRUPT: not what the source said)."""
        file = await self._env.run_blocking(self._emptied, "snapshot")
        try:
            first = await self._pieces(source, file)
            work = partial(digest_of, file, self._config.raft.snapshot_piece_bytes)
            if await self._env.run_blocking(work, "snapshot") != first.digest:
                raise Failure(Code.CORRUPT, f"the snapshot of {source.peer} has another digest")
            await self._env.run_blocking(file.datasync, "snapshot")
        finally:
            file.close()

    def _emptied(self) -> File:
        remove_store(self._env.disk, self.path)
        return self._env.disk.open(self.path, write=True, create=True)

    async def _pieces(self, source: Connection, file: File) -> SnapshotPiece:
        first: SnapshotPiece | None = None
        offset = 0
        while first is None or offset < first.total_bytes:
            request = FetchSnapshot(first.index if first else 0, offset)
            received = await source.call(request, timeout_s=self._timeout_s)
            piece: SnapshotPiece = received.message
            if not received.payload or (first is not None and piece != first):
                raise Failure(Code.UNAVAILABLE, f"the snapshot of {source.peer} changed")
            data = bytes(received.payload)
            await self._env.run_blocking(partial(file.pwrite, [data], offset), "snapshot")
            first, offset = piece, offset + len(data)
        return first

    def last_applied(self) -> tuple[int, int]:
        """Index and term of the entry that the fetched state is applied up to. Blocks."""
        copy = Store.open(self._env, self.path, self._config.raft)
        try:
            index = applied_index(copy)
            entry = copy.get(JOURNAL, formats.pack_u64(index))
            if entry is None:
                raise Failure(Code.DISK, f"the snapshot lacks its own entry {index}")
            return index, formats.unpack_entry(formats.pack_u64(index), entry)[2]
        finally:
            copy.close()

    def adopt(self, own: dict[bytes, bytes | None]) -> None:
        """Put this master's `own` values of the table `raft` in place of the source's.

        Blocks. Raises OSError or Failure: this master must end then (H5).
        """
        copy = Store.open(self._env, self.path, self._config.raft)
        try:
            copy.write_now(adoption(copy, own))
        finally:
            copy.close()


def own_values(mine: Store) -> dict[bytes, bytes | None]:
    """What of the table `raft` is this master's own, wherever its state comes from."""
    return {key: mine.get(META, key) for key in (b"term", b"nonce")}


def adoption(copy: Store, own: dict[bytes, bytes | None]) -> WriteBatch:
    """The changes that make a copied store this master's own."""
    applied, batch = applied_index(copy), WriteBatch()
    for key, _ in copy.scan(JOURNAL):
        if not applied - 1 <= formats.unpack_u64(key) <= applied:
            batch.delete(JOURNAL, key)
    for key, value in own.items():
        if value is None:
            batch.delete(META, key)
        else:
            batch.put(META, key, value)
    batch.put(META, b"commit", formats.pack_u64(applied))
    return batch


def applied_index_on_disk(store: Store) -> int:
    stored = store.get_durable(META, b"applied")
    return formats.unpack_u64(stored) if stored else 1


def remove_store(disk: Disk, path: str) -> None:
    """Delete a store's file, and the lock file beside it, where they are. Blocks."""
    for name in (path, path + LOCK_SUFFIX):
        if disk.exists(name):
            disk.unlink(name)


def digest_of(file: File, piece_bytes: int) -> int:
    """xxh3_64 of the whole file. Blocks."""
    digest, offset, buffer = xxhash.xxh3_64(), 0, memoryview(bytearray(piece_bytes))
    while length := file.pread_into(buffer, offset):
        digest.update(buffer[:length])
        offset += length
    return digest.intdigest()
