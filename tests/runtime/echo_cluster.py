"""A small cluster for tests of the simulator itself: a storing echo server and its clients.

Run as a program it prints the trace hash of the run of the seed given: the determinism test
compares processes with different hash seeds.
"""

from __future__ import annotations

import sys

import trio

from dfs.runtime import Env, KeyValue, Stream, WriteBatch
from dfs.runtime.network import recv_exactly, send_all
from dfs.runtime.sim import World

ADDRESS = "127.0.0.1:7"
CLIENTS = 3


def stored(kv: KeyValue, key: bytes) -> None:
    batch = WriteBatch()
    batch.put("seen", key, b"")
    kv.write(batch)


async def serve(env: Env, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
    env.disk.make_directory("/data")
    kv = env.disk.open_key_value("/data/store", ["seen"], 1 << 30)
    listener = await env.network.listen(ADDRESS)
    task_status.started(listener.address)

    async def attend(stream: Stream) -> None:
        key = bytearray(8)
        try:
            while True:
                await recv_exactly(stream, memoryview(key))
                await env.run_blocking(lambda: stored(kv, bytes(key)))
                await send_all(stream, [key])
        except (OSError, EOFError):
            stream.close()

    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(attend, await listener.accept())


async def ask(env: Env, world: World, requests: int) -> list[bytes]:
    """Send keys and note the acknowledged ones, over whatever happens to server and network."""
    acknowledged: list[bytes] = []
    stream: Stream | None = None
    while len(acknowledged) < requests:
        key = env.random.token(8)
        answer = bytearray(8)
        try:
            with env.clock.move_on_after(1) as scope:
                stream = stream or await env.network.connect(ADDRESS)
                await send_all(stream, [key])
                await recv_exactly(stream, memoryview(answer))
            if scope.cancelled_caught:
                raise TimeoutError
        except (OSError, EOFError):
            if stream is not None:
                stream.close()
            stream = None
            await env.clock.sleep(env.random.uniform(0, 0.2))
        else:
            world.trace("acknowledged", env.name, key)
            acknowledged.append(bytes(answer))
    return acknowledged


async def play(world: World) -> list[bytes]:
    """Clients at work while the server crashes and the network breaks; what was acknowledged."""
    acknowledged: list[bytes] = []

    async def client(name: str) -> None:
        acknowledged.extend(await ask(world.env(name), world, 200))

    crashed = trio.Event()

    async def witness(number: int) -> None:
        await crashed.wait()  # trio keeps the waiting tasks in a set
        world.trace("woken", number)

    await world.start("server", serve)
    async with trio.open_nursery() as nursery:
        for i in range(10):
            nursery.start_soon(witness, i)
        for i in range(CLIENTS):
            nursery.start_soon(client, f"client-{i}")
        await world.clock.sleep(0.05)
        world.crash("server")
        crashed.set()
        await world.clock.sleep(0.1)
        world.restart("server")
        await world.clock.sleep(0.1)
        world.partition("server", "client-1")
        world.reset_links("server", "client-2")
        await world.clock.sleep(0.3)
        world.disk("server").crash_at_sync(5)
        world.heal()
        await world.clock.sleep(0.3)
        world.restart("server")
    return acknowledged


def trace_of(seed: int) -> str:
    world = World(seed)
    world.run(lambda: play(world))
    return world.trace_hash()


if __name__ == "__main__":
    print(trace_of(int(sys.argv[1])))
