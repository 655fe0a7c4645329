"""Streams in memory, with latency, bounded windows, partitions and resets.

`Fabric` is the world's network; `SimNetwork` one node's door to it. A stream is two `_Direction`s:
each delivers in order what was sent, after the latency of its link, and takes no more than a
window of bytes that the receiver has not read yet: a slow reader blocks its writer as TCP does.

A blocked link holds back what is sent over it, in order, and delivers it when healed, as TCP's
retransmission does; connecting over it waits. Something between two nodes may also swallow what
they say (a black hole): streams between them stand still, new ones are accepted, but not by the
node that was meant, and end when it is over. A crash or `reset` ends streams with ECONNRESET at the
other end, after what was in flight.
"""

from __future__ import annotations

import errno
import os
import random
from collections import deque
from collections.abc import Callable, Sequence

import trio
import xxhash

from dfs.runtime.network import Buffer, Stream
from dfs.runtime.sim.env import SimEnv
from dfs.runtime.sim.timeline import Park, Timeline

WINDOW_BYTES = 1 << 20
BACKLOG = 512
CONNECT_TIMEOUT_S = 127.0  # Linux's own, after six unanswered SYNs
ANY = "*"
_SYN_RETRY_S = 1.0
_LATENCY_MIN_S = 100e-6
_LATENCY_TAIL_S = 2e-3
_SHORT_READ_PROBABILITY = 1 / 16
_END = b""  # a segment that ends the direction in order


class _Direction:
    """One way of a stream: bytes on the wire, and bytes that have arrived and were not read."""

    def __init__(self, fabric: Fabric, source: str, target: str, latency_s: float) -> None:
        self.fabric = fabric
        self.source = source
        self.target = target
        self.latency_s = latency_s
        self.receiver: SimStream
        self.unread_bytes = 0  # on the wire or arrived
        self.arrived: deque[memoryview] = deque()
        self.held: deque[bytes | OSError] = deque()  # the link is blocked
        self._last_due_s = 0.0

    def send(self, segment: bytes | OSError) -> None:
        self.unread_bytes += 0 if isinstance(segment, OSError) else len(segment)
        if self.held or self.fabric.is_blocked(self.source, self.target):
            self.held.append(segment)
        else:
            self._schedule(segment)

    def release(self) -> None:
        """The link works again."""
        while self.held:
            self._schedule(self.held.popleft())

    def _schedule(self, segment: bytes | OSError) -> None:
        timeline = self.fabric.timeline
        length_bytes = 0 if isinstance(segment, OSError) else len(segment)
        sent_s = self.fabric.transmit(self.source, self.target, length_bytes)
        due_s = sent_s + self.latency_s + self.fabric.delay_s(self.source, self.target)
        self._last_due_s = max(due_s, self._last_due_s)  # in order
        timeline.call_at(self._last_due_s, lambda: self._deliver(segment))

    def _deliver(self, segment: bytes | OSError) -> None:
        digest = 0 if isinstance(segment, OSError) else xxhash.xxh3_64_intdigest(segment)
        self.fabric.trace("segment", self.source, self.target, digest)
        self.receiver.deliver(segment)


