"""Notes of deletion whose times lie in the future: their grace, and the room for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dfs.config import MasterLimits
from dfs.runtime.sim import World
from master.deletions import AHEAD_MAX, NS, Deletions, Walk

GRACE_S = 10.0
SERVER = 1


class Lonely(Deletions):
    """Without a cluster around it; every chunk has all its replicas."""

    def __init__(self, world: World) -> None:
        nothing: Any = SimpleNamespace(is_copying=lambda server, handle: False)
        env = self.env = world.env("master")
        super().__init__(env, nothing, nothing, nothing, nothing, MasterLimits())

    def _may_join_again(self, handle: int) -> bool:
        return False

    def due(self, *handles: int) -> tuple[int, ...]:
        """Of notes dated a day ahead."""
        ahead_ns = self.env.clock.wall_ns() + 86_400 * NS
        return self._due(SERVER, tuple((h, ahead_ns) for h in handles), Walk(), GRACE_S)


def test_a_note_from_the_future_has_its_grace_from_when_it_was_seen() -> None:
    world = World(1, drift=0.0)

    async def main() -> None:
        deletions = Lonely(world)
        assert deletions.due(7) == ()
        await world.clock.sleep(0.9 * GRACE_S)
        assert deletions.due(7, 8) == ()
        await world.clock.sleep(0.2 * GRACE_S)
        assert deletions.due(7, 8) == (7,)

    world.run(main)


def test_notes_that_were_taken_back_do_not_keep_others_out_for_ever() -> None:
    world = World(1, drift=0.0)

    async def main() -> None:
        deletions = Lonely(world)
        deletions.due(*range(AHEAD_MAX))  # none of them is seen again
        assert deletions.due(AHEAD_MAX + 1) == ()
        await world.clock.sleep(2.1 * GRACE_S)
        assert deletions.due(AHEAD_MAX + 1) == ()
        await world.clock.sleep(1.1 * GRACE_S)
        assert deletions.due(AHEAD_MAX + 1) == (AHEAD_MAX + 1,)

    world.run(main)


def test_who_was_set_forward_rests_as_long_as_nothing_becomes_due() -> None:
    world = World(1, drift=0.0)

    async def main() -> None:
        deletions = Lonely(world)
        walk, noted_ns = Walk(), deletions.env.clock.wall_ns()
        world.jump_wall("master", 2 * GRACE_S)
        assert deletions._due(SERVER, ((7, noted_ns),), walk, GRACE_S) == ()
        rest_s = deletions._rest_until(walk, GRACE_S) - deletions.env.clock.boottime()
        assert 0.9 * GRACE_S < rest_s <= GRACE_S

    world.run(main)
