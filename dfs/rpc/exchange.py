"""What callers and handlers hand over: requests, replies and what was received."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dfs.runtime.network import Buffer

if TYPE_CHECKING:
    from dfs.rpc.connection import Connection


@dataclass(slots=True)
class Request:
    """What a handler gets. `payload` is valid until the handler has ended."""

    message: Any
    payload: memoryview
    connection: Connection


@dataclass(slots=True)
class Reply:
    """What a handler answers where a bare message is not enough.

    The payload's buffers must not change until they are sent; `on_sent` is called then (or when
    the connection is gone), so that a handler may reuse them.
    """

    message: Any
    payload: Sequence[Buffer] = ()
    on_sent: Callable[[], None] | None = None


@dataclass(slots=True)
class Received:
    """The answer of a call. The payload is the caller's own (or a slice of its `into`)."""

    message: Any
    payload: memoryview


# A handler returns a message, a Reply, or an awaitable of either; None for a notice.
Handler = Callable[[Request], Any]
Handlers = Mapping[type, Handler]
