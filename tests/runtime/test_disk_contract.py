"""What both disks promise."""

from __future__ import annotations

import errno

import hypothesis
import pytest
from hypothesis import strategies as st

from dfs.runtime import File
from tests.runtime.worlds import Place, real_place, simulated_place


def read(file: File, offset: int, length_bytes: int) -> bytes:
    data = bytearray(length_bytes)
    got = file.pread_into(memoryview(data), offset)
    return bytes(data[:got])


@pytest.fixture
def file(place: Place) -> File:
    return place.disk.open(place.path("file"), write=True, create=True)


def test_opening_a_missing_file_says_so(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        place.disk.open(place.path("missing"))
    with pytest.raises(FileNotFoundError):
        place.disk.open(place.path("no directory/file"), write=True, create=True)


def test_what_was_written_is_read(file: File) -> None:
    file.pwrite([b"abc", bytearray(b"def"), memoryview(b"ghi")], 0)
    assert read(file, 0, 100) == b"abcdefghi"
    assert read(file, 4, 2) == b"ef"
    assert read(file, 9, 5) == b""
    assert file.size() == 9


def test_more_buffers_than_one_system_call_takes(file: File) -> None:
    file.pwrite([bytes([i % 251]) * 3 for i in range(3000)], 5)
    assert read(file, 5, 9000) == b"".join(bytes([i % 251]) * 3 for i in range(3000))


def test_holes_read_as_zeros(file: File) -> None:
    file.pwrite([b"end"], 10_000)
    assert read(file, 0, 10_003) == bytes(10_000) + b"end"


def test_truncating_cuts_and_lengthens(file: File) -> None:
    file.pwrite([b"x" * 9000], 0)
    file.truncate(5000)
    file.truncate(9000)
    assert read(file, 0, 9000) == b"x" * 5000 + bytes(4000)


def test_what_is_forgotten_is_read_again(file: File) -> None:
    file.pwrite([b"x" * 20_000], 0)
    file.datasync()
    file.pwrite([b"y" * 5000], 0)
    file.forget(0, 100_000)
    assert read(file, 0, 20_000) == b"y" * 5000 + b"x" * 15_000


def test_a_punched_range_reads_as_zeros_and_keeps_the_length(file: File) -> None:
    file.pwrite([b"x" * 20_000], 0)
    file.punch(1000, 10_000)
    file.punch(19_000, 50_000)
    assert file.size() == 20_000
    assert read(file, 0, 20_000) == b"x" * 1000 + bytes(10_000) + b"x" * 8000 + bytes(1000)


def test_a_cached_read_is_right_or_declines(file: File) -> None:
    file.pwrite([b"0123456789"], 0)
    answers = []
    for _ in range(50):
        data = bytearray(20)
        got = file.pread_cached(memoryview(data), 5)
        answers.append(None if got is None else bytes(data[:got]))
    assert [a for a in answers if a not in (None, b"56789")] == []
    data = bytearray(4)
    assert file.pread_cached(memoryview(data), 0) in (None, 4)


def test_a_file_opened_for_reading_is_not_written(place: Place, file: File) -> None:
    file.pwrite([b"kept"], 0)
    reader = place.disk.open(place.path("file"))
    with pytest.raises(OSError, match=r".") as caught:
        reader.pwrite([b"lost"], 0)
    assert caught.value.errno == errno.EBADF
    assert read(reader, 0, 10) == b"kept"


def test_a_closed_file_is_not_read(file: File) -> None:
    file.close()
    file.close()
    with pytest.raises(OSError, match=r".") as caught:
        read(file, 0, 1)
    assert caught.value.errno == errno.EBADF


def test_whole_files_are_replaced(place: Place) -> None:
    path = place.path("whole")
    place.disk.write_file(path, b"first and long")
    place.disk.write_file(path, b"second")
    assert place.disk.read_file(path) == b"second"
    place.disk.write_file(path, b"")
    assert place.disk.read_file(path) == b""
    assert place.disk.list_directory(place.directory) == ["whole"]


def test_rename_replaces_and_keeps_open_files(place: Place) -> None:
    place.disk.write_file(place.path("a"), b"A")
    place.disk.write_file(place.path("b"), b"B")
    old = place.disk.open(place.path("b"))
    place.disk.rename(place.path("a"), place.path("b"))
    assert read(old, 0, 5) == b"B"
    assert place.disk.read_file(place.path("b")) == b"A"
    assert not place.disk.exists(place.path("a"))
    with pytest.raises(FileNotFoundError):
        place.disk.rename(place.path("a"), place.path("b"))


def test_unlink_removes_the_name_only(place: Place, file: File) -> None:
    file.pwrite([b"still"], 0)
    place.disk.unlink(place.path("file"))
    assert not place.disk.exists(place.path("file"))
    assert read(file, 0, 5) == b"still"
    with pytest.raises(FileNotFoundError):
        place.disk.unlink(place.path("file"))


def test_directories_are_made_with_their_parents_and_listed_in_order(place: Place) -> None:
    place.disk.make_directory(place.path("x/y/z"))
    place.disk.make_directory(place.path("x/y/z"))
    for name in ("c", "a", "b"):
        place.disk.write_file(place.path(f"x/y/{name}"), b"")
    place.disk.sync_directory(place.path("x/y"))
    assert place.disk.list_directory(place.path("x/y")) == ["a", "b", "c", "z"]
    assert place.disk.list_directory(place.path("x")) == ["y"]
    assert place.disk.exists(place.path("x"))
    with pytest.raises(FileNotFoundError):
        place.disk.list_directory(place.path("nothing"))
    with pytest.raises(FileExistsError):
        place.disk.make_directory(place.path("x/y/a"))


def test_space_is_sensible(place: Place) -> None:
    space = place.disk.space(place.directory)
    assert 0 < space.free_bytes <= space.total_bytes


def test_a_lock_is_held_once(place: Place) -> None:
    place.disk.lock(place.path("lock"))
    with pytest.raises(BlockingIOError):
        place.disk.lock(place.path("lock"))
    place.disk.lock(place.path("another"))


def test_two_openings_see_each_others_changes(place: Place, file: File) -> None:
    other = place.disk.open(place.path("file"), write=True)
    file.pwrite([b"one"], 0)
    other.pwrite([b"two"], 3)
    assert read(file, 0, 10) == read(other, 0, 10) == b"onetwo"
    other.truncate(4)
    assert file.size() == 4


def test_creating_keeps_what_is_there(place: Place, file: File) -> None:
    file.pwrite([b"kept"], 0)
    again = place.disk.open(place.path("file"), write=True, create=True)
    assert read(again, 0, 10) == b"kept"


def test_a_name_made_anew_is_another_file(place: Place, file: File) -> None:
    file.pwrite([b"old"], 0)
    place.disk.unlink(place.path("file"))
    new = place.disk.open(place.path("file"), write=True, create=True)
    new.pwrite([b"anew"], 0)
    file.pwrite([b"OLD"], 0)
    assert (read(file, 0, 10), read(new, 0, 10)) == (b"OLD", b"anew")


def test_writing_nothing_changes_nothing(file: File) -> None:
    file.pwrite([], 100)
    file.pwrite([b"", b""], 100)
    file.punch(0, 100)
    assert file.size() == 0


def test_every_use_of_a_closed_file_says_so(file: File) -> None:
    file.close()
    for use in (
        lambda: file.pwrite([b"x"], 0),
        lambda: file.pread_into(memoryview(bytearray(1)), 0),
        lambda: file.truncate(0),
        lambda: file.punch(0, 1),
        lambda: file.forget(0, 1),
        file.datasync,
        file.size,
    ):
        with pytest.raises(OSError, match=r".") as caught:
            use()
        assert caught.value.errno == errno.EBADF


def test_a_path_through_a_file_is_none(place: Place, file: File) -> None:
    through = place.path("file/below")
    for use in (
        lambda: place.disk.open(through),
        lambda: place.disk.open(through, write=True, create=True),
        lambda: place.disk.read_file(through),
        lambda: place.disk.write_file(through, b""),
        lambda: place.disk.unlink(through),
        lambda: place.disk.rename(through, place.path("other")),
        lambda: place.disk.rename(place.path("file"), through),
        lambda: place.disk.list_directory(place.path("file")),
        lambda: place.disk.sync_directory(place.path("file")),
        lambda: place.disk.lock(through),
    ):
        with pytest.raises(NotADirectoryError):
            use()
    assert not place.disk.exists(through)
    with pytest.raises(FileExistsError):
        place.disk.make_directory(through)
    assert not place.disk.exists(through)


def test_a_directory_is_no_file(place: Place) -> None:
    path = place.path("directory")
    place.disk.make_directory(path)
    place.disk.write_file(place.path("whole"), b"x")
    for use in (
        lambda: place.disk.open(path, write=True),
        lambda: place.disk.open(path, write=True, create=True),
        lambda: place.disk.read_file(path),
        lambda: place.disk.write_file(path, b""),
        lambda: place.disk.unlink(path),
        lambda: place.disk.rename(place.path("whole"), path),
    ):
        with pytest.raises(IsADirectoryError):
            use()
    assert place.disk.read_file(place.path("whole")) == b"x"


def test_what_is_missing_is_said_to_be(place: Place) -> None:
    missing = place.path("missing")
    for use in (
        lambda: place.disk.open(missing, write=True),
        lambda: place.disk.read_file(missing),
        lambda: place.disk.unlink(missing),
        lambda: place.disk.rename(missing, place.path("other")),
        lambda: place.disk.space(missing),
        lambda: place.disk.sync_directory(missing),
        lambda: place.disk.list_directory(missing),
        lambda: place.disk.write_file(f"{missing}/file", b""),
        lambda: place.disk.lock(f"{missing}/lock"),
        lambda: place.disk.verify_key_value(missing),
    ):
        with pytest.raises(FileNotFoundError):
            use()
    place.disk.write_file(place.path("here"), b"x")
    with pytest.raises(FileNotFoundError):
        place.disk.rename(place.path("here"), f"{missing}/there")
    assert place.disk.read_file(place.path("here")) == b"x"


def test_renaming_to_itself_changes_nothing(place: Place) -> None:
    place.disk.write_file(place.path("a"), b"A")
    place.disk.rename(place.path("a"), place.path("a"))
    assert place.disk.read_file(place.path("a")) == b"A"


def test_a_file_moves_between_directories(place: Place) -> None:
    for name in ("x", "y"):
        place.disk.make_directory(place.path(name))
    place.disk.write_file(place.path("x/file"), b"moved")
    place.disk.rename(place.path("x/file"), place.path("y/file"))
    assert place.disk.list_directory(place.path("x")) == []
    assert place.disk.list_directory(place.path("y")) == ["file"]


def test_one_run_of_the_machine_has_one_number(place: Place) -> None:
    assert place.disk.boot() == place.disk.boot() > 0


def test_a_lock_file_is_a_file_and_may_be_there_already(place: Place) -> None:
    place.disk.write_file(place.path("lock"), b"left by the last process")
    place.disk.lock(place.path("lock"))
    assert place.disk.exists(place.path("lock"))


offsets = st.integers(0, 20_000)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), offsets, st.binary(min_size=1, max_size=9000)),
        st.tuples(st.just("truncate"), offsets, st.just(b"")),
        st.tuples(st.just("punch"), offsets, st.binary(min_size=1, max_size=9000)),
    ),
    max_size=8,
)


def apply(model: bytearray, kind: str, offset: int, data: bytes) -> None:
    """One step on a bytearray."""
    if kind == "write":
        model.extend(bytes(max(0, offset + len(data) - len(model))))
        model[offset : offset + len(data)] = data
    elif kind == "truncate":
        del model[offset:]
        model.extend(bytes(offset - len(model)))
    else:
        end = min(offset + len(data), len(model))
        model[offset:end] = bytes(max(0, end - offset))


@hypothesis.given(steps)
@pytest.mark.parametrize("world", ["real", "simulated"])
def test_a_file_is_like_a_bytearray(
    tmp_path_factory: pytest.TempPathFactory, world: str, steps: list[tuple[str, int, bytes]]
) -> None:
    real = world == "real"
    place = real_place(str(tmp_path_factory.mktemp("file"))) if real else simulated_place()
    file = place.disk.open(place.path("file"), write=True, create=True)
    model = bytearray()
    for kind, offset, data in steps:
        apply(model, kind, offset, data)
        if kind == "write":
            file.pwrite([data], offset)
        elif kind == "truncate":
            file.truncate(offset)
        else:
            file.punch(offset, len(data))
        assert read(file, 0, 50_000) == model
        assert file.size() == len(model)
    file.close()
