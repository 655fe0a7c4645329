"""The proof of the key, without any I/O: who gets through and who does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfs.errors import Code, Failure
from dfs.rpc import auth, codec
from dfs.rpc.auth import Acceptor, Challenge, Dialer, Hello, Proof
from dfs.rpc.peer import Identity

KEY = b"the cluster's key"
CLIENT = Identity("client", 7, "")
MASTER = Identity("master", 1, "host:7001")
NONCES = st.binary(min_size=auth.NONCE_BYTES, max_size=auth.NONCE_BYTES)
NONCE_D, NONCE_A = b"d" * auth.NONCE_BYTES, b"a" * auth.NONCE_BYTES


def dialer(key: bytes = KEY, nonce: bytes = NONCE_D, identity: Identity = CLIENT) -> Dialer:
    return Dialer(key, identity, nonce, 64)


def acceptor(key: bytes = KEY, nonce: bytes = NONCE_A, identity: Identity = MASTER) -> Acceptor:
    return Acceptor(key, identity, nonce, 32)


def refused(failure: pytest.ExceptionInfo[Failure]) -> bool:
    return failure.value.code is Code.UNAUTHENTICATED


def test_both_sides_learn_who_the_other_is() -> None:
    here, there = dialer(), acceptor()
    challenge, identity, in_flight = there.challenge(here.hello)
    assert (identity, in_flight) == (CLIENT, 64)
    proof, identity, in_flight = here.answer(challenge)
    assert (identity, in_flight) == (MASTER, 32)
    here.check(there.accept(proof))


@given(NONCES, NONCES)
def test_the_key_is_never_sent(mine: bytes, theirs: bytes) -> None:
    here, there = dialer(nonce=mine), acceptor(nonce=theirs)
    if mine == theirs:
        return
    challenge, _, _ = there.challenge(here.hello)
    proof, _, _ = here.answer(challenge)
    for sent in (here.hello, challenge, proof, there.accept(proof)):
        assert KEY not in sent
        assert len(sent) <= auth.HEADER_MAX_BYTES


def test_a_dialer_with_another_key_is_refused() -> None:
    here, there = dialer(key=b"another key"), acceptor()
    proof, _, _ = here.answer(there.challenge(here.hello)[0])
    with pytest.raises(Failure, match="another cluster key") as caught:
        there.accept(proof)
    assert refused(caught)


def test_an_acceptor_with_another_key_is_refused() -> None:
    here, there = dialer(), acceptor(key=b"another key")
    challenge, _, _ = there.challenge(here.hello)
    here.answer(challenge)
    forged = acceptor(key=b"another key")
    forged.challenge(here.hello)
    mac = auth._mac(b"another key", b"acceptor", here.hello, challenge)
    with pytest.raises(Failure, match="another cluster key") as caught:
        here.check(codec.encode(Proof(mac)))
    assert refused(caught)


def test_the_dialers_own_proof_sent_back_proves_nothing() -> None:
    here, there = dialer(), acceptor()
    proof, _, _ = here.answer(there.challenge(here.hello)[0])
    with pytest.raises(Failure) as caught:
        here.check(proof)
    assert refused(caught)


def test_the_own_nonce_sent_back_is_refused() -> None:
    here = dialer()
    echoed = Challenge(NONCE_D, "master", 1, "", 1)
    with pytest.raises(Failure, match="own nonce"):
        here.answer(codec.encode(echoed))
    with pytest.raises(Failure, match="own nonce"):
        acceptor().challenge(codec.encode(Hello(NONCE_A, "client", 1, "", 1)))


def test_a_node_cannot_be_made_to_prove_the_key_to_itself() -> None:
    """Dialled by its own hello, a node answers as acceptor: no proof for its dialling side."""
    victim = dialer(identity=MASTER)
    victims_server = acceptor()
    challenge, _, _ = victims_server.challenge(victim.hello)
    proof, _, _ = victim.answer(challenge)
    with pytest.raises(Failure):
        victim.check(proof)


def test_a_proof_of_an_earlier_connection_is_worth_nothing() -> None:
    here, there = dialer(), acceptor()
    old, _, _ = here.answer(there.challenge(here.hello)[0])
    again = acceptor(nonce=b"b" * auth.NONCE_BYTES)
    again.challenge(here.hello)
    with pytest.raises(Failure) as caught:
        again.accept(old)
    assert refused(caught)


@given(st.data())
def test_nothing_that_was_said_may_be_altered(data: st.DataObject) -> None:
    here, there = dialer(), acceptor()
    hello = Hello(NONCE_D, "client", 7, "", 64)
    altered = data.draw(
        st.sampled_from(
            [
                Hello(NONCE_D, "master", 7, "", 64),
                Hello(NONCE_D, "client", 8, "", 64),
                Hello(NONCE_D, "client", 7, "x:1", 64),
                Hello(NONCE_D, "client", 7, "", 65),
                Hello(NONCE_D[::-1] + b"", "client", 7, "y", 64),
            ]
        )
    )
    assert codec.encode(hello) == here.hello
    challenge, _, _ = there.challenge(codec.encode(altered))
    proof, _, _ = here.answer(challenge)
    with pytest.raises(Failure):
        there.accept(proof)


@pytest.mark.parametrize(
    "said",
    [
        Hello(b"short", "client", 1, "", 1),
        Hello(NONCE_D, "c" * 100, 1, "", 1),
        Hello(NONCE_D, "client", 1, "a" * 1000, 1),
        Hello(NONCE_D, "client\nERROR forged line", 1, "", 1),
        Hello(NONCE_D, "client", 1, "\x1b[2J", 1),
        Hello(NONCE_D, "client", 1, "", 0),
        Challenge(NONCE_D, "master", 1, "", 1),
        Proof(b""),
    ],
)
def test_a_malformed_hello_is_refused(said: object) -> None:
    with pytest.raises(Failure) as caught:
        acceptor().challenge(codec.encode(said))
    assert refused(caught)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_prove_nothing(data: bytes) -> None:
    here, there = dialer(), acceptor()
    here.answer(there.challenge(here.hello)[0])
    for verify in (there.accept, here.check, acceptor().challenge, dialer().answer):
        with pytest.raises(Failure) as caught:
            verify(data)
        assert refused(caught)


@given(st.binary(max_size=64))
def test_no_guessed_mac_is_accepted(mac: bytes) -> None:
    here, there = dialer(), acceptor()
    there.challenge(here.hello)
    with pytest.raises(Failure):
        there.accept(codec.encode(Proof(mac)))
