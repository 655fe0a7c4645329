"""Where RPC is tested: a server and a client, in the real world or in the simulated one."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from dfs.config import Rpc
from dfs.rpc import Connection, Endpoint, Handlers, Identity, connect, frame, serve
from dfs.rpc.codec import message
from dfs.rpc.handshake import admit, greet
from dfs.rpc.inbox import Inbox
from dfs.runtime import Env, Stream
from dfs.runtime.network import Buffer, send_all
from dfs.runtime.real import RealEnv
from dfs.runtime.sim import World

KEY = b"the cluster's key in these tests"
OTHER_KEY = b"the key of some other cluster..."
LIMITS = Rpc()
SOON_S = 20.0  # for what must not fail in time, on a machine that is busy

Main = Callable[["Stage"], Awaitable[None]]


@message(218)
class Ask:
    number: int


@message(219)
class Told:
    number: int


@dataclass
class Stage:
    """Two nodes and the way to run a test on them."""

    server: Env
    client: Env
    run_main: Callable[[Callable[[], Awaitable[None]]], object]

    def run(self, main: Main) -> None:
        self.run_main(partial(main, self))

    def server_endpoint(self, limits: Rpc = LIMITS, key: bytes = KEY) -> Endpoint:
        return Endpoint(self.server, key, Identity("master", 1, "master:1"), limits)

    def client_endpoint(self, limits: Rpc = LIMITS, key: bytes = KEY) -> Endpoint:
        return Endpoint(self.client, key, Identity("client", 7, ""), limits)


def real_stage() -> Stage:
    return Stage(RealEnv("master-1"), RealEnv("client-7"), trio.run)


def simulated_stage(seed: int = 1) -> Stage:
    world = World(seed)
    return Stage(world.env("master-1"), world.env("client-7"), world.run)


@dataclass
class Meeting:
    """A server and what has connected to it."""

    stage: Stage
    address: str
    nursery: trio.Nursery
    accepted: list[Connection] = field(default_factory=list)
    left: trio.Event = field(default_factory=trio.Event)  # the first one has been disconnected

    async def connect(
        self, handlers: Handlers | None = None, limits: Rpc = LIMITS, key: bytes = KEY
    ) -> Connection:
        endpoint = self.stage.client_endpoint(limits, key)
        return await connect(endpoint, self.address, self.nursery, handlers or {})

    async def dial(self) -> Stream:
        """A bare stream to the server."""
        return await self.stage.client.network.connect(self.address)

    async def intruder(self) -> tuple[Stream, Inbox]:
        """A stream whose far end is a connection: one that knows the key and may send anything."""
        stream = await self.dial()
        inbox = Inbox(stream, LIMITS.receive_buffer_bytes)
        await greet(self.stage.client_endpoint(), stream, inbox)
        return stream, inbox


@asynccontextmanager
async def puppet(
    stage: Stage, limits: Rpc = LIMITS
) -> AsyncIterator[tuple[Connection, Stream, Inbox]]:
    """A client's connection whose server is the test itself, frame by frame."""
    listener = await stage.server.network.listen("127.0.0.1:0")
    held: list[Connection] = []

    async def dial(nursery: trio.Nursery) -> None:
        held.append(await connect(stage.client_endpoint(limits), listener.address, nursery))

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as dialling:
            dialling.start_soon(dial, nursery)
            stream = await listener.accept()
            inbox = Inbox(stream, LIMITS.receive_buffer_bytes)
            await admit(stage.server_endpoint(), stream, inbox)
        yield held[0], stream, inbox
        stream.close()
        nursery.cancel_scope.cancel()
    listener.close()


@asynccontextmanager
async def meeting(stage: Stage, handlers: Handlers, limits: Rpc = LIMITS) -> AsyncIterator[Meeting]:
    """A server on the stage, until the block ends."""
    async with trio.open_nursery() as nursery:
        met = Meeting(stage, "", nursery)
        server = partial(
            serve,
            stage.server_endpoint(limits),
            "127.0.0.1:0",
            handlers,
            on_connect=met.accepted.append,
            on_disconnect=lambda _: met.left.set(),
        )
        met.address = await nursery.start(server)
        yield met
        nursery.cancel_scope.cancel()


def limits(**changes: float) -> Rpc:
    return replace(LIMITS, **changes)  # type: ignore[arg-type]


def raw_frame(kind: int, request_id: int = 0, header: bytes = b"", payload: bytes = b"") -> bytes:
    prefix = frame.pack(frame.Kind(kind), request_id, len(header), len(payload))
    return prefix + header + payload


async def send(stream: Stream, *buffers: Buffer) -> None:
    await send_all(stream, buffers)


async def read_frame(inbox: Inbox) -> tuple[frame.Prefix, bytes, bytes]:
    """The next frame: prefix, header, payload; small ones only."""
    await inbox.need(frame.PREFIX_BYTES)
    prefix = frame.parse(inbox.data, inbox.start, frame.FrameLimits(1 << 20, 1 << 20))
    await inbox.need(frame.PREFIX_BYTES + prefix.header_bytes + prefix.payload_bytes)
    inbox.take(frame.PREFIX_BYTES)
    return prefix, bytes(inbox.take(prefix.header_bytes)), bytes(inbox.take(prefix.payload_bytes))


async def read_to_end(stream: Stream) -> bytes:
    """All that comes before the peer closes, orderly or not."""
    data, buffer = bytearray(), memoryview(bytearray(65536))
    while True:
        try:
            got = stream.recv_nowait(buffer)
            if got is None:
                await stream.wait_readable()
                continue
        except OSError:
            return bytes(data)
        if got == 0:
            return bytes(data)
        data += buffer[:got]


class Lines(logging.Handler):
    """The warnings and errors of dfs.rpc while `watching`."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def watching() -> Iterator[list[str]]:
    """The log lines (WARNING and above) that dfs.rpc writes meanwhile."""
    handler = Lines()
    logger = logging.getLogger("dfs.rpc")
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
