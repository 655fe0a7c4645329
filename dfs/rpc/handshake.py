"""The handshake on a stream: moves the frames of `dfs.rpc.auth`, each of a tiny bounded size.

Nothing but the next frame of the handshake is read before the peer has proven the key. Bounding
the time is the caller's business: these functions wait as long as the peer does.
"""

from __future__ import annotations

from dataclasses import dataclass

from dfs.errors import Code, Failure
from dfs.rpc import codec, frame
from dfs.rpc.auth import HEADER_MAX_BYTES, NONCE_BYTES, Acceptor, Dialer
from dfs.rpc.frame import FrameLimits, Kind
from dfs.rpc.inbox import Inbox
from dfs.rpc.peer import Endpoint, Identity
from dfs.rpc.problem import Problem, to_problem
from dfs.runtime.network import Stream, send_all

_LIMITS = FrameLimits(header_bytes=HEADER_MAX_BYTES, payload_bytes=0)


@dataclass(frozen=True, slots=True)
class Introduction:
    """What the handshake established about the peer."""

    identity: Identity
    max_in_flight: int  # requests that it takes at a time


async def greet(endpoint: Endpoint, stream: Stream, inbox: Inbox) -> Introduction:
    """The dialer's side. Raises Failure(UNAUTHENTICATED), OSError, EOFError."""
    nonce = endpoint.env.random.token(NONCE_BYTES)
    dialer = Dialer(endpoint.key, endpoint.identity, nonce, endpoint.limits.max_in_flight)
    await _send(stream, Kind.HELLO, dialer.hello)
    proof, identity, max_in_flight = dialer.answer(await _receive(inbox, Kind.CHALLENGE))
    await _send(stream, Kind.PROOF, proof)
    dialer.check(await _receive(inbox, Kind.PROOF))
    return Introduction(identity, max_in_flight)


async def admit(endpoint: Endpoint, stream: Stream, inbox: Inbox) -> Introduction:
    """The acceptor's side; tells a peer that is refused so. Raises like `greet`."""
    nonce = endpoint.env.random.token(NONCE_BYTES)
    acceptor = Acceptor(endpoint.key, endpoint.identity, nonce, endpoint.limits.max_in_flight)
    try:
        challenge, identity, max_in_flight = acceptor.challenge(await _receive(inbox, Kind.HELLO))
        await _send(stream, Kind.CHALLENGE, challenge)
        proof = acceptor.accept(await _receive(inbox, Kind.PROOF))
    except Failure as failure:
        _reject(stream, failure)
        raise
    await _send(stream, Kind.PROOF, proof)
    return Introduction(identity, max_in_flight)


async def _send(stream: Stream, kind: Kind, header: bytes) -> None:
    await send_all(stream, [frame.pack(kind, 0, len(header), 0) + header])


def _reject(stream: Stream, failure: Failure) -> None:
    """Say why, without waiting: a stranger who does not read misses it."""
    code = Failure(failure.code, "refused")  # the code is enough; strangers need no more
    header = codec.encode(to_problem(code))
    stream.send_nowait([frame.pack(Kind.REJECT, 0, len(header), 0) + header])


async def _receive(inbox: Inbox, due: Kind) -> bytes:
    await inbox.need(frame.PREFIX_BYTES)
    prefix = frame.parse(inbox.data, inbox.start, _LIMITS)
    if prefix.kind not in (due, Kind.REJECT) or (due is Kind.HELLO and prefix.kind is not due):
        text = f"a {prefix.kind.name} frame where {due.name} was due"
        raise Failure(Code.UNAUTHENTICATED, f"the peer did not prove the cluster key: {text}")
    await inbox.need(frame.PREFIX_BYTES + prefix.header_bytes)
    inbox.take(frame.PREFIX_BYTES)
    header = bytes(inbox.take(prefix.header_bytes))
    if prefix.kind is Kind.REJECT:
        raise _rejected(header)
    return header


def _rejected(header: bytes) -> Failure:
    problem = codec.decode_as(Problem, header)
    if problem.code == Code.UNAUTHENTICATED:
        return Failure(Code.UNAUTHENTICATED, "the peer does not accept this side's cluster key")
    return Failure(Code.UNAUTHENTICATED, "the peer refused the handshake")
