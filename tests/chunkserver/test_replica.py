"""A replica against a bytearray, against kills in the middle of every change, against bit rot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkserver.format import (
    DATA_OFFSET,
    HEADER_BYTES,
    TABLE_BYTES,
    TABLE_OFFSET,
    block_bits,
    valid_headers,
)
from chunkserver.headers import ALL_BLOCKS, ANNOUNCED_BLOCKS
from chunkserver.replica import Replica
from dfs.checksums import checksum, piece_checksums, unpack_checksums, verify
from dfs.errors import Code, Failure
from dfs.layout import BLOCK_BYTES, CHUNK_BYTES, block_pieces
from dfs.messages.chunks import ReplicaState
from tests.chunkserver.memory_file import Killed, MemoryFile
from tests.conftest import ExpectedLogs

HANDLE = 0x5EED
LIMIT = 6 * BLOCK_BYTES

offsets = st.one_of(
    st.integers(0, LIMIT),
    st.builds(lambda b, d: max(0, b * BLOCK_BYTES + d), st.integers(0, 5), st.integers(-3, 3)),
)
lengths = st.one_of(st.integers(1, 2 * BLOCK_BYTES), st.sampled_from([1, 4096, BLOCK_BYTES]))
steps = st.one_of(
    st.tuples(st.just("write"), offsets, lengths),
    st.tuples(st.just("cut"), offsets, st.just(0)),
    st.tuples(st.just("read"), offsets, lengths),
    st.tuples(st.sampled_from(["reopen", "sync", "begin", "end"]), st.just(0), st.just(0)),
)


def content(seed: int, length_bytes: int) -> bytes:
    """Bytes that differ from step to step."""
    return bytes([(seed * 31 + 7) % 251 + 1]) * length_bytes


def make() -> tuple[MemoryFile, Replica]:
    file = MemoryFile()
    return file, Replica.create(file, HANDLE, 1, 0, "a replica")


def write(replica: Replica, offset: int, data: bytes) -> None:
    replica.write(offset, memoryview(data), piece_checksums(data, offset))


def read(replica: Replica, offset: int, length_bytes: int) -> bytes:
    """As a client does: verified."""
    answer = replica.read(offset, length_bytes)
    assert answer is not None
    data, packed = answer
    verify(data, offset, packed, "read")
    return bytes(data)


def reopened(file: MemoryFile) -> Replica:
    return Replica.open(MemoryFile(file.content), HANDLE, "a replica")


def apply_to_model(model: bytearray, offset: int, data: bytes) -> None:
    model.extend(bytes(max(0, offset - len(model))))
    model[offset : offset + len(data)] = data


class Modelled:
    """A replica and what it must contain."""

    def __init__(self) -> None:
        self.file, self.replica = make()
        self.replica.write_header()
        self.model = bytearray()
        self.seed = 0
        self.begun: list[int] = []

    def write(self, offset: int, length_bytes: int) -> None:
        self.seed += 1
        data = content(self.seed, length_bytes)
        write(self.replica, offset, data)
        apply_to_model(self.model, offset, data)

    def cut(self, length_bytes: int, _: int) -> None:
        self.replica.cut(self.replica.generation + 1, length_bytes)
        del self.model[length_bytes:]

    def read(self, offset: int, length_bytes: int) -> None:
        assert read(self.replica, offset, length_bytes) == self.model[offset:][:length_bytes]

    def reopen(self, *_: int) -> None:
        self.replica = reopened(self.file)
        self.file.content = self.replica._file.content  # type: ignore[attr-defined]
        self.begun.clear()
        assert self.replica.settled_blocks == 0

    def sync(self, *_: int) -> None:
        self.replica.sync()
        self.begun.clear()

    def begin(self, *_: int) -> None:
        self.begun.append(self.replica.begin_sync())

    def end(self, *_: int) -> None:
        if self.begun:
            self.replica.end_sync(self.begun.pop())

    def check(self) -> None:
        assert self.replica.length_bytes == len(self.model)
        assert read(self.replica, 0, CHUNK_BYTES) == self.model


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=14))
def test_replica_is_a_bytearray(sequence: list[tuple[str, int, int]]) -> None:
    modelled = Modelled()
    for name, first, second in sequence:
        getattr(modelled, name)(first, second)
    modelled.check()
    modelled.reopen()
    modelled.check()


def test_whole_blocks_carry_the_writers_checksums() -> None:
    _, replica = make()
    data = bytes(range(256)) * 1024
    write(replica, 0, data)
    answer = replica.read(0, len(data))
    assert answer is not None
    assert answer[1] == piece_checksums(data, 0)


def test_short_last_block_written_at_once_keeps_the_writers_checksum() -> None:
    _, replica = make()
    replica.write(0, memoryview(b"abc"), piece_checksums(b"abc", 0))
    answer = replica.read(0, 100)
    assert answer is not None
    assert (bytes(answer[0]), answer[1]) == (b"abc", piece_checksums(b"abc", 0))


def test_hole_reads_as_zeros_with_their_checksum() -> None:
    _, replica = make()
    write(replica, 3 * BLOCK_BYTES + 5, b"end")
    assert read(replica, 0, 3 * BLOCK_BYTES + 8) == bytes(3 * BLOCK_BYTES + 5) + b"end"


def test_equal_contents_have_equal_digests_whatever_the_history() -> None:
    _, one = make()
    _, other = make()
    write(one, 2 * BLOCK_BYTES, b"x" * 10)
    write(other, 0, bytes(2 * BLOCK_BYTES))
    write(other, 2 * BLOCK_BYTES, b"x" * 4)
    write(other, 2 * BLOCK_BYTES + 4, b"x" * 6)
    assert one.digest() == other.digest()
    write(other, 7, b"y")
    assert one.digest() != other.digest()


def test_cut_is_idempotent_by_generation() -> None:
    _, replica = make()
    write(replica, 0, b"abcdef")
    replica.cut(1, 3)
    write(replica, 3, b"XYZ")
    replica.cut(1, 3)
    assert read(replica, 0, 10) == b"abcXYZ"


def test_bytes_beyond_a_cut_do_not_come_back() -> None:
    file, replica = make()
    write(replica, 0, b"q" * (2 * BLOCK_BYTES + 9))
    replica.cut(1, BLOCK_BYTES + 4)
    write(replica, 3 * BLOCK_BYTES, b"end")
    for each in (replica, reopened(file)):
        assert read(each, BLOCK_BYTES, 2 * BLOCK_BYTES) == b"qqqq".ljust(2 * BLOCK_BYTES, b"\0")


def test_a_fence_survives_reopening() -> None:
    file, replica = make()
    write(replica, 0, b"a")
    replica.fence(5, ReplicaState.JOINING)
    again = reopened(file)
    assert (again.version, again.state) == (5, ReplicaState.JOINING)
    again.serve(3)
    assert (again.version, again.state, again.generation) == (5, ReplicaState.SETTLED, 3)


# -- kills


def _state_after(file: MemoryFile) -> Replica:
    replica = reopened(file)
    read(replica, 0, CHUNK_BYTES)  # no false CORRUPT: every checksum matches
    for at, length in block_pieces(0, replica.length_bytes):
        if length > 1:
            read(replica, at + 1, length - 1)  # the server's own verification agrees
    return replica


def _old_or_new(data: bytes, old: bytes, new: bytes) -> None:
    size = max(len(old), len(new))
    triples = zip(data, old.ljust(size, b"\0"), new.ljust(size, b"\0"), strict=False)
    assert all(d in (o, n) for d, o, n in triples)


OLD = b"o" * (2 * BLOCK_BYTES + 500)

Change = Callable[[Replica], None]


def _write_and_sync(replica: Replica) -> None:
    write(replica, 5, b"N" * 50)
    replica.sync()


def _extend_twice(replica: Replica) -> None:
    write(replica, 3 * BLOCK_BYTES, b"N")
    write(replica, 5 * BLOCK_BYTES, b"N" * BLOCK_BYTES)


def _cut_and_extend(replica: Replica) -> None:
    replica.cut(1, 10)
    write(replica, 2 * BLOCK_BYTES, b"N")


CHANGES: dict[str, Change] = {
    "overwrite inside a block": lambda r: write(r, 100, b"N" * 30_000),
    "overwrite a whole block": lambda r: write(r, BLOCK_BYTES, b"N" * BLOCK_BYTES),
    "overwrite over a border": lambda r: write(r, BLOCK_BYTES - 70, b"N" * 140),
    "append to the last block": lambda r: write(r, r.length_bytes, b"N" * 9000),
    "append far beyond": lambda r: write(r, 4 * BLOCK_BYTES + 3, b"N" * 9000),
    "cut inside a block": lambda r: r.cut(1, BLOCK_BYTES + 77),
    "cut to nothing": lambda r: r.cut(1, 0),
    "fence": lambda r: r.fence(2, ReplicaState.UNSETTLED),
    "sync": lambda r: r.sync(),
    "write and sync": _write_and_sync,
    "extend twice": _extend_twice,
    "cut and extend": _cut_and_extend,
}


def _killed_at(change: Change, kill_at: int, *, synced: bool, tear: float) -> MemoryFile | None:
    """The file as a kill in the k-th operation leaves it; None when the change needs fewer."""
    file, replica = make()
    write(replica, 0, OLD)
    if synced:
        replica.sync()
    file.changes, file.kill_at, file.tear = 0, kill_at, tear
    try:
        change(replica)
    except Killed:
        return file
    return None


def _content_after(change: Change) -> bytes:
    _, replica = make()
    write(replica, 0, OLD)
    change(replica)
    return read(replica, 0, CHUNK_BYTES)


@pytest.mark.parametrize("tear", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("name", sorted(CHANGES))
def test_kill_at_any_point_leaves_old_or_new_and_matching_checksums(
    name: str, synced: bool, tear: float
) -> None:
    new = _content_after(CHANGES[name])
    kill_at = 1
    while (file := _killed_at(CHANGES[name], kill_at, synced=synced, tear=tear)) is not None:
        after = _state_after(file)
        _old_or_new(read(after, 0, CHUNK_BYTES), OLD, new)
        if "cut" in name and after.generation == 0:
            assert read(after, 0, CHUNK_BYTES) == OLD
        kill_at += 1
    assert kill_at > 1 or (name == "sync" and synced)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, min_size=1, max_size=8), st.integers(1, 40), st.floats(0, 1))
def test_kill_in_a_random_history_never_gives_a_false_corrupt(
    sequence: list[tuple[str, int, int]], kill_at: int, tear: float
) -> None:
    modelled = Modelled()
    modelled.file.changes, modelled.file.kill_at, modelled.file.tear = 0, kill_at, tear
    try:
        for name, first, second in sequence:
            if name != "reopen":
                getattr(modelled, name)(first, second)
    except Killed:
        pass
    _state_after(modelled.file)


def test_cut_that_was_killed_is_carried_out_at_opening() -> None:
    file, replica = make()
    write(replica, 0, b"o" * 3 * BLOCK_BYTES)
    file.changes, file.kill_at = 0, 2  # the header says so, the file is not cut yet
    with pytest.raises(Killed):
        replica.cut(1, 10)
    after = _state_after(file)
    assert (after.generation, after.length_bytes) == (1, 10)
    assert len(file.content) == DATA_OFFSET + 10


def test_settled_cut_is_not_carried_out_again_over_newer_data() -> None:
    file, replica = make()
    write(replica, 0, b"o" * 3 * BLOCK_BYTES)
    file.changes, file.kill_at = 0, 2
    with pytest.raises(Killed):
        replica.cut(1, 10)
    write(reopened(file), 10, b"n" * 20)
    assert read(_state_after(file), 0, 100) == b"o" * 10 + b"n" * 20


def _announced(file: MemoryFile) -> int:
    """The intent on disk."""
    return valid_headers(bytes(file.content[:HEADER_BYTES]))[0][0].intent


def test_block_stays_announced_until_a_sync_that_began_after_its_write() -> None:
    file, replica = make()
    write(replica, 0, b"o" * 4 * BLOCK_BYTES)
    replica.sync()
    assert _announced(file) == ALL_BLOCKS  # born so, and a mere sync takes nothing out
    replica.write_header()
    replica.sync(clean=True)
    assert _announced(file) == 0
    write(replica, 0, b"a")
    assert _announced(file) == block_bits(0, ANNOUNCED_BLOCKS)
    first = replica.begin_sync()
    write(replica, BLOCK_BYTES, b"b")
    second = replica.begin_sync()
    write(replica, 2 * BLOCK_BYTES, b"c")
    replica.end_sync(first, clean=True)
    assert _announced(file) == 0b110
    replica.end_sync(second, clean=True)
    assert _announced(file) == 0b100


def test_a_block_at_rest_is_announced_durably_before_it_changes() -> None:
    file, replica = make()
    write(replica, 0, b"o" * 3 * BLOCK_BYTES)
    assert file.syncs == 0  # a new replica cannot be mistaken for one at rest
    replica.sync(clean=True)
    syncs = file.syncs
    assert replica.must_announce(5, 1)
    write(replica, 5, b"n")
    assert file.syncs == syncs + 1
    assert not replica.must_announce(5, 1)
    write(replica, BLOCK_BYTES, b"n")
    assert file.syncs == syncs + 1


def test_states_after_a_stop() -> None:
    file, replica = make()
    write(replica, 0, b"o" * 100)
    assert reopened(file).state is ReplicaState.UNSETTLED
    lost = Replica.open(MemoryFile(file.content), HANDLE, "a replica", boot=2)
    assert lost.state is ReplicaState.LOST
    lost.write_header()  # by the process of the second boot
    again = Replica.open(lost._file, HANDLE, "a replica", boot=2)
    assert again.state is ReplicaState.LOST
    replica.sync(clean=True)
    assert reopened(file).state is ReplicaState.SETTLED


# -- damage


def test_bit_rot_outside_the_intent_is_found_after_an_unclean_stop(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("block [0-9]+ is damaged")
    file, replica = make()
    last = ANNOUNCED_BLOCKS
    write(replica, 0, b"o" * (last + 1) * BLOCK_BYTES)
    replica.sync(clean=True)
    write(replica, 5, b"n")  # block 0 is in the intent, the last one is not
    file.content[DATA_OFFSET + last * BLOCK_BYTES + 9] ^= 4
    after = reopened(file)
    with pytest.raises(Failure) as caught:
        read(after, last * BLOCK_BYTES, 100)
    assert caught.value.code is Code.CORRUPT
    with pytest.raises(Failure):
        read(after, 0, (last + 1) * BLOCK_BYTES)  # remembered: refused as a whole block as well
    assert after.damaged == 1 << last
    assert read(after, 0, 10) == b"ooooonoooo"


def test_a_mismatch_of_what_was_synced_is_damage_though_the_block_is_in_use(
    expected_logs: ExpectedLogs,
) -> None:
    expected_logs("block 1 is damaged")
    file, replica = make()
    write(replica, 0, b"o" * 3 * BLOCK_BYTES)
    replica.sync()
    write(replica, 0, b"n")
    replica.sync()
    file.content[DATA_OFFSET + BLOCK_BYTES + 9] ^= 4
    after = reopened(file)
    assert after.doubtful == 0
    with pytest.raises(Failure):
        read(after, BLOCK_BYTES, 5)
    lost = Replica.open(MemoryFile(file.content), HANDLE, "a replica", boot=2)
    assert lost.doubtful == 0b10  # what was synced before a power loss is not known any more


def test_a_block_that_a_power_loss_tore_while_its_replica_joined_is_doubted() -> None:
    file, replica = make()
    write(replica, 0, b"o" * 3 * BLOCK_BYTES)
    replica.fence(2, ReplicaState.JOINING)
    replica.sync()
    before = bytearray(file.content)
    write(replica, BLOCK_BYTES, b"n" * BLOCK_BYTES)
    table = slice(TABLE_OFFSET, TABLE_OFFSET + TABLE_BYTES)
    torn = MemoryFile(before)  # the header and the data are lost, the entry is there
    torn.content[table] = file.content[table]
    after = Replica.open(torn, HANDLE, "a replica", boot=2)
    assert after.state is ReplicaState.JOINING
    assert after.doubtful == 0b10
    assert read(after, 0, CHUNK_BYTES) == b"o" * 3 * BLOCK_BYTES


def test_a_mismatch_of_what_was_touched_is_taken_as_it_is_and_doubted() -> None:
    file, replica = make()
    write(replica, 0, b"o" * 3 * BLOCK_BYTES)
    file.content[DATA_OFFSET + BLOCK_BYTES + 9] ^= 4
    after = reopened(file)
    assert after.doubtful == 0b10
    after.adopt(1, b"o" * BLOCK_BYTES)
    assert after.doubtful == 0
    assert read(after, 0, CHUNK_BYTES) == b"o" * 3 * BLOCK_BYTES


def test_whole_damaged_block_is_left_to_the_readers_verification() -> None:
    file, replica = make()
    write(replica, 0, b"o" * BLOCK_BYTES)
    file.content[DATA_OFFSET + 9] ^= 4
    with pytest.raises(Failure) as caught:
        read(replica, 0, BLOCK_BYTES)
    assert caught.value.code is Code.CORRUPT


@pytest.mark.parametrize("offset", [0, 100, BLOCK_BYTES])
def test_partial_write_does_not_launder_a_damaged_block(
    offset: int, expected_logs: ExpectedLogs
) -> None:
    expected_logs("block [0-9]+ is damaged")
    file, replica = make()
    write(replica, 0, b"o" * (BLOCK_BYTES + 200))
    replica.sync()
    file.content[DATA_OFFSET + 50] ^= 1
    file.content[DATA_OFFSET + BLOCK_BYTES + 50] ^= 1
    before = bytes(file.content[DATA_OFFSET:])
    with pytest.raises(Failure) as caught:
        write(replica, offset, b"nn")
    assert caught.value.code is Code.CORRUPT
    assert file.content[DATA_OFFSET:] == before


def test_damaged_block_heals_when_it_is_overwritten_as_a_whole(expected_logs: ExpectedLogs) -> None:
    expected_logs("block [0-9]+ is damaged")
    file, replica = make()
    write(replica, 0, b"o" * BLOCK_BYTES)
    file.content[DATA_OFFSET] ^= 1
    with pytest.raises(Failure):
        read(replica, 1, 5)
    write(replica, 0, b"n" * BLOCK_BYTES)
    assert read(replica, 1, 5) == b"nnnnn"


def test_damaged_checksum_entry_is_found(expected_logs: ExpectedLogs) -> None:
    expected_logs("block [0-9]+ is damaged")
    file, replica = make()
    write(replica, 0, b"o" * BLOCK_BYTES)
    replica.sync(clean=True)
    file.content[TABLE_OFFSET + 3] ^= 1
    with pytest.raises(Failure):
        read(reopened(file), 5, 5)


def test_truncated_file_is_found(expected_logs: ExpectedLogs) -> None:
    expected_logs("block [0-9]+ is damaged")
    file, replica = make()
    write(replica, 0, b"o" * 3 * BLOCK_BYTES)
    replica.sync()
    del file.content[DATA_OFFSET + BLOCK_BYTES :]
    after = reopened(file)
    assert read(after, 0, BLOCK_BYTES) == b"o" * BLOCK_BYTES
    with pytest.raises(Failure) as caught:
        read(after, BLOCK_BYTES, 10)
    assert caught.value.code is Code.CORRUPT


@given(st.binary(min_size=0, max_size=HEADER_BYTES))
def test_random_header_is_refused_as_corrupt(header: bytes) -> None:
    file, replica = make()
    write(replica, 0, b"data")
    file.content[:HEADER_BYTES] = header.ljust(HEADER_BYTES, b"\0")
    with pytest.raises(Failure) as caught:
        reopened(file)
    assert caught.value.code is Code.CORRUPT


def test_replica_of_another_chunk_is_refused() -> None:
    file, replica = make()
    write(replica, 0, b"data")
    with pytest.raises(Failure):
        Replica.open(file, HANDLE + 1, "a replica")


# -- a full disk


@pytest.mark.parametrize("offset", [0, 2 * BLOCK_BYTES + 500, 4 * BLOCK_BYTES])
def test_failed_append_is_undone_and_the_rest_stays_readable(offset: int) -> None:
    file, replica = make()
    old = b"o" * (2 * BLOCK_BYTES + 500)
    write(replica, 0, old)
    file.capacity_bytes = DATA_OFFSET + len(old) + 4096
    with pytest.raises(OSError, match="space"):
        write(replica, offset, b"o" * 5 * BLOCK_BYTES)
    assert replica.broken
    after = _state_after(file)
    assert read(after, 0, CHUNK_BYTES) == old


def test_checksums_are_those_of_the_pieces_asked_for() -> None:
    _, replica = make()
    data = bytes(i % 256 for i in range(3 * BLOCK_BYTES))
    write(replica, 0, data)
    answer = replica.read(10, 2 * BLOCK_BYTES)
    assert answer is not None
    sums = unpack_checksums(answer[1])
    assert sums[0] == checksum(data[10:BLOCK_BYTES])
    assert sums[2] == checksum(data[2 * BLOCK_BYTES : 2 * BLOCK_BYTES + 10])
