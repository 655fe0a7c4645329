"""One `Core` on a bench: messages are put in by hand, what comes out is looked at.

No event loop runs. Time stands still but for `pass_time`. A remedy is switched off by giving the
rig a subclass of `Core` or `PeerTransport` in which the method that closes the hole does what
pysyncobj would have done.
"""

from __future__ import annotations

from typing import Any

from dfs.config import Raft
from dfs.runtime import WriteBatch
from dfs.runtime.current import current_env
from dfs.runtime.sim import World
from master.raft import formats
from master.raft.core import Core
from master.raft.formats import Entry, Member, Message
from master.raft.membership import found
from master.raft.transport import PeerTransport
from master.store import RAFT_TABLES, Store
from master.tables import STATE_TABLES

NO_OP = bytes([formats.NO_OP])


def command(text: str) -> bytes:
    return bytes([formats.COMMANDS]) + text.encode()


def entries(first: int, term: int, *texts: str) -> list[Entry]:
    return [(command(text), first + i, term) for i, text in enumerate(texts)]


class Rig:
    """Master `id` of `ids`, and everything around it (it is the core's Host)."""

    def __init__(
        self,
        id: int = 1,
        ids: tuple[int, ...] = (1, 2, 3),
        *,
        core_class: type[Core] = Core,
        transport_class: type[PeerTransport] = PeerTransport,
        limits: Raft | None = None,
    ) -> None:
        self.id, self.ids, self.limits = id, ids, limits or Raft()
        self.world = World(seed=1)
        self.env = self.world.env(f"master-{id}")
        self.sent: list[tuple[int, Message]] = []
        self.applied: list[bytes] = []
        self.fetches: list[int] = []
        self.offering = True
        self.led: list[bool] = []
        self._class = type("Core", (core_class,), {"transport_class": transport_class})
        self._disk = self.env.disk.open_key_value("/s", (*STATE_TABLES, *RAFT_TABLES), 1 << 40)
        self._found()
        self.restart()

    def _found(self) -> None:
        self.store = Store(self._disk, self.limits)
        members = [Member(i, f"m{i}:1", b"n%d" % i) for i in self.ids]
        found(self.store, formats.pack_founding(members))
        self.flush()

    def restart(self) -> None:
        """The process starts anew on its disk; what was not flushed is gone."""
        current_env.set(self.env)
        self.store = Store(self._disk, self.limits)
        self.core: Core = self._class(self.env, self.id, self.limits, self.store, self)
        self.flush()
        self.core.flushed(self.core.journal.last_index)
        for peer in self.ids:
            if peer != self.id:
                self.core.transport.link_up(peer)

    def flush(self) -> None:
        batch: WriteBatch = self.store._seal()
        self._disk.write(batch)
        self.store._sealed = {}

    # -- the core's Host

    def send(self, peer: int, message: Message) -> bool:
        self.sent.append((peer, dict(message)))
        return True

    def apply(self, command: bytes, index: int, term: int) -> None:
        self.applied.append(command[1:])

    def offers_snapshot(self, peer: int) -> bool:
        return self.offering

    def fetch_snapshot(self, peer: int) -> None:
        self.fetches.append(peer)
        self.core.installing = True

    def leadership_changed(self, leads: bool) -> None:
        self.led.append(leads)

    # -- by hand

    def pass_time(self, seconds: float) -> None:
        self.world.timeline.now_s += seconds

    def step(self) -> None:
        """Tick, flush, release: what the node does once around."""
        current_env.set(self.env)
        self.core.tick()
        self.flush()
        self.core.flushed(self.core.journal.last_index)
        self.core.transport.release()

    def take(self, peer: int, message: Message) -> None:
        current_env.set(self.env)
        self.core.receive(peer, message)

    def deliver(self, peer: int, kind: str, **fields: Any) -> None:
        self.take(peer, {"type": kind, **{"stamp": 1.0, **fields}})

    def append(
        self, peer: int, term: int, previous: tuple[int, int], new: list[Entry], commit: int = 1
    ) -> None:
        """append_entries from that master; `previous` is (index, term)."""
        place = {"prevLogIdx": previous[0], "prevLogTerm": previous[1]}
        self.deliver(
            peer, "append_entries", term=term, commit_index=commit, entries=list(new), **place
        )

    def acknowledge(
        self,
        peer: int,
        next_index: int,
        *,
        term: int | None = None,
        reset: bool = False,
        stamp: float = 1.0,
    ) -> None:
        term = self.core.raftCurrentTerm if term is None else term
        reply = {"next_node_idx": next_index, "reset": reset, "success": not reset}
        self.deliver(peer, "next_node_idx", term=term, stamp=stamp, **reply)

    def elect(self) -> None:
        """Make it leader of the next term, with everybody's log like its own."""
        others = [peer for peer in self.ids if peer != self.id]
        self.elect_with(*others)

    def elect_with(self, *voters: int) -> None:
        """Make it leader of the next term; only these are heard of."""
        self.pass_time(2.0)
        self.step()
        for peer in voters:
            self.deliver(peer, "prevote_ok", term=self.core.raftCurrentTerm + 1)
        self.step()
        for peer in voters:
            self.deliver(peer, "response_vote", term=self.core.raftCurrentTerm)
        self.step()
        assert self.core.is_leader()
        for peer in voters:
            self.acknowledge(peer, self.core.journal.last_index + 1)
        self.step()
        assert self.core.serving()
        self.sent.clear()

    def propose(self, text: str) -> int:
        current_env.set(self.env)
        index = self.core.append(command(text))
        self.core.replicate()
        self.flush()
        self.core.flushed(index)
        return index

    def messages(self, kind: str, peer: int = 0) -> list[Message]:
        """What was sent of that kind (to that master)."""
        return [m for to, m in self.sent if m["type"] == kind and peer in (0, to)]

    def log(self) -> list[tuple[int, int]]:
        """(index, term) of each entry."""
        return [(index, term) for _, index, term in self.core.journal[:]]
