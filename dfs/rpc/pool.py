"""One connection per address, shared by everybody in the node who talks to it."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from dfs.errors import Code, Failure
from dfs.rpc.calls import copy_of
from dfs.rpc.connection import Connection
from dfs.rpc.exchange import Handlers, Received
from dfs.rpc.meter import Meter
from dfs.rpc.peer import Endpoint
from dfs.rpc.server import NO_HANDLERS, connect
from dfs.runtime.network import Buffer


class _Dial:
    """An attempt to connect, which several tasks may wait for."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.result: Connection | Failure | None = None


class Pool:
    """Connections by address, dialled when first wanted and again after they were lost.

    At most `max_connections` of the endpoint's limits. `handlers` answer what the peers ask.
    """

    def __init__(
        self, endpoint: Endpoint, nursery: trio.Nursery, handlers: Handlers = NO_HANDLERS
    ) -> None:
        self._endpoint = endpoint
        self._nursery = nursery
        self._handlers = handlers
        self._connections: dict[str, Connection] = {}
        self._dials: dict[str, _Dial] = {}

    @property
    def meter(self) -> Meter:
        """What all connections of this node's endpoint count."""
        return self._endpoint.meter

    async def get(self, address: str) -> Connection:
        """The open connection to an address. Raises like `connect`, and OVERLOADED."""
        connection = self._connections.get(address)
        if connection is not None and not connection.closed.is_set():
            return connection
        dial = self._dials.get(address) or self._start(address)
        await dial.ended.wait()
        if isinstance(dial.result, Connection):
            return dial.result
        assert dial.result is not None
        raise copy_of(dial.result)

    async def call(
        self,
        address: str,
        message: object,
        payload: Sequence[Buffer] = (),
        *,
        timeout_s: float,
        into: memoryview | None = None,
    ) -> Received:
        """`get` and `Connection.call`, both within the timeout."""
        connection = self._connections.get(address)
        if connection is None or connection.closed.is_set():
            begun = self._endpoint.env.clock.monotonic()
            connection = await self._get_within(address, timeout_s)
            timeout_s -= self._endpoint.env.clock.monotonic() - begun
        return await connection.call(message, payload, timeout_s=timeout_s, into=into)

    def close(self) -> None:
        """Close all connections; the pool may be used again."""
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.close()

    async def _get_within(self, address: str, timeout_s: float) -> Connection:
        with self._endpoint.env.clock.move_on_after(timeout_s):
            return await self.get(address)
        raise Failure(Code.TIMEOUT, f"no connection with {address} in time")

    def _start(self, address: str) -> _Dial:
        self._connections = {a: c for a, c in self._connections.items() if not c.closed.is_set()}
        count = len(self._connections) + len(self._dials)
        if count >= self._endpoint.limits.max_connections:
            raise Failure(Code.OVERLOADED, f"{count} connections are open: none to {address}")
        dial = self._dials[address] = _Dial()
        self._nursery.start_soon(self._dial, address, dial)
        return dial

    async def _dial(self, address: str, dial: _Dial) -> None:
        """In the pool's nursery, so that nobody who waits takes it along when cancelled."""
        dial.result = Failure(Code.CONNECTION_LOST, f"dialling {address} was given up")
        try:
            connection = await connect(self._endpoint, address, self._nursery, self._handlers)
            dial.result = self._connections[address] = connection
        except Failure as failure:
            dial.result = failure
        finally:
            del self._dials[address]
            dial.ended.set()
