"""The bookkeeping of what an fsync has to cover."""

from __future__ import annotations

from dfs.client.unsynced import Unsynced
from dfs.messages.metadata import ChunkLocation


def chunk(index: int = 0, handle: int = 1, losses: int = 0) -> ChunkLocation:
    return ChunkLocation(index, handle, 1, 0, (), losses=losses)


def test_a_sync_covers_what_was_acknowledged_before_it_began() -> None:
    unsynced = Unsynced()
    unsynced.written(chunk(5))
    covers = unsynced.acknowledged
    unsynced.written(chunk(3))
    unsynced.written(chunk(5))
    assert unsynced.chunks() == [3, 5]
    assert unsynced.synced(5, covers, chunk(5))
    assert unsynced.chunks() == [3, 5]  # a packet has come since
    assert unsynced.synced(5, unsynced.acknowledged, chunk(5))
    assert unsynced.synced(3, unsynced.acknowledged, chunk(3))
    assert not unsynced


def test_a_loss_is_told_once_however_much_was_written_since() -> None:
    unsynced = Unsynced()
    unsynced.written(chunk(losses=1))
    covers = unsynced.acknowledged
    unsynced.written(chunk(losses=2))
    assert not unsynced.synced(0, covers, chunk(losses=2))
    assert unsynced.chunks() == [0]
    assert unsynced.synced(0, unsynced.acknowledged, chunk(losses=2))
    unsynced.written(chunk(losses=2))
    assert not unsynced.synced(0, unsynced.acknowledged, chunk(losses=3))
    assert not unsynced


def test_a_chunk_that_took_the_place_of_one_cut_off_has_lost_nothing() -> None:
    unsynced = Unsynced()
    unsynced.written(chunk(handle=1, losses=1))
    unsynced.written(chunk(handle=2, losses=0))
    assert unsynced.synced(0, unsynced.acknowledged, chunk(handle=2, losses=0))
    unsynced.written(chunk(handle=2))
    assert unsynced.synced(0, unsynced.acknowledged, chunk(handle=3, losses=7))
    unsynced.written(chunk(handle=3))
    assert unsynced.synced(0, unsynced.acknowledged, None)
    assert not unsynced
