"""RPC: typed messages and raw payloads between nodes that have proven the cluster's key.

`serve` accepts connections, `connect` dials one, `Pool` shares them by address. On a connection
both sides may call each other; see `Connection`. Handlers are given by message class.

Modules, from the ground up: `codec` (messages to bytes), `frame` (what a message looks like on the
wire), `auth` and `handshake` (the proof of the key), `inbox` and `outbox` (bytes in and out),
`calls` and `service` (the asking and the answering half), `connection`, `server`, `pool`, `retry`.
"""

from dfs.rpc.connection import Connection
from dfs.rpc.exchange import Handler, Handlers, Received, Reply, Request
from dfs.rpc.peer import Endpoint, Identity
from dfs.rpc.pool import Pool
from dfs.rpc.retry import Backoff
from dfs.rpc.server import connect, serve

__all__ = [
    "Backoff",
    "Connection",
    "Endpoint",
    "Handler",
    "Handlers",
    "Identity",
    "Pool",
    "Received",
    "Reply",
    "Request",
    "connect",
    "serve",
]
