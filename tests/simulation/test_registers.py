"""Which reads of a block are explained by its writes."""

from __future__ import annotations

import math

import pytest

from tests.simulation.history import Op
from tests.simulation.registers import grouped, misreads

ZEROS = b"0"


def write(value: bytes, began_s: float, ended_s: float = math.inf) -> Op:
    return Op(0, "w", "write", (1, (0,), value), began_s, ended_s)


def read(value: bytes, began_s: float, ended_s: float) -> Op:
    return Op(0, "r", "read", (1, 0), began_s, ended_s, answer=value)


WRITES = [write(b"a", 1, 2), write(b"b", 3, 5), write(b"c", 4)]


@pytest.mark.parametrize(
    ("value", "began_s", "ended_s"),
    [
        (ZEROS, 0, 0.5),
        (ZEROS, 1.5, 3),  # beside the first write
        (b"a", 1.5, 1.6),
        (b"a", 4.5, 6),  # the next one had not ended
        (b"b", 3.5, 9),
        (b"b", 100, 101),  # the open write may never happen
        (b"c", 100, 101),  # or at any time
    ],
)
def test_a_read_of_what_was_there_or_beside_it_is_fine(
    value: bytes, began_s: float, ended_s: float
) -> None:
    assert not list(misreads(WRITES, [read(value, began_s, ended_s)], ZEROS))


@pytest.mark.parametrize(
    ("value", "began_s", "ended_s"),
    [
        (ZEROS, 2.5, 3),  # lost
        (b"a", 5.5, 6),  # stale
        (b"b", 1, 2.5),  # of the future
        (b"x", 1, 2),  # of nobody
    ],
)
def test_a_read_of_what_was_replaced_or_not_yet_or_never_written_is_found(
    value: bytes, began_s: float, ended_s: float
) -> None:
    (found,) = misreads(WRITES, [read(value, began_s, ended_s)], ZEROS)
    assert found.read.answer == value


def test_a_write_of_several_blocks_is_one_of_each() -> None:
    both, one = Op(0, "w", "write", (1, (0, 7), b"v"), 0, 1), read(b"v", 2, 3)
    assert grouped([both, one]) == {(1, 0): [both, one], (1, 7): [both]}
