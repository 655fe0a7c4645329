"""What a chunkserver lists for fsck: pages in the order of handles, and verified replicas."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import trio

from chunkserver.format import DATA_OFFSET
from chunkserver.listing import Listing
from chunkserver.store import Store
from dfs.config import ChunkserverLimits
from dfs.layout import BLOCK_BYTES
from dfs.messages.chunks import ListReplicas, ReplicaPage, ReplicaState
from dfs.rpc import Connection, Request
from dfs.runtime.real import RealEnv
from tests.chunkserver.stores import put, store_on
from tests.conftest import ExpectedLogs

LIMITS = ChunkserverLimits(report_page=3)


class Lister:
    """A store with some replicas, and its listing."""

    def __init__(self, path: Path) -> None:
        env = RealEnv("one")
        self.store: Store = store_on(env, path)
        self._listing = Listing(env, LIMITS, self.store)

    async def __call__(self, message: ListReplicas) -> ReplicaPage:
        (handler,) = self._listing.handlers().values()
        request = Request(message, memoryview(b""), cast(Connection, None))
        page: ReplicaPage = await handler(request)
        return page

    def path(self, handle: int) -> Path:
        return Path(self.store.find(handle).directory.replica_path(handle))


def with_lister(path: Path, work: Callable[[Lister], Awaitable[None]]) -> None:
    async def main() -> None:
        lister = Lister(path)
        await lister.store.start()
        for handle in (3, 5, 9, 12):
            await put(lister.store, handle, 0, bytes([handle]) * 3 * BLOCK_BYTES)
        await work(lister)

    trio.run(main)


def handles(page: ReplicaPage) -> list[int]:
    return [replica.handle for replica in page.replicas]


def test_pages_follow_each_other_by_handle(tmp_path: Path) -> None:
    async def work(lister: Lister) -> None:
        first = await lister(ListReplicas(0, 3))
        assert (handles(first), first.complete) == ([3, 5, 9], False)
        second = await lister(ListReplicas(9, 3))
        assert (handles(second), second.complete) == ([12], True)
        beyond = await lister(ListReplicas(12, 3))
        assert (handles(beyond), beyond.complete) == ([], True)
        assert handles(await lister(ListReplicas(0, 10**6))) == [3, 5, 9]  # report_page bounds it

    with_lister(tmp_path, work)


def test_a_replica_that_has_gone_is_passed_over(tmp_path: Path) -> None:
    async def work(lister: Lister) -> None:
        assert handles(await lister(ListReplicas(0, 1))) == [3]
        await lister.store.delete(5)
        await lister.store.delete(9)
        page = await lister(ListReplicas(3, 1))
        assert (handles(page), page.complete) == ([12], True)

    with_lister(tmp_path, work)


def test_single_chunks_are_told_of_as_they_are_now(tmp_path: Path) -> None:
    async def work(lister: Lister) -> None:
        await lister(ListReplicas(0, 1))
        await put(lister.store, 4, 0, b"new")
        (found,) = (await lister(ListReplicas(3, 1, up_to=4))).replicas
        assert (found.handle, found.version, found.length_bytes) == (4, 1, 3)
        assert (found.state, found.disk) == (ReplicaState.SETTLED, str(tmp_path))
        none = await lister(ListReplicas(6, 1, up_to=7))
        assert (none.replicas, none.complete) == ((), True)

    with_lister(tmp_path, work)


def test_verifying_finds_damage_and_files_that_have_vanished(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("block 1 is damaged")
    expected_logs("has vanished")

    async def work(lister: Lister) -> None:
        with lister.path(5).open("r+b") as file:
            file.seek(DATA_OFFSET + BLOCK_BYTES)
            file.write(b"damage")
        lister.path(9).unlink()
        whole, bad = (await lister(ListReplicas(0, 3, verify=True))).replicas
        assert len(whole.digest) == 16
        assert whole.damaged_blocks == 0
        assert (bad.damaged_blocks, int.from_bytes(bad.damaged, "big")) == (1, 0b10)
        known = (await lister(ListReplicas(0, 3))).replicas
        assert [(r.handle, r.damaged_blocks) for r in known] == [(3, 0), (5, 1), (12, 0)]
        assert {r.digest for r in known} == {""}

    with_lister(tmp_path, work)


def test_equal_replicas_have_equal_digests(tmp_path: Path) -> None:
    async def work(lister: Lister) -> None:
        await put(lister.store, 3, 0, bytes([5]) * 3 * BLOCK_BYTES)
        one, two, other = (await lister(ListReplicas(0, 3, verify=True))).replicas
        assert dataclasses.replace(one, handle=0) == dataclasses.replace(two, handle=0)
        assert other.digest != one.digest

    with_lister(tmp_path, work)


def test_the_first_page_names_what_is_set_aside(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("set aside")

    async def work(lister: Lister) -> None:
        quarantine = lister.store.directories[0].quarantine
        quarantine.add_block(7, 2, b"odd", "it did not match")
        page = await lister(ListReplicas(0, 3))
        assert page.quarantined == (f"{tmp_path}/quarantine/0000000000000007.b2.0",)
        assert (await lister(ListReplicas(9, 3))).quarantined == ()

    with_lister(tmp_path, work)
