"""Mutual proof of the cluster's key: the pure half of the handshake. Wire ids 201 to 203.

    dialer                                   acceptor
      HELLO(nonce, identity)      ------->
                                  <-------   CHALLENGE(nonce, identity)
      PROOF(mac "dialer")         ------->   verifies, or REJECTs and closes
      verifies, or closes         <-------   PROOF(mac "acceptor")

A mac is HMAC-SHA256 under the cluster's key over: a label with the direction, the protocol
version, and the whole headers of HELLO and CHALLENGE, each with its length before it. So it covers
both nonces, both identities and everything else that was said. The key itself is never sent; the
stranger who dials gets a nonce and an identity and has to prove first. A mac sent back where it
came from is wrong by its direction, one of another connection by its nonces.

What it does not do: it does not encrypt, and whoever sits in the middle of an established
connection may alter it. That takes TLS.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from dfs.errors import Code, Failure
from dfs.rpc import codec
from dfs.rpc.codec import message
from dfs.rpc.frame import VERSION
from dfs.rpc.peer import Identity

NONCE_BYTES = 32
HEADER_MAX_BYTES = 1024  # of any handshake frame; none has a payload
_ROLE_MAX_CHARS = 32
_ADDRESS_MAX_CHARS = 300
_LABEL = b"dfs rpc handshake, proof of the "


@message(201)
class Hello:
    """The dialer introduces itself. `max_in_flight`: how many requests it takes at a time."""

    nonce: bytes
    role: str
    id: int
    address: str
    max_in_flight: int


@message(202)
class Challenge:
    """The acceptor's part of the same."""

    nonce: bytes
    role: str
    id: int
    address: str
    max_in_flight: int


@message(203)
class Proof:
    mac: bytes


class Dialer:
    """The side that connected: `hello`, then `answer`, then `check`."""

    def __init__(self, key: bytes, identity: Identity, nonce: bytes, max_in_flight: int) -> None:
        self._key = key
        self._nonce = nonce
        hello = Hello(nonce, identity.role, identity.id, identity.address, max_in_flight)
        self.hello = codec.encode(hello)
        self._challenge = b""

    def answer(self, challenge: bytes) -> tuple[bytes, Identity, int]:
        """The PROOF header for a CHALLENGE header, and what the peer says of itself.

        Returns (header, identity, its max_in_flight). Raises Failure(UNAUTHENTICATED).
        """
        said = _decode(Challenge, challenge)
        if said.nonce == self._nonce:
            raise _unproven("it sent this side's own nonce back")
        self._challenge = challenge
        proof = Proof(_mac(self._key, b"dialer", self.hello, challenge))
        return codec.encode(proof), _identity(said), said.max_in_flight

    def check(self, proof: bytes) -> None:
        """Verify the acceptor's PROOF header. Raises Failure(UNAUTHENTICATED)."""
        _verify(proof, _mac(self._key, b"acceptor", self.hello, self._challenge))


class Acceptor:
    """The side that was connected to: `challenge`, then `accept`."""

    def __init__(self, key: bytes, identity: Identity, nonce: bytes, max_in_flight: int) -> None:
        self._key = key
        self._nonce = nonce
        said = Challenge(nonce, identity.role, identity.id, identity.address, max_in_flight)
        self._challenge = codec.encode(said)
        self._hello = b""

    def challenge(self, hello: bytes) -> tuple[bytes, Identity, int]:
        """The CHALLENGE header for a HELLO header, and what the peer says of itself (unproven).

        Returns (header, identity, its max_in_flight). Raises Failure(UNAUTHENTICATED).
        """
        said = _decode(Hello, hello)
        if said.nonce == self._nonce:
            raise _unproven("it sent this side's own nonce back")
        self._hello = hello
        return self._challenge, _identity(said), said.max_in_flight

    def accept(self, proof: bytes) -> bytes:
        """Verify the dialer's PROOF header; this side's own. Raises Failure(UNAUTHENTICATED)."""
        _verify(proof, _mac(self._key, b"dialer", self._hello, self._challenge))
        return codec.encode(Proof(_mac(self._key, b"acceptor", self._hello, self._challenge)))


def _mac(key: bytes, direction: bytes, hello: bytes, challenge: bytes) -> bytes:
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in (_LABEL + direction, bytes([VERSION]), hello, challenge):
        mac.update(struct.pack(">I", len(part)) + part)
    return mac.digest()


def _verify(proof: bytes, expected: bytes) -> None:
    if not hmac.compare_digest(_decode(Proof, proof).mac, expected):
        raise _unproven("it has another cluster key")


def _decode(cls: type[codec.M], header: bytes) -> codec.M:
    try:
        return codec.decode_as(cls, header)
    except Failure as failure:
        raise _unproven(failure.message) from None


def _identity(said: Hello | Challenge) -> Identity:
    printable = said.role.isprintable() and said.address.isprintable()
    if (
        len(said.nonce) != NONCE_BYTES
        or len(said.role) > _ROLE_MAX_CHARS
        or len(said.address) > _ADDRESS_MAX_CHARS
        or said.max_in_flight < 1
        or not printable
    ):
        raise _unproven(f"its {type(said).__name__} is malformed")
    return Identity(said.role, said.id, said.address)


def _unproven(why: str) -> Failure:
    return Failure(Code.UNAUTHENTICATED, f"the peer did not prove the cluster key: {why}")
