"""What `up` makes of a wish and a memory: kept where it agrees, refused where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from dfs.errors import Failure
from dfs.local import state
from dfs.local.layout import Root
from dfs.local.state import State
from dfs.local.up import Wish, settle
from dfs.runtime.real import RealEnv

KNOWN = State("local", 20_000, 3, 3, {1: "/mnt"})


def settled(root: Root, wish: Wish) -> State:
    return trio.run(settle, RealEnv("test"), root, wish)


@pytest.fixture
def known(tmp_path: Path) -> Root:
    root = Root(str(tmp_path))
    state.save(root, KNOWN)
    return root


def test_the_first_time_three_of_each_on_free_ports(tmp_path: Path) -> None:
    made = settled(Root(str(tmp_path)), Wish())
    assert (made.masters, made.chunkservers) == (3, 3)
    assert made.base_port >= 20_000


def test_a_wish_for_a_port_is_followed(tmp_path: Path) -> None:
    assert settled(Root(str(tmp_path)), Wish(base_port=12_345)).base_port == 12_345


def test_without_a_wish_everything_stays(known: Root) -> None:
    assert settled(known, Wish()) == KNOWN
    assert settled(known, Wish(masters=3, chunkservers=3, base_port=20_000)) == KNOWN


def test_chunkservers_can_be_added(known: Root) -> None:
    assert settled(known, Wish(chunkservers=5)).chunkservers == 5


@pytest.mark.parametrize("wish", [Wish(masters=5), Wish(chunkservers=2), Wish(base_port=1)])
def test_what_cannot_be_changed_is_refused(known: Root, wish: Wish) -> None:
    with pytest.raises(Failure, match=r"the cluster in .* has"):
        settled(known, wish)
