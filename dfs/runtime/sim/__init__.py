"""The simulated world: a whole cluster in one process, on a virtual clock, from one seed.

    world = World(seed=7)

    async def main() -> None:
        await world.start("master-1", run_master)      # run_master(env, *, task_status)
        world.spawn("client", run_client)              # run_client(env)
        await world.clock.sleep(5)
        world.partition("master-1", "master-2")
        world.crash("master-1")                        # power loss; power_loss=False is SIGKILL
        world.restart("master-1")

    world.run(main)

The same seed gives the same run, message for message (`World.trace_hash`). `timeline` holds virtual
time, `network` streams with latency and partitions, `disk` and `key_value` the storage that
survives crashes, `env` one incarnation of a node, `world` all of it together with the faults.

Limits: blocking work runs inline after a virtual delay, so that races between threads are not
found here; a reconnecting stream is never half-open for longer than its link is partitioned;
computing takes no virtual time.
"""

from dfs.runtime.sim.disk import Media
from dfs.runtime.sim.env import NodeEnded, SimEnv
from dfs.runtime.sim.world import Deadlock, World

__all__ = ["Deadlock", "Media", "NodeEnded", "SimEnv", "World"]
