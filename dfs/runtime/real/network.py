"""Streams over non-blocking TCP sockets: the system call first, epoll only when it says EAGAIN.

Addresses are `host:port`, `[IPv6]:port`, or a name that the resolver knows. Sockets are made with
TCP_NODELAY and 1 MiB of kernel buffer each way, which the write chain was measured to want.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence

import trio

from dfs.runtime.network import Buffer, Stream

log = logging.getLogger(__name__)

BUFFER_BYTES = 1 << 20
BACKLOG = 512
IOV_MAX = os.sysconf("SC_IOV_MAX")

# accept(2): errors of the one connection that was being accepted, which say nothing about the next.
_LOST_WHILE_ACCEPTING = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
    }
)
# accept(2): the machine or the process is out of something, so trying again at once would spin.
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ACCEPT_PAUSE_MIN_S = 0.05
_ACCEPT_PAUSE_MAX_S = 1.0


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[host]:port` in its two parts. Raises OSError EINVAL."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise OSError(errno.EINVAL, f"address {address!r} is not host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The inverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class RealStream:
    """One connected socket."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self._socket = sock
        self._peer = peer

    @property
    def peer(self) -> str:
        return self._peer

    def send_nowait(self, buffers: Sequence[Buffer]) -> int:
        try:
            return self._socket.sendmsg(buffers if len(buffers) <= IOV_MAX else buffers[:IOV_MAX])
        except BlockingIOError:
            return 0

    def recv_nowait(self, buffer: memoryview) -> int | None:
        try:
            return self._socket.recv_into(buffer)
        except BlockingIOError:
            return None

    async def wait_writable(self) -> None:
        await _parked(trio.lowlevel.wait_writable, self._socket)

    async def wait_readable(self) -> None:
        await _parked(trio.lowlevel.wait_readable, self._socket)

    def close(self) -> None:
        _close(self._socket)


class RealListener:
    """One listening socket."""

    def __init__(self, sock: socket.socket, buffer_bytes: int) -> None:
        self._socket = sock
        self._buffer_bytes = buffer_bytes
        self._address = join_address(*sock.getsockname()[:2])

    @property
    def address(self) -> str:
        return self._address

    async def accept(self) -> Stream:
        """The next connection; outlives aborted ones and a lack of file descriptors."""
        pause_s = _ACCEPT_PAUSE_MIN_S
        while True:
            try:
                sock, name = self._socket.accept()
            except BlockingIOError:
                await _parked(trio.lowlevel.wait_readable, self._socket)
            except OSError as error:
                if error.errno in _LOST_WHILE_ACCEPTING:
                    await trio.lowlevel.checkpoint()
                elif error.errno in _OUT_OF_RESOURCES:
                    log.warning(
                        "%s cannot accept a connection: %s; trying again in %.2f s",
                        self._address,
                        error.strerror,
                        pause_s,
                    )
                    await trio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _ACCEPT_PAUSE_MAX_S)
                else:
                    raise
            else:
                _prepare(sock, self._buffer_bytes)
                # A crowd of strangers must not keep this task running without a pause.
                await trio.lowlevel.cancel_shielded_checkpoint()
                return RealStream(sock, join_address(*name[:2]))

    def close(self) -> None:
        _close(self._socket)


class RealNetwork:
    """TCP."""

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._buffer_bytes = buffer_bytes

    async def listen(self, address: str) -> RealListener:
        host, port = split_address(address)
        family, name = (await _resolve(host, port, passive=True))[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            _prepare(sock, self._buffer_bytes)  # accepted sockets inherit the buffers' sizes
            sock.bind(name)
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise OSError(error.errno, f"listening on {address}: {error.strerror}") from None
        return RealListener(sock, self._buffer_bytes)

    async def connect(self, address: str) -> Stream:
        host, port = split_address(address)
        problem = OSError(errno.EHOSTUNREACH, f"{address} has no address")
        for family, name in await _resolve(host, port, passive=False):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                _prepare(sock, self._buffer_bytes)
                await _connect(sock, name)
                return RealStream(sock, address)
            except OSError as error:
                sock.close()
                problem = OSError(error.errno, f"connecting to {address}: {error.strerror}")
            except BaseException:  # cancelled: the socket must not leak
                sock.close()
                raise
        raise problem


async def _parked(wait: Callable[[socket.socket], Awaitable[None]], sock: socket.socket) -> None:
    if sock.fileno() < 0:
        raise OSError(errno.EBADF, "the stream is closed")
    try:
        await wait(sock)
    except trio.ClosedResourceError:
        raise OSError(errno.EBADF, "the stream was closed meanwhile") from None


def _close(sock: socket.socket) -> None:
    if sock.fileno() < 0:
        return
    try:
        trio.lowlevel.notify_closing(sock)
    except RuntimeError:  # no event loop runs any more, so nobody waits either
        log.debug("closing a socket outside an event loop")
    sock.close()


def _prepare(sock: socket.socket, buffer_bytes: int) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)


async def _resolve(
    host: str, port: int, *, passive: bool
) -> list[tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]]:
    flags = socket.AI_PASSIVE if passive else 0
    try:
        found = await trio.socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=flags
        )
    except socket.gaierror as error:
        raise OSError(errno.EHOSTUNREACH, f"host {host!r}: {error.strerror}") from None
    return [(family, name) for family, _, _, _, name in found]  # type: ignore[misc]


async def _connect(sock: socket.socket, name: tuple[str, int] | tuple[str, int, int, int]) -> None:
    try:
        sock.connect(name)
    except BlockingIOError:
        await trio.lowlevel.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code)) from None
    # A port of the ephemeral range that nobody listens on may be connected with itself.
    if sock.getsockname() == sock.getpeername():
        raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
