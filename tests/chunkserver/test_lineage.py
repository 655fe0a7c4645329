"""Which group of masters a chunkserver obeys: the newest that it has seen, over restarts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chunkserver.lineage import Lineage
from dfs.errors import Code, Failure
from dfs.runtime.sim import World
from tests.conftest import ExpectedLogs


@pytest.fixture
def opened() -> Callable[[], Lineage]:
    """A server's lineage as it is after a loss of power, on two disks."""
    world = World(1)
    for directory in ("/a", "/b"):
        world.env("node").disk.make_directory(directory)

    def open_again() -> Lineage:
        world.crash("node")
        return Lineage(world.env("node"), ("/a", "/b"))

    open_again.world = world  # type: ignore[attr-defined]
    return open_again


def test_the_first_group_needs_no_memory(opened: Callable[[], Lineage]) -> None:
    lineage = opened()
    lineage.learn(0)
    assert (lineage.known(), opened().known()) == (0, 0)


def test_a_group_that_was_replaced_is_refused_for_ever(
    opened: Callable[[], Lineage], expected_logs: ExpectedLogs
) -> None:
    expected_logs("founded anew has taken over")
    opened().learn(17)
    again = opened()
    assert again.known() == 17
    again.learn(17)
    with pytest.raises(Failure, match="replaced") as caught:
        again.learn(0)
    assert caught.value.code is Code.CONFIG


def test_one_disk_is_enough_to_remember_and_none_is_not(
    opened: Callable[[], Lineage], expected_logs: ExpectedLogs
) -> None:
    expected_logs("founded anew has taken over|cannot be written")
    lineage = opened()
    media = opened.world.disk("node")  # type: ignore[attr-defined]
    media.fail("/a", 5, "write")
    media.fail("/b", 5, "write")
    lineage = opened()
    with pytest.raises(Failure, match="no disk can remember") as caught:
        lineage.learn(3)
    assert caught.value.code is Code.DISK
    media.repair()
    media.fail("/a", 5, "write")
    lineage.learn(3)
    assert opened().known() == 3
