"""Making connections: `serve` accepts them, `connect` dials one.

A peer that does not prove the cluster's key in time, or speaks another version, is one log line
and a closed stream (accepting side) or a Failure (dialling side); nothing else comes of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import MappingProxyType
from typing import NoReturn

import trio

from dfs.errors import Code, Failure
from dfs.rpc.connection import Connection
from dfs.rpc.exchange import Handlers
from dfs.rpc.handshake import Introduction, admit, greet
from dfs.rpc.inbox import Inbox
from dfs.rpc.peer import Endpoint
from dfs.runtime.network import Listener, Stream

log = logging.getLogger(__name__)

NO_HANDLERS: Handlers = MappingProxyType({})
OnConnection = Callable[[Connection], None]


def _ignore(_: Connection) -> None:
    """The hook of somebody who does not care."""


async def connect(
    endpoint: Endpoint, address: str, nursery: trio.Nursery, handlers: Handlers = NO_HANDLERS
) -> Connection:
    """Dial and shake hands; the connection's tasks live in the nursery.

    Raises Failure: CONNECTION_LOST when nobody answers there, UNAUTHENTICATED when one side
    cannot prove the key or the versions differ, TIMEOUT (connect_timeout_s, handshake_timeout_s).
    """
    stream = await _dial(endpoint, address)
    try:
        connection = await _greet(endpoint, address, stream, handlers)
        nursery.start_soon(connection.run)
    except BaseException:
        stream.close()
        raise
    return connection


async def _dial(endpoint: Endpoint, address: str) -> Stream:
    with endpoint.env.clock.move_on_after(endpoint.limits.connect_timeout_s):
        try:
            return await endpoint.env.network.connect(address)
        except OSError as error:
            text = f"cannot connect to {address}: {error.strerror or error}"
            raise Failure(Code.CONNECTION_LOST, text, errno=error.errno or 0) from None
    raise Failure(Code.TIMEOUT, f"{address} did not accept a connection in time")


async def _greet(
    endpoint: Endpoint, address: str, stream: Stream, handlers: Handlers
) -> Connection:
    inbox = Inbox(stream, endpoint.limits.receive_buffer_bytes)
    with endpoint.env.clock.move_on_after(endpoint.limits.handshake_timeout_s):
        try:
            introduction = await greet(endpoint, stream, inbox)
        except Failure as failure:
            text = f"{address}: {failure.message}"
            raise Failure(Code.UNAUTHENTICATED, text) from None
        except (OSError, EOFError) as error:
            text = f"{address} ended the connection during the handshake: {error}"
            raise Failure(Code.CONNECTION_LOST, text) from None
        return Connection(endpoint, stream, inbox, introduction, handlers)
    raise Failure(Code.TIMEOUT, f"{address} did not complete the handshake in time")


async def serve(
    endpoint: Endpoint,
    listen_address: str,
    handlers: Handlers,
    *,
    on_connect: OnConnection = _ignore,
    on_disconnect: OnConnection = _ignore,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Accept connections until cancelled; starts with the address really bound.

    `on_connect` is called before the first frame of a connection is read, `on_disconnect` when
    all its handlers have ended. Raises OSError when the address cannot be listened on.
    """
    listener = await endpoint.env.network.listen(listen_address)
    try:
        await _Server(endpoint, handlers, on_connect, on_disconnect).run(listener, task_status)
    finally:
        listener.close()


class _Server:
    """The connections of one listener.

    Strangers have a bound of their own, within which a newcomer displaces the oldest: handshakes
    take a moment for those who have the key, and silence must not lock them out.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        handlers: Handlers,
        on_connect: OnConnection,
        on_disconnect: OnConnection,
    ) -> None:
        self._endpoint = endpoint
        self._name = endpoint.env.name
        self._handlers = handlers
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._open = 0
        self._unproven: dict[Stream, trio.CancelScope] = {}  # oldest first

    async def run(self, listener: Listener, task_status: trio.TaskStatus[str]) -> NoReturn:
        async with trio.open_nursery() as nursery:
            task_status.started(listener.address)
            while True:
                stream = await listener.accept()
                self._make_room()
                scope = self._unproven[stream] = trio.CancelScope()
                nursery.start_soon(self._serve, stream, scope)

    def _make_room(self) -> None:
        """Give the oldest stranger's place to the next one."""
        if len(self._unproven) >= self._endpoint.limits.max_handshakes:
            oldest = next(iter(self._unproven))
            self._unproven.pop(oldest).cancel()

    async def _serve(self, stream: Stream, scope: trio.CancelScope) -> None:
        try:
            connection = await self._admit(stream, scope)
            if connection is not None:
                await self._attend(connection)
        except Exception:  # whatever one peer brings about, the others go on
            log.exception("%s: the connection with %s failed", self._name, stream.peer)
        finally:
            stream.close()

    async def _attend(self, connection: Connection) -> None:
        self._open += 1
        try:
            self._on_connect(connection)
            await connection.run()
        finally:
            self._open -= 1
            self._on_disconnect(connection)

    async def _admit(self, stream: Stream, scope: trio.CancelScope) -> Connection | None:
        """The connection of a peer that has proven the key; of others a log line."""
        inbox = Inbox(stream, self._endpoint.limits.receive_buffer_bytes)
        why = "it was crowded out by others that had not proven the cluster key either"
        try:
            with scope:
                introduction = await self._prove(stream, inbox)
                return Connection(self._endpoint, stream, inbox, introduction, self._handlers)
        except Failure as failure:
            why = failure.message
        except (OSError, EOFError) as error:
            why = f"it ended the connection during the handshake: {error}"
            if not inbox.receives:  # somebody only looked whether this port is open
                log.debug("%s: refused %s: %s", self._name, stream.peer, why)
                return None
        finally:
            self._unproven.pop(stream, None)
        self._endpoint.meter.strangers += 1
        log.warning("%s: refused %s: %s", self._name, stream.peer, why)
        return None

    async def _prove(self, stream: Stream, inbox: Inbox) -> Introduction:
        """Shake hands in time and within the bound. Raises Failure, OSError, EOFError."""
        limits = self._endpoint.limits
        # Asked once, so that at most `max_handshakes` too many may come of it.
        if self._open >= limits.max_connections:
            raise Failure(Code.OVERLOADED, f"{self._open} connections are open already")
        with self._endpoint.env.clock.move_on_after(limits.handshake_timeout_s):
            return await admit(self._endpoint, stream, inbox)
        raise Failure(Code.TIMEOUT, "it did not complete the handshake in time")
