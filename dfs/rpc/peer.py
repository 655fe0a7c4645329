"""Who speaks: the identity that a node tells its peers, and what it needs to speak at all."""

from __future__ import annotations

from dataclasses import dataclass, field

from dfs.config import Rpc
from dfs.rpc.buffers import BufferPool
from dfs.rpc.meter import Meter
from dfs.runtime.env import Env


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node says of itself in the handshake.

    `role` is master, chunkserver, client or cli; `id` is unique within the role where the
    configuration gives one, else 0; `address` is where the node listens, "" when it does not.
    """

    role: str
    id: int
    address: str

    def __str__(self) -> str:
        return f"{self.role}-{self.id}" if self.id else self.role


@dataclass(frozen=True)
class Endpoint:
    """One node as a speaker: its world, the cluster's key, its identity and its limits."""

    env: Env
    key: bytes = field(repr=False)
    identity: Identity
    limits: Rpc
    buffers: BufferPool = field(init=False, repr=False, compare=False)
    meter: Meter = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "buffers", BufferPool(self.limits.buffer_pool_bytes))
        object.__setattr__(self, "meter", Meter())