class SimStream:
    """One end of a stream."""

    def __init__(
        self, fabric: Fabric, node: str, peer: str, into: _Direction, out: _Direction
    ) -> None:
        self.node = node
        self.out = out
        self._fabric = fabric
        self._peer = peer
        self._in = into
        self._in.receiver = self
        self._reader = Park()
        self._writer = Park()
        self._closed = False
        self._ended = False
        self._error = 0
        self.other: SimStream

    @property
    def peer(self) -> str:
        return self._peer

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        self._check_open()
        if self._error:
            raise _os_error(self._error)
        room = WINDOW_BYTES - self.out.unread_bytes
        taken: list[memoryview] = []
        for buffer in buffers:
            if room <= 0:
                break
            taken.append(memoryview(buffer)[:room])
            room -= len(taken[-1])
        segment = b"".join(taken)
        if segment:
            self.out.send(segment)
        return len(segment)

    def recv_nowait(self, buffer: memoryview) -> int | None:
        self._check_open()
        arrived = self._in.arrived
        if not arrived:
            if self._error:
                raise _os_error(self._error)
            return 0 if self._ended else None
        filled = 0
        limit = self._fabric.read_limit(len(buffer))
        while arrived and filled < limit:
            piece = arrived.popleft()
            part = piece[: limit - filled]
            buffer[filled : filled + len(part)] = part
            filled += len(part)
            if len(part) < len(piece):
                arrived.appendleft(piece[len(part) :])
        self._in.unread_bytes -= filled
        self.other.window_opened()
        return filled

    async def wait_writable(self) -> None:
        self._check_open()
        if self._error or self.out.unread_bytes < WINDOW_BYTES:
            await trio.lowlevel.checkpoint()
        else:
            await self._writer.wait()
        self._check_open()

    async def wait_readable(self) -> None:
        self._check_open()
        if self._in.arrived or self._error or self._ended:
            await trio.lowlevel.checkpoint()
        else:
            await self._reader.wait()
        self._check_open()

    def close(self) -> None:
        """What has arrived and was not read is lost, which the other end is told by a reset."""
        self._end(_os_error(errno.ECONNRESET) if self._in.arrived else _END)

    def reset(self) -> None:
        """End it as the kernel does for a process that died: the other end gets ECONNRESET."""
        self._end(_os_error(errno.ECONNRESET))

    def deliver(self, segment: bytes | OSError) -> None:
        """What the network brings."""
        if self._closed:
            if segment and not isinstance(segment, OSError):
                self.out.send(_os_error(errno.ECONNRESET))  # nobody will read it
            return
        if isinstance(segment, OSError):
            self._error = segment.errno or errno.ECONNRESET
            self._writer.wake()
        elif segment:
            self._in.arrived.append(memoryview(segment))
        else:
            self._ended = True
        self._reader.wake()

    def window_opened(self) -> None:
        self._writer.wake()

    def _end(self, last: bytes | OSError) -> None:
        if self._closed:
            return
        self._closed = True
        self._fabric.forget(self)
        self._in.arrived.clear()
        self._reader.wake()
        self._writer.wake()
        if not self._error:
            self.out.send(last)

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the stream is closed")


class SimListener:
    """One listening address."""

    def __init__(self, fabric: Fabric, node: str, address: str) -> None:
        self.node = node
        self._fabric = fabric
        self._address = address
        self._waiting: deque[SimStream] = deque()
        self._acceptor = Park()
        self._closed = False

    @property
    def address(self) -> str:
        return self._address

    def offer(self, stream: SimStream) -> bool:
        """A new connection, unless too many wait to be accepted."""
        if len(self._waiting) >= BACKLOG:
            return False
        self._waiting.append(stream)
        self._acceptor.wake()
        return True

    async def accept(self) -> Stream:
        if self._waiting:
            await trio.lowlevel.checkpoint()
        while not self._waiting and not self._closed:
            await self._acceptor.wait()
        if self._closed:
            raise OSError(errno.EBADF, "the listener is closed")
        return self._waiting.popleft()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._fabric.stop_listening(self)
        self._acceptor.wake()
        while self._waiting:
            self._waiting.popleft().reset()


