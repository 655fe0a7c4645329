"""What both key-value stores promise."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable

import hypothesis
import pytest
import trio
from hypothesis import strategies as st

from dfs.errors import Code, Failure
from dfs.runtime import Env, KeyValue, WriteBatch
from tests.runtime.worlds import Place, real_place, simulated_place

TABLES = ("one", "two")
MAP_BYTES = 1 << 30


def open_store(place: Place, name: str = "store") -> KeyValue:
    return place.disk.open_key_value(place.path(name), TABLES, MAP_BYTES)


def put(store: KeyValue, *pairs: tuple[bytes, bytes], table: str = "one") -> None:
    batch = WriteBatch()
    for key, value in pairs:
        batch.put(table, key, value)
    store.write(batch)


def contents(store: KeyValue) -> dict[str, dict[bytes, bytes]]:
    return {table: dict(store.scan(table)) for table in TABLES}


@pytest.fixture
def store(place: Place) -> KeyValue:
    return open_store(place)


def test_a_new_store_is_empty(store: KeyValue) -> None:
    assert contents(store) == {"one": {}, "two": {}}
    assert store.get("one", b"key") is None


def test_tables_are_apart(store: KeyValue) -> None:
    put(store, (b"key", b"1"))
    put(store, (b"key", b"2"), table="two")
    assert (store.get("one", b"key"), store.get("two", b"key")) == (b"1", b"2")


def test_a_batch_puts_and_deletes(store: KeyValue) -> None:
    put(store, (b"a", b"1"), (b"b", b"2"), (b"empty", b""))
    batch = WriteBatch()
    batch.delete("one", b"a")
    batch.delete("one", b"never there")
    batch.put("one", b"b", b"3")
    store.write(batch)
    assert contents(store)["one"] == {b"b": b"3", b"empty": b""}


def test_scans_are_ordered_and_half_open(store: KeyValue) -> None:
    put(store, *((bytes([i]), b"") for i in (9, 1, 255, 5, 7)))
    assert [k for k, _ in store.scan("one")] == [b"\1", b"\5", b"\7", b"\t", b"\xff"]
    assert [k for k, _ in store.scan("one", b"\5", b"\t")] == [b"\5", b"\7"]
    assert [k for k, _ in store.scan("one", b"\6")] == [b"\7", b"\t", b"\xff"]
    assert list(store.scan("one", b"\7", b"\7")) == []


def test_keys_have_limits(store: KeyValue) -> None:
    for key in (b"", b"k" * 512):
        with pytest.raises(ValueError, match="keys are 1 to 511 bytes"):
            put(store, (b"fine", b""), (key, b""))
    assert contents(store)["one"] == {}, "a refused batch has no effect"
    put(store, (b"k" * 511, b"v" * 100_000))
    assert store.get("one", b"k" * 511) == b"v" * 100_000


def test_an_unknown_table_is_a_mistake(store: KeyValue) -> None:
    with pytest.raises(KeyError):
        store.get("three", b"key")
    with pytest.raises(KeyError):
        put(store, (b"key", b""), table="three")


def test_writing_during_a_scan_is_caught(store: KeyValue) -> None:
    put(store, (b"a", b""), (b"b", b""))

    def write_while_scanning() -> None:
        for key, _ in store.scan("one"):
            put(store, (key, b"changed"))
            store.get("one", key)

    with pytest.raises(RuntimeError, match="written while scanned"):
        write_while_scanning()


def test_reopening_finds_what_was_written(place: Place, store: KeyValue) -> None:
    put(store, (b"key", b"value"))
    store.close()
    assert open_store(place).get("one", b"key") == b"value"


def test_a_closed_store_is_not_used(store: KeyValue) -> None:
    put(store, (b"key", b"value"))
    store.close()
    with pytest.raises(OSError, match="store") as reading:
        store.get("one", b"key")
    with pytest.raises(OSError, match="store") as writing:
        put(store, (b"key", b""))
    assert (reading.value.errno, writing.value.errno) == (errno.EBADF, errno.EBADF)


def test_a_store_needs_its_directory(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        open_store(place, "no directory/store")


def test_reads_see_a_write_made_elsewhere_once_it_returned(place: Place) -> None:
    store = open_store(place)

    async def main(env: Env) -> None:
        assert store.get("one", b"key") is None
        await env.run_blocking(lambda: put(store, (b"key", b"value")))
        assert store.get("one", b"key") == b"value"

    place.run(main)


def test_reads_go_on_beside_writes_and_never_see_half_of_one(place: Place) -> None:
    store = open_store(place)
    put(store, *((b"%d" % i, b"0") for i in range(50)))

    async def main(env: Env) -> None:
        done = trio.Event()

        def write(value: bytes) -> None:
            put(store, *((b"%d" % i, value) for i in range(50)))

        async def writer() -> None:
            for n in range(30):
                await env.run_blocking(functools.partial(write, b"%d" % n))
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer)
            while not done.is_set():
                assert len(dict.fromkeys(v for _, v in store.scan("one"))) == 1
                await env.run_blocking(lambda: None)  # time has to pass on a virtual clock
        assert store.get("one", b"7") == b"29"

    place.run(main)


def test_a_copy_is_what_the_store_was(place: Place, store: KeyValue) -> None:
    put(store, (b"key", b"old"), (b"gone", b"soon"))
    store.copy_to(place.path("copy"))
    batch = WriteBatch()
    batch.put("one", b"key", b"new")
    batch.delete("one", b"gone")
    batch.put("two", b"more", b"x")
    store.write(batch)
    store.replace_with(place.path("copy"))
    assert contents(store) == {"one": {b"key": b"old", b"gone": b"soon"}, "two": {}}
    assert not place.disk.exists(place.path("copy"))
    put(store, (b"key", b"newest"))
    store.close()
    assert open_store(place).get("one", b"key") == b"newest"


def test_a_copy_replaces_no_file(place: Place, store: KeyValue) -> None:
    place.disk.write_file(place.path("precious"), b"data")
    with pytest.raises(FileExistsError):
        store.copy_to(place.path("precious"))


def test_a_copy_can_be_sent_as_bytes(place: Place, store: KeyValue) -> None:
    put(store, (b"key", b"value"))
    store.copy_to(place.path("copy"))
    received = place.disk.open(place.path("received"), write=True, create=True)
    received.pwrite([place.disk.read_file(place.path("copy"))], 0)
    received.datasync()
    received.close()
    other = open_store(place, "other")
    put(other, (b"its own", b"x"))
    other.replace_with(place.path("received"))
    assert contents(other)["one"] == {b"key": b"value"}
    assert contents(store)["one"] == {b"key": b"value"}


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_within_the_head(data: bytes) -> bytes:
    return data[:20]


def with_another_magic(data: bytes) -> bytes:
    return b"\xaa" * 64 + data[64:]


@pytest.mark.parametrize("damage", [cut_short, cut_within_the_head, with_another_magic])
def test_a_damaged_copy_is_refused_and_the_store_stays(
    place: Place, store: KeyValue, damage: Callable[[bytes], bytes]
) -> None:
    put(store, *((b"%d" % i, b"v" * 500) for i in range(100)))
    store.copy_to(place.path("copy"))
    place.disk.write_file(place.path("copy"), damage(place.disk.read_file(place.path("copy"))))
    with pytest.raises(Failure) as caught:
        store.replace_with(place.path("copy"))
    assert caught.value.code is Code.DISK
    assert place.path("copy") in caught.value.message
    assert len(contents(store)["one"]) == 100


def test_a_full_map_is_refused_without_effect(place: Place) -> None:
    store = place.disk.open_key_value(place.path("small"), TABLES, 1 << 20)
    put(store, (b"key", b"before"))
    with pytest.raises(OSError, match="map size"):
        put(store, *((b"%d" % i, bytes(100_000)) for i in range(20)))
    assert contents(store)["one"] == {b"key": b"before"}
    put(store, (b"key", b"after"))
    assert store.get("one", b"key") == b"after"


def test_used_bytes_grow_with_the_content(store: KeyValue) -> None:
    before = store.used_bytes()
    put(store, *((b"%d" % i, bytes(10_000)) for i in range(100)))
    assert store.used_bytes() >= before + 900_000


def test_the_last_change_of_a_key_in_a_batch_counts(store: KeyValue) -> None:
    batch = WriteBatch()
    batch.put("one", b"a", b"1")
    batch.delete("one", b"a")
    batch.delete("one", b"b")
    batch.put("one", b"b", b"2")
    store.write(batch)
    store.write(WriteBatch())
    assert contents(store)["one"] == {b"b": b"2"}


def test_a_refused_batch_leaves_the_other_tables_alone(store: KeyValue) -> None:
    batch = WriteBatch()
    batch.put("one", b"fine", b"")
    batch.put("two", b"", b"not fine")
    with pytest.raises(ValueError, match="keys are 1 to 511 bytes"):
        store.write(batch)
    assert contents(store) == {"one": {}, "two": {}}


def test_what_cannot_be_a_key_is_not_found(store: KeyValue) -> None:
    with pytest.raises(ValueError, match="keys are 1 to 511 bytes"):
        store.get("one", b"")
    assert store.get("one", b"k" * 512) is None


def test_bounds_of_a_scan_need_not_be_keys(store: KeyValue) -> None:
    put(store, (b"b", b""), (b"d", b""))
    assert [k for k, _ in store.scan("one", b"a", b"c")] == [b"b"]
    assert [k for k, _ in store.scan("one", b"c")] == [b"d"]
    assert list(store.scan("one", b"d", b"b")) == []
    assert list(store.scan("one", b"e")) == []


def test_a_scan_may_be_given_up(store: KeyValue) -> None:
    put(store, (b"a", b"1"), (b"b", b"2"))
    pairs = store.scan("one")
    assert next(pairs) == (b"a", b"1")
    put(store, (b"c", b"3"))
    assert [k for k, _ in store.scan("one")] == [b"a", b"b", b"c"]
    with pytest.raises(RuntimeError, match="written while scanned"):
        next(pairs)


def test_two_scans_go_on_beside_each_other(store: KeyValue) -> None:
    put(store, (b"a", b""), (b"b", b""))
    both = zip(store.scan("one"), store.scan("one", b"b"), strict=False)
    assert [(x, y) for (x, _), (y, _) in both] == [(b"a", b"b")]


def test_a_store_may_get_more_tables(place: Place, store: KeyValue) -> None:
    put(store, (b"key", b"value"))
    store.close()
    more = place.disk.open_key_value(place.path("store"), (*TABLES, "three"), MAP_BYTES)
    put(more, (b"key", b"third"), table="three")
    assert (more.get("one", b"key"), more.get("three", b"key")) == (b"value", b"third")


def test_every_use_of_a_closed_store_says_so(place: Place, store: KeyValue) -> None:
    store.close()
    store.close()
    for use in (
        lambda: store.write(WriteBatch()),
        lambda: list(store.scan("one")),
        lambda: store.copy_to(place.path("copy")),
        store.used_bytes,
    ):
        with pytest.raises(OSError, match="store") as caught:
            use()
        assert caught.value.errno == errno.EBADF


def test_copies_need_their_places(place: Place, store: KeyValue) -> None:
    with pytest.raises(FileNotFoundError):
        store.copy_to(place.path("no directory/copy"))
    with pytest.raises(FileNotFoundError):
        store.replace_with(place.path("missing"))
    put(store, (b"key", b"value"))
    assert store.get("one", b"key") == b"value"


def test_a_sound_store_passes_and_a_damaged_one_does_not(place: Place, store: KeyValue) -> None:
    put(store, *((b"%d" % i, b"v" * 500) for i in range(100)))
    store.copy_to(place.path("copy"))
    store.close()
    place.disk.verify_key_value(place.path("store"))
    place.disk.verify_key_value(place.path("copy"))
    place.disk.write_file(place.path("copy"), cut_short(place.disk.read_file(place.path("copy"))))
    with pytest.raises(Failure) as caught:
        place.disk.verify_key_value(place.path("copy"))
    assert caught.value.code is Code.DISK


keys = st.binary(min_size=1, max_size=4)
batches = st.lists(
    st.dictionaries(
        st.sampled_from(TABLES),
        st.dictionaries(keys, st.none() | st.binary(max_size=3000), max_size=6),
    ),
    max_size=6,
)


@hypothesis.given(batches, keys, keys)
@pytest.mark.parametrize("world", ["real", "simulated"])
def test_a_store_is_like_sorted_dictionaries(
    tmp_path_factory: pytest.TempPathFactory,
    world: str,
    batches: list[dict[str, dict[bytes, bytes | None]]],
    start: bytes,
    end: bytes,
) -> None:
    real = world == "real"
    place = real_place(str(tmp_path_factory.mktemp("store"))) if real else simulated_place()
    store = open_store(place)
    model: dict[str, dict[bytes, bytes]] = {table: {} for table in TABLES}
    for batch in batches:
        store.write(WriteBatch(batch))
        for table, changes in batch.items():
            merged = {**model[table], **changes}
            model[table] = {k: v for k, v in merged.items() if v is not None}
        for table in TABLES:
            pairs = sorted(model[table].items())
            assert list(store.scan(table)) == pairs
            within = [(k, v) for k, v in pairs if start <= k < end]
            assert list(store.scan(table, start, end)) == within
            assert store.get(table, start) == model[table].get(start)
    store.close()
