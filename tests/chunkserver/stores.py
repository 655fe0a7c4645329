"""A store by itself, and what `service` does with one."""

from __future__ import annotations

from pathlib import Path

from chunkserver.store import Store
from dfs.checksums import piece_checksums, verify
from dfs.runtime import Env
from tests.chunkserver.cluster import chunkserver_config


def store_on(env: Env, *directories: Path | str, number: int = 1, **limits: float) -> Store:
    paths = tuple(str(d) for d in directories)
    config = chunkserver_config(number, "here:1", paths, "master:1", **limits)
    return Store(env, config, "here:1")


async def put(store: Store, handle: int, offset: int, data: bytes) -> None:
    turn = store.turns.enter(handle)
    await turn.wait()
    try:
        entry = store.find(handle) if store.has(handle) else await store.create(handle, 1, 0)
        await store.write(entry, offset, memoryview(data), piece_checksums(data, offset))
    finally:
        turn.leave()


async def get(store: Store, handle: int, offset: int, length_bytes: int) -> bytes:
    answer = await store.run(store.find(handle), lambda r: r.read(offset, length_bytes))
    assert answer is not None
    verify(answer[0], offset, answer[1], "read")
    return bytes(answer[0])
