"""What a node's connections count: calls and handled requests by kind of message.

Plain numbers, added to by `connection` and `service` in the event loop and read by
`dfs.metrics.rpc`. Kinds are classes of the message registry, so a peer cannot make more of them.
"""

from __future__ import annotations

from dfs.errors import Code
from dfs.metrics.instruments import Timings


class Kind(Timings):
    """One kind of message on one side: how long until the answer, and payloads both ways."""

    __slots__ = ("received_bytes", "sent_bytes")

    def __init__(self) -> None:
        super().__init__()
        self.received_bytes = 0
        self.sent_bytes = 0


class Kinds(dict[type, Kind]):
    """By class of the request; a kind begins with its first message."""

    def __missing__(self, message: type) -> Kind:
        made = self[message] = Kind()
        return made


class Meter:
    """Of one endpoint. `calls` are those made, `requests` those handled here."""

    def __init__(self) -> None:
        self.calls = Kinds()
        self.requests = Kinds()
        self.failed_calls = dict.fromkeys(Code, 0)
        self.refusals = dict.fromkeys(Code, 0)
        self.strangers = 0  # connections of peers that could not prove the key
