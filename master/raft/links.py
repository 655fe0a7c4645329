"""Connections to the other masters: one each, kept up.

The higher id dials the lower; the lower dials too, after waiting three times as long, for the
higher may not know it (a master that was away while members changed). Two connections at once are
no harm: the later hello wins, the other is closed. A link counts only after a hello that the node
has accepted. One that brings nothing for `link_timeout_s` is closed, so that a silent peer does
not hold messages for ever. What is sent and what it means is `master.raft.node`'s business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from dfs.config import Raft
from dfs.errors import Code, Failure
from dfs.messages.cluster import RaftMessage
from dfs.rpc import Connection, Endpoint, Handlers, connect
from dfs.runtime import Env
from master.raft import formats
from master.raft.formats import Message

log = logging.getLogger(__name__)

_ALIVE_PER_TIMEOUT = 3  # so many times within the timeout a link is shown to be alive


@dataclass(eq=False)
class Link:
    """A connection whose hello was accepted."""

    peer: int
    connection: Connection
    nonce: bytes
    heard_at: float  # monotonic


@dataclass
class Links:
    """All links of one master. `on_down(peer)` is called when one has ended."""

    env: Env
    endpoint: Endpoint
    limits: Raft
    handlers: Handlers
    hello: Callable[[], Message]
    on_down: Callable[[int], None]
    _links: dict[int, Link] = field(default_factory=dict)
    _wanted: dict[int, str] = field(default_factory=dict)
    _greeted: dict[Connection, trio.Event] = field(default_factory=dict)  # settled: hello or end
    _nursery: trio.Nursery | None = None

    @property
    def me(self) -> int:
        return self.endpoint.identity.id

    def start(self, nursery: trio.Nursery) -> None:
        """From now on, tasks may be started."""
        self._nursery = nursery
        for peer in self._wanted:
            nursery.start_soon(self._keep, peer)

    def want(self, addresses: Mapping[int, str]) -> None:
        """Keep links to these masters, and dial no others."""
        wanted = {peer: a for peer, a in sorted(addresses.items()) if peer != self.me}
        fresh = [peer for peer in wanted if peer not in self._wanted]
        self._wanted = wanted
        for peer in fresh:
            if self._nursery is not None:
                self._nursery.start_soon(self._keep, peer)

    # -- messages

    def send(self, peer: int, message: Message) -> bool:
        """Send if there is a link and room in it; whether it was taken."""
        link = self._links.get(peer)
        return link is not None and self.send_over(link.connection, message)

    def send_over(self, connection: Connection, message: Message) -> bool:
        payload = formats.encode_message(message)
        return connection.notify(RaftMessage(self.me), [payload])

    def broadcast(self, message: Message) -> None:
        for peer in sorted(self._links):
            self.send(peer, message)

    def heard(self, connection: Connection) -> bool:
        """Something came over this connection; whether it is a link."""
        link = self._links.get(connection.peer.id)
        if link is None or link.connection is not connection:
            return False
        link.heard_at = self.env.clock.monotonic()
        return True

    # -- links

    def up(self) -> list[int]:
        return sorted(self._links)

    def get(self, peer: int) -> Link | None:
        return self._links.get(peer)

    def greet(self, connection: Connection) -> None:
        """Say hello, once per connection."""
        if connection not in self._greeted:
            self._greeted[connection] = trio.Event()
            self.send_over(connection, self.hello())

    def accept(self, connection: Connection, nonce: bytes) -> None:
        """The peer's hello was good: this connection is the link to it from now on."""
        assert self._nursery is not None
        self.greet(connection)
        self._greeted[connection].set()
        peer = connection.peer.id
        known = self._links.get(peer)
        if known is not None and known.connection is connection:
            return
        link = self._links[peer] = Link(peer, connection, nonce, self.env.clock.monotonic())
        if known is not None:
            known.connection.close()
        self._nursery.start_soon(self._watch, link)

    async def _watch(self, link: Link) -> None:
        """Until the link's end: see that it lives, and show that we do."""
        clock, pause_s = self.env.clock, self.limits.link_timeout_s / _ALIVE_PER_TIMEOUT
        while not await clock.wait(link.connection.closed, pause_s):
            self.send_over(link.connection, {"type": "alive"})
            if clock.monotonic() - link.heard_at > self.limits.link_timeout_s:
                log.warning("%s: master %d has gone silent", self.env.name, link.peer)
                link.connection.close()
        self._settle(link.connection)
        if self._links.get(link.peer) is link:
            del self._links[link.peer]
            self.on_down(link.peer)

    def _settle(self, connection: Connection) -> None:
        event = self._greeted.pop(connection, None)
        if event is not None:
            event.set()

    async def _keep(self, peer: int) -> None:
        """Dial that master whenever there is no link to it."""
        pause_s = self.limits.redial_s * (1 if peer < self.me else 3)
        while peer in self._wanted:
            link = self._links.get(peer)
            if link is not None:
                await link.connection.closed.wait()
            elif peer < self.me:
                await self._dial(peer)
            await self.env.clock.sleep(pause_s * self.env.random.uniform(0.75, 1.25))
            if peer > self.me and peer in self._wanted and peer not in self._links:
                await self._dial(peer)

    async def _after_failed_dial(self, peer: int, address: str, failure: Failure) -> None:
        """A peer with another key logs a line for each attempt: an operator has to act first."""
        if failure.code is not Code.UNAUTHENTICATED:
            log.debug("%s: master %d at %s: %s", self.env.name, peer, address, failure.message)
            return
        log.error("%s: master %d at %s: %s", self.env.name, peer, address, failure.message)
        await self.env.clock.sleep(self.limits.redial_refused_s)

    async def _dial(self, peer: int) -> None:
        assert self._nursery is not None
        address = self._wanted[peer]
        try:
            connection = await connect(self.endpoint, address, self._nursery, self.handlers)
        except Failure as failure:
            await self._after_failed_dial(peer, address, failure)
            return
        if connection.peer.role != "master" or connection.peer.id != peer:
            log.error("%s: %s is %s, not master %d", self.env.name, address, connection.peer, peer)
            connection.close()
            return
        self.greet(connection)
        settled = self._greeted[connection]
        if not await self.env.clock.wait(settled, self.endpoint.limits.handshake_timeout_s):
            connection.close()
        link = self._links.get(peer)
        if link is None or link.connection is not connection:
            self._greeted.pop(connection, None)
            connection.close()