class Fabric:
    """The world's network, with its faults."""

    def __init__(
        self, timeline: Timeline, chance: random.Random, trace: Callable[..., None]
    ) -> None:
        self.timeline = timeline
        self.trace = trace
        self._chance = chance
        self._listeners: dict[str, SimListener] = {}
        self._owners: dict[str, str] = {}  # who listened on an address last
        self._streams: dict[SimStream, None] = {}  # in the order of their making
        self._blocked: dict[tuple[str, str], None] = {}
        self._silent: dict[str, None] = {}
        self._delays_s: dict[tuple[str, str], float] = {}
        self._holes: dict[tuple[str, str], None] = {}  # who connects, to whom
        self._swallowed: list[SimStream] = []  # those that a hole accepted
        self._rates: dict[tuple[str, str], float] = {}  # bytes per second
        self._busy_until_s: dict[tuple[str, str], float] = {}
        self._healed = trio.Event()
        self._next_port = 40_000

    # -- faults

    def block(self, source: str, target: str) -> None:
        """Hold back everything from one node to another; `ANY` stands for every other node."""
        self._blocked[source, target] = None

    def unblock(self, source: str, target: str) -> None:
        self._blocked.pop((source, target), None)
        self._silent.pop(source, None)
        self._release()

    def silence(self, node: str) -> None:
        """Hold back all that the node sends; it is connected to, and sent things, as ever."""
        self._silent[node] = None

    def unblock_all(self) -> None:
        self._blocked.clear()
        self._silent.clear()
        self._delays_s.clear()
        self._rates.clear()
        for hole in list(self._holes):
            self.close_hole(*hole)
        self._release()

    def _release(self) -> None:
        for stream in list(self._streams):
            for direction in (stream.out, stream.other.out):
                if not self.is_blocked(direction.source, direction.target):
                    direction.release()
        healed, self._healed = self._healed, trio.Event()
        healed.set()

    def open_hole(self, source: str, target: str) -> None:
        """Swallow what two nodes say to each other; what `source` connects to is the hole."""
        self._holes[source, target] = None

    def close_hole(self, source: str, target: str) -> None:
        """What was held back arrives; the hole's own streams end."""
        self._holes.pop((source, target), None)
        ends = [s for s in self._swallowed if (s.node, s.other.node) == (source, target)]
        self._swallowed = [s for s in self._swallowed if s not in ends]
        for stream in ends:
            stream.other.reset()
        self._release()

    def set_rate(self, source: str, target: str, bytes_per_s: float) -> None:
        """Let no more than that through a link, all its streams together; infinity: any."""
        self._rates[source, target] = bytes_per_s

    def set_delay(self, source: str, target: str, delay_s: float) -> None:
        """Add to the latency of that link, from now on."""
        self._delays_s[source, target] = delay_s

    def reset_between(self, a: str, b: str) -> None:
        """End every stream between two nodes, at both ends."""
        for stream in list(self._streams):
            ends = (stream.node, stream.other.node)
            if ends in ((a, b), (b, a)):
                stream.out.held.clear()
                stream.deliver(_os_error(errno.ECONNRESET))

    def reset_blocked(self) -> None:
        """End every stream whose link is blocked in either direction."""
        for stream in list(self._streams):
            ends = (stream.node, stream.other.node)
            if self.is_blocked(*ends) or self.is_blocked(*reversed(ends)):
                stream.out.held.clear()
                stream.deliver(_os_error(errno.ECONNRESET))

    def node_crashed(self, node: str) -> None:
        for listener in [x for x in self._listeners.values() if x.node == node]:
            listener.close()
        for stream in [s for s in self._streams if s.node == node]:
            stream.reset()

    # -- what streams ask

    def is_blocked(self, source: str, target: str) -> bool:
        if source == target:
            return False
        holes = self._holes
        if holes and ((source, target) in holes or (target, source) in holes):
            return True
        return source in self._silent or self._is_cut_off(source, target)

    def _is_cut_off(self, source: str, target: str) -> bool:
        if not self._blocked:
            return False
        return (
            (source, target) in self._blocked
            or (source, ANY) in self._blocked
            or (ANY, target) in self._blocked
        )

    def delay_s(self, source: str, target: str) -> float:
        return self._delays_s.get((source, target), 0.0)

    def transmit(self, source: str, target: str, length_bytes: int) -> float:
        """Queue so many bytes on the link; when the last of them has left."""
        rate = self._rates.get((source, target), 0.0)
        if not rate:
            return self.timeline.now_s
        begin_s = max(self.timeline.now_s, self._busy_until_s.get((source, target), 0.0))
        self._busy_until_s[source, target] = begin_s + length_bytes / rate
        return begin_s + length_bytes / rate

    def read_limit(self, wanted_bytes: int) -> int:
        """How much of a read to serve: now and then less, as TCP may."""
        if wanted_bytes > 1 and self._chance.random() < _SHORT_READ_PROBABILITY:
            return self._chance.randrange(1, wanted_bytes)
        return wanted_bytes

    def forget(self, stream: SimStream) -> None:
        self._streams.pop(stream, None)

    def stop_listening(self, listener: SimListener) -> None:
        if self._listeners.get(listener.address) is listener:
            del self._listeners[listener.address]

    # -- what nodes ask

    def listen(self, node: str, address: str) -> SimListener:
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit():
            raise OSError(errno.EINVAL, f"address {address!r} is not host:port")
        if port == "0":
            address = f"{host}:{self._port()}"
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, f"listening on {address}: address in use")
        self._listeners[address] = SimListener(self, node, address)
        self._owners[address] = node
        return self._listeners[address]

    async def connect(self, node: str, address: str) -> SimStream:
        latency_s = _LATENCY_MIN_S + _LATENCY_TAIL_S * self._chance.random() ** 4
        await self.timeline.sleep(2 * latency_s)
        give_up_s = self.timeline.now_s + CONNECT_TIMEOUT_S
        while self.timeline.now_s < give_up_s:
            owner = self._owners.get(address)
            if owner is None or not self._cut(node, owner):
                listener = self._listeners.get(address)
                if owner is not None and (node, owner) in self._holes:
                    return self._swallow(node, owner, address, latency_s)
                if listener is None:
                    raise OSError(errno.ECONNREFUSED, f"connecting to {address}: refused")
                if made := self._join(node, listener, latency_s):
                    return made
            with trio.CancelScope(deadline=self.timeline.now_s + _SYN_RETRY_S):
                await self._healed.wait()
        raise OSError(errno.ETIMEDOUT, f"connecting to {address}: timed out")

    def _cut(self, a: str, b: str) -> bool:
        return self._is_cut_off(a, b) or self._is_cut_off(b, a)

    def _join(self, node: str, listener: SimListener, latency_s: float) -> SimStream | None:
        mine = self._pair(node, listener.node, listener.address, latency_s)
        if not listener.offer(mine.other):
            return None
        self._streams[mine] = self._streams[mine.other] = None
        self.trace("connect", node, listener.address)
        return mine

    def _swallow(self, node: str, owner: str, address: str, latency_s: float) -> SimStream:
        """A stream to nobody, that looks as if it led to `owner`."""
        mine = self._pair(node, owner, address, latency_s)
        self._streams[mine] = None
        self._swallowed.append(mine)
        self.trace("swallow", node, address)
        return mine

    def _pair(self, node: str, owner: str, address: str, latency_s: float) -> SimStream:
        """Both ends of a stream; the near one."""
        there = _Direction(self, node, owner, latency_s)
        back = _Direction(self, owner, node, latency_s)
        mine = SimStream(self, node, address, into=back, out=there)
        theirs = SimStream(self, owner, f"{node}:{self._port()}", into=there, out=back)
        mine.other, theirs.other = theirs, mine
        return mine

    def _port(self) -> int:
        self._next_port += 1
        return self._next_port


class SimNetwork:
    """One incarnation's door to the network."""

    def __init__(self, fabric: Fabric, env: SimEnv) -> None:
        self._fabric = fabric
        self._env = env

    async def listen(self, address: str) -> SimListener:
        await trio.lowlevel.checkpoint()
        self._env.check_alive()
        return self._fabric.listen(self._env.name, address)

    async def connect(self, address: str) -> Stream:
        self._env.check_alive()
        made = await self._fabric.connect(self._env.name, address)
        if self._env.dead:
            made.reset()
        self._env.check_alive()
        return made


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
