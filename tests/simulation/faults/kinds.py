"""The registry of fault kinds, and the strokes that several families share."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from tests.simulation.arena import Arena, Skipped

Strike = Callable[[Arena, random.Random], Awaitable[None]]
LAST_MIN_S, LAST_MAX_S = 0.05, 8.0


@dataclass(frozen=True)
class Kind:
    """One kind of fault, of a family."""

    name: str
    family: str
    strike: Strike


KINDS: dict[str, Kind] = {}


def kind(family: str) -> Callable[[Strike], Strike]:
    """Register the function under its own name."""

    def register(strike: Strike) -> Strike:
        name = strike.__name__
        assert name not in KINDS, name
        KINDS[name] = Kind(name, family, strike)
        return strike

    return register


def of_families(families: Iterable[str]) -> list[str]:
    """The names of their kinds, in the order of registration."""
    wanted = tuple(families)
    return [name for name, kind in KINDS.items() if kind.family in wanted]


async def last(arena: Arena, chance: random.Random, longest_s: float = LAST_MAX_S) -> None:
    """Let it last: mostly short, sometimes longer than leases and timeouts."""
    await arena.pass_time(LAST_MIN_S + (longest_s - LAST_MIN_S) * chance.random() ** 2)


async def isolate(arena: Arena, chance: random.Random, name: str) -> None:
    arena.world.partition(name, "*")
    await last(arena, chance)
    arena.world.heal_between(name, "*")


async def cut(arena: Arena, chance: random.Random, a: str, b: str) -> None:
    """Between two nodes, one way or both; then what was held back arrives, or streams end."""
    pair = [a, b]
    chance.shuffle(pair)
    arena.world.partition(pair[0], pair[1], one_way=chance.random() < 0.5)
    await last(arena, chance)
    if chance.random() < 0.5:
        arena.world.reset_links(a, b)
    arena.world.heal_between(a, b)


async def pause(arena: Arena, chance: random.Random, name: str) -> None:
    """A stop of its world, mostly for longer than leases last."""
    arena.world.pause(name)
    await last(arena, chance)
    arena.world.resume(name)


async def silence(arena: Arena, chance: random.Random, name: str) -> None:
    """It accepts connections and takes what it is sent, and nobody hears of it."""
    arena.world.silence(name)
    await last(arena, chance)
    arena.world.heal_between(name, "*")


async def switch_off(arena: Arena, name: str) -> None:
    """A machine is gone without a word: what is connected to it hangs until it is back."""
    arena.world.partition(name, "*")
    arena.world.crash(name)
    await until_alive(arena, name)
    arena.world.heal_between(name, "*")


async def until_dead(arena: Arena, name: str) -> bool:
    """Wait for what was armed to strike, for a while at most; whether it did."""
    for _ in range(50):
        if not arena.world.is_alive(name):
            return True
        await arena.pass_time(0.1)
    return False


def must(struck: object) -> None:
    """Leave the strike out, uncounted, if it had no effect."""
    if not struck:
        raise Skipped


async def until_alive(arena: Arena, name: str) -> None:
    """Unless it has been removed for good."""
    while not arena.world.is_alive(name) and name in arena.nodes():
        await arena.pass_time(0.2)
