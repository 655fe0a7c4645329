"""The HTTP endpoint itself, on the network seam: bounded connections, request size and time.

Whoever reaches it may ask; nobody can do harm. At most `max_connections` are served at a time, and
a newcomer displaces the oldest, so silence locks nobody out. What is no request, too long or too
late ends that connection with one log line.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

import trio

from dfs.config import Metrics
from dfs.errors import Code, Failure
from dfs.metrics import http
from dfs.metrics.http import Answer, Asked, BadRequest
from dfs.runtime import Env, Stream
from dfs.runtime.network import Listener, send_all

log = logging.getLogger(__name__)

_RECEIVE_BYTES = 4096

Routes = Mapping[str, Callable[[], Awaitable[Answer]]]


class HttpServer:
    """Answers GET for the paths of `routes`."""

    def __init__(self, env: Env, limits: Metrics, routes: Routes) -> None:
        self._env, self._limits, self._routes = env, limits, routes
        self._open: dict[Stream, trio.CancelScope] = {}  # oldest first

    async def run(
        self, listen: str, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Serve until cancelled; started with the address. Raises Failure(CONFIG)."""
        try:
            listener = await self._env.network.listen(listen)
        except OSError as error:
            text = f"metrics_listen: {error.strerror or error}"
            raise Failure(Code.CONFIG, text, errno=error.errno or 0) from None
        try:
            await self._accept(listener, task_status)
        finally:
            listener.close()

    async def _accept(self, listener: Listener, task_status: trio.TaskStatus[str]) -> NoReturn:
        async with trio.open_nursery() as nursery:
            task_status.started(listener.address)
            while True:
                stream = await listener.accept()
                if len(self._open) >= self._limits.max_connections:
                    self._open.pop(next(iter(self._open))).cancel()
                scope = self._open[stream] = trio.CancelScope()
                nursery.start_soon(self._serve, stream, scope)

    async def _serve(self, stream: Stream, scope: trio.CancelScope) -> None:
        why = "it was crowded out by others"
        try:
            with scope:
                why = await self._serve_in_time(stream)
        except (OSError, EOFError) as error:
            why = f"it ended the connection: {error}"
        finally:
            self._open.pop(stream, None)
            stream.close()
        if why:
            log.warning("%s: metrics endpoint: %s: %s", self._env.name, stream.peer, why)

    async def _serve_in_time(self, stream: Stream) -> str:
        """One request and its answer; what was wrong with the peer, "" for nothing."""
        seconds = self._limits.request_timeout_s
        with self._env.clock.move_on_after(seconds):
            return await self._exchange(stream)
        return f"it took longer than {seconds:g} s to ask or to take the answer"

    async def _exchange(self, stream: Stream) -> str:
        try:
            head = await self._receive(stream)
            if not head:
                return ""  # somebody only looked whether this port is open
            asked = http.parse(head)
            answer, why = await self._answer(asked), ""
        except BadRequest as error:
            asked, answer, why = Asked("", False), http.refusal(error), error.why
        await send_all(stream, http.render(answer, head=asked.head))
        return why

    async def _answer(self, asked: Asked) -> Answer:
        route = self._routes.get(asked.path)
        if route is None:
            known = ", ".join(self._routes)
            raise BadRequest(404, f"there is no {asked.path[:40]!r} here, but {known}")
        try:
            return await route()
        except Exception:  # a bug in what tells the metrics must not end the node
            log.exception("%s: metrics endpoint: answering %s", self._env.name, asked.path)
            return Answer(500, b"this program failed to answer; see its log\n")

    async def _receive(self, stream: Stream) -> bytes:
        """A request's head; b"" when nothing came. Raises BadRequest, OSError, EOFError."""
        received, buffer = b"", memoryview(bytearray(_RECEIVE_BYTES))
        while http.END_OF_HEAD not in received:
            if len(received) > self._limits.max_request_bytes:
                raise BadRequest(431, f"its request is over {self._limits.max_request_bytes} bytes")
            got = stream.recv_nowait(buffer)
            if got is None:
                await stream.wait_readable()
            elif got == 0 and received:
                raise EOFError(f"after {received[:40]!r}, in the middle of its request")
            elif got == 0:
                return b""
            else:
                received += buffer[:got]
        return received.partition(http.END_OF_HEAD)[0]
