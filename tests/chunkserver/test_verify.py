"""What `verify` finds in one replica file, what it puts right, and what it leaves alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio

from chunkserver.format import (
    DATA_OFFSET,
    ENTRY_BYTES,
    SLOT_BYTES,
    SLOTS,
    TABLE_OFFSET,
    block_bits,
    valid_headers,
)
from chunkserver.replica import Replica
from chunkserver.scrub import Walk, verify
from chunkserver.verify import Survey, missing_blocks, verify_blocks, verify_header
from dfs.checksums import piece_checksums
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES
from dfs.messages.chunks import ReplicaState
from dfs.runtime.real import RealEnv
from tests.chunkserver.memory_file import MemoryFile
from tests.chunkserver.stores import put, store_on
from tests.conftest import ExpectedLogs

HANDLE = 0x5EED
BLOCKS = 5
LENGTH = (BLOCKS - 1) * BLOCK_BYTES + 1000
ALL = block_bits(0, BLOCKS)


class BadSectors(MemoryFile):
    """A file some bytes of which the disk cannot read."""

    def __init__(self, content: bytearray | None = None) -> None:
        super().__init__(content)
        self.bad: list[int] = []

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        if any(offset <= at < offset + len(buffer) for at in self.bad):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().pread_into(buffer, offset)


def content(block: int) -> bytes:
    return bytes([block + 1]) * (BLOCK_BYTES if block < BLOCKS - 1 else 1000)


@pytest.fixture
def replica() -> Replica:
    """Five blocks, the last one short; synced."""
    made = Replica.create(BadSectors(), HANDLE, 1, 0, "a replica")
    data = b"".join(map(content, range(BLOCKS)))
    made.write(0, memoryview(data), piece_checksums(data, 0))
    made.sync()
    return made


def file_of(replica: Replica) -> BadSectors:
    assert isinstance(replica._file, BadSectors)
    return replica._file


def surveyed(replica: Replica) -> Survey:
    survey = Survey(file_of(replica), HANDLE)
    survey.look(0, LENGTH)
    return survey


def reopened(replica: Replica) -> Replica:
    return Replica.open(BadSectors(file_of(replica).content), HANDLE, "a replica", settled=True)


def flip(replica: Replica, offset: int) -> None:
    file_of(replica).content[offset] ^= 4


def test_a_good_replica_is_good(replica: Replica) -> None:
    survey = surveyed(replica)
    assert (survey.suspects, survey.bad_header, survey.length_bytes) == (0, False, LENGTH)
    assert verify_blocks(ALL, True, replica) == 0
    assert verify_header(True, replica) == 0
    assert missing_blocks(replica) == 0


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_flipped_bit_of_the_data_is_found(
    replica: Replica, block: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs(f"block {block} is damaged: checksum mismatch")
    flip(replica, DATA_OFFSET + block * BLOCK_BYTES + 17)
    assert surveyed(replica).suspects == 1 << block
    assert verify_blocks(ALL, True, replica) == 1 << block
    assert replica.damaged == 1 << block
    assert len(replica.damaged_bytes(block)) == len(content(block))
    assert replica.damaged_bytes(block) != content(block)


def test_a_flipped_checksum_is_put_right_by_the_replica_that_has_it_in_memory(
    replica: Replica, expected_logs: ExpectedLogs
) -> None:
    expected_logs("the checksum of block 2 had rotted")
    flip(replica, TABLE_OFFSET + 2 * ENTRY_BYTES + 3)
    assert surveyed(replica).suspects == 1 << 2
    assert verify_blocks(1 << 2, True, replica) == 0
    assert surveyed(replica).suspects == 0
    assert reopened(replica).digest() == replica.digest()


def test_a_flipped_checksum_is_damage_once_nobody_has_it_in_memory(
    replica: Replica, expected_logs: ExpectedLogs
) -> None:
    expected_logs("block 2 is damaged")
    flip(replica, TABLE_OFFSET + 2 * ENTRY_BYTES + 3)
    assert verify_blocks(ALL, True, reopened(replica)) == 1 << 2


def test_nothing_is_written_to_a_disk_gone_read_only(
    replica: Replica, expected_logs: ExpectedLogs
) -> None:
    expected_logs("had rotted")
    flip(replica, TABLE_OFFSET + 3)
    flip(replica, replica._headers.slot * SLOT_BYTES + 40)
    before = bytes(file_of(replica).content)
    assert verify_blocks(ALL, False, replica) == 0
    assert verify_header(False, replica) == 1
    assert file_of(replica).content == before


@pytest.mark.parametrize("slots", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_rotten_header_slots_are_written_again(
    replica: Replica, slots: tuple[int, ...], expected_logs: ExpectedLogs
) -> None:
    expected_logs("header slots .* had rotted")
    for step in range(3):  # all three slots in use
        replica.fence(5 + step, ReplicaState.SETTLED)
        replica.sync()
    in_use = [s for s in slots if any(file_of(replica).content[s * SLOT_BYTES :][:SLOT_BYTES])]
    for slot in in_use:
        flip(replica, slot * SLOT_BYTES + 30)
    assert surveyed(replica).bad_header == bool(in_use)
    assert verify_header(True, replica) == len(in_use)
    assert not surveyed(replica).bad_header
    headers = valid_headers(bytes(file_of(replica).content[: SLOTS * SLOT_BYTES]))
    assert headers[0][0].version == 7
    again = reopened(replica)
    assert (again.version, again.length_bytes, again.damaged) == (7, LENGTH, 0)
    replica.fence(9, ReplicaState.SETTLED)  # the slots take turns as before
    replica.sync()
    assert reopened(replica).version == 9


def test_a_slot_with_another_chunks_header_is_rotten(
    replica: Replica, expected_logs: ExpectedLogs
) -> None:
    expected_logs("header slots .* had rotted")
    stranger = Replica.create(BadSectors(), HANDLE + 1, 1, 0, "another")
    stranger.write_header()
    slot = stranger._headers.slot * SLOT_BYTES
    file_of(replica).content[slot : slot + SLOT_BYTES] = file_of(stranger).content[slot:][
        :SLOT_BYTES
    ]
    assert surveyed(replica).bad_header
    assert verify_header(True, replica) == 1
    assert reopened(replica).version == 1


def test_a_file_cut_short_lacks_its_last_blocks_and_keeps_the_others(
    replica: Replica, expected_logs: ExpectedLogs
) -> None:
    expected_logs("block [0-9] is damaged: the file ends before it")
    del file_of(replica).content[DATA_OFFSET + BLOCK_BYTES + 7 :]
    assert missing_blocks(replica) == ALL & ~1
    assert surveyed(replica).suspects == ALL & ~1
    assert verify_blocks(ALL, True, replica) == ALL & ~1
    answer = replica.read(0, BLOCK_BYTES)
    assert answer is not None
    assert bytes(answer[0]) == content(0)
    assert replica.damaged_bytes(1) == content(1)[:7].ljust(BLOCK_BYTES, b"\0")


def test_one_bad_sector_damages_one_block(replica: Replica, expected_logs: ExpectedLogs) -> None:
    expected_logs("block 3 is damaged: the disk cannot read it")
    file_of(replica).bad = [DATA_OFFSET + 3 * BLOCK_BYTES + 600]
    assert surveyed(replica).suspects == 1 << 3
    with pytest.raises(Failure) as caught:
        replica.read(0, LENGTH)
    assert caught.value.code is Code.CORRUPT
    assert (replica.damaged, replica.read_errors) == (1 << 3, 1)
    answer = replica.read(0, 3 * BLOCK_BYTES)
    assert answer is not None
    assert verify_blocks(ALL, True, replica) == 1 << 3
    assert replica.read_errors == 1  # one sector, however often it is met
    kept = replica.damaged_bytes(3)
    assert kept[:512] == content(3)[:512]
    assert kept[512:1024] == bytes(512)
    assert kept[1024:] == content(3)[1024:]


def test_a_disk_that_refuses_for_other_reasons_is_not_taken_for_damage(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(buffer: memoryview, offset: int) -> int:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(file_of(replica), "pread_into", gone)
    with pytest.raises(OSError, match="No such device"):
        replica.read(0, 10)
    assert replica.damaged == 0


def test_what_matches_again_is_damaged_no_more(
    replica: Replica, expected_logs: ExpectedLogs
) -> None:
    expected_logs("block 1 is damaged")
    flip(replica, DATA_OFFSET + BLOCK_BYTES)
    assert verify_blocks(ALL, True, replica) == 0b10
    flip(replica, DATA_OFFSET + BLOCK_BYTES)
    assert verify_blocks(ALL, True, replica) == 0
    assert replica.read(BLOCK_BYTES, 10) is not None


def test_damage_is_remembered_by_the_replica_that_is_opened_again(replica: Replica) -> None:
    again = reopened(replica)
    again.remember_damage(block_bits(4, 900))
    assert again.damaged == 1 << 4  # within its length
    with pytest.raises(Failure):
        again.read(4 * BLOCK_BYTES, 1000)
    again.write(
        4 * BLOCK_BYTES, memoryview(content(4)), piece_checksums(content(4), 4 * BLOCK_BYTES)
    )
    assert again.damaged == 0


# -- beside real threads


def test_really_concurrent_writes_are_no_damage(tmp_path: Path) -> None:
    async def main() -> None:
        env = RealEnv("node")
        store = store_on(env, tmp_path, scrub_bytes_per_s=1 << 30, scrub_first_s=0)
        await store.start()
        directory, done = store.directories[0], trio.Event()

        async def write() -> None:
            for i in range(300):
                data = bytes([i % 250 + 1]) * (30_000 + 400 * i)
                await put(store, 1, (i * 7919) % (4 * BLOCK_BYTES), data)
                await trio.lowlevel.checkpoint()
            done.set()

        async def scrub() -> None:
            while not done.is_set():
                walk = Walk(env, store, directory, store._limits)
                await walk._survey(1)
                suspects, _ = await walk._survey(1)
                assert await verify(store, 1, suspects, header=True) == 0

        await put(store, 1, 0, b"x" * 5 * BLOCK_BYTES)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                nursery.start_soon(scrub)
        assert store.damage.known() == {}
        await store.stop()

    trio.run(main)
