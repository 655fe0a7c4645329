"""Both worlds behind one face, for the tests that hold for either."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from dfs.runtime import Disk, Env
from dfs.runtime.real import RealEnv
from dfs.runtime.sim import World

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A node to test on, and a directory of its disk."""

    name: str
    env: Env
    directory: str
    run_main: Callable[[Callable[[], Awaitable[object]]], object]

    @property
    def disk(self) -> Disk:
        return self.env.disk

    def run(self, main: Callable[[Env], Awaitable[object]]) -> None:
        self.run_main(functools.partial(main, self.env))

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}"


def real_place(directory: str) -> Place:
    return Place("real", RealEnv("node"), directory, trio.run)


def simulated_place(seed: int = 1) -> Place:
    world = World(seed)
    env = world.env("node")
    env.disk.make_directory("/data")
    return Place("simulated", env, "/data", world.run)
