"""The file that a scrub goes on from."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkserver.scrub_state import ScrubState, decode, encode
from dfs.messages.scrubbing import ScrubPass

numbers = st.integers(0, 2**63)
passes = st.builds(ScrubPass, numbers, numbers, numbers, numbers, numbers)
states = st.builds(
    ScrubState,
    st.booleans(),
    st.integers(-1, 2**64 - 1),
    st.none() | passes,
    st.none() | passes,
    st.dictionaries(st.integers(0, 2**64 - 1), st.integers(1, 2**1024 - 1), max_size=4),
)


@given(states)
def test_what_is_written_is_read(state: ScrubState) -> None:
    assert decode(encode(state)) == state


def test_it_has_a_magic_and_a_format() -> None:
    content = json.loads(encode(ScrubState()))
    assert (content["magic"], content["format"]) == ("dfs scrub", 1)
    content["format"] = 2
    with pytest.raises(ValueError, match="another magic or format"):
        decode(json.dumps(content).encode())


@given(states, st.data())
def test_a_damaged_file_is_refused_and_nothing_worse(
    state: ScrubState, data: st.DataObject
) -> None:
    content = bytearray(encode(state))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode(bytes(content))
    except ValueError:
        return  # or it was a digit, and costs a part of a pass


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b'{"magic": 1}', b"\xff"])
def test_no_state_at_all_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no scrub state"):
        decode(content)


def test_a_pass_counts_and_ends() -> None:
    state = ScrubState()
    state.begin(5)
    state.verified(7, 100, 0)
    state.verified(9, 200, 2)
    assert (state.position, state.current) == (9, ScrubPass(5, 0, 2, 300, 2))
    assert state.end(8) == ScrubPass(5, 8, 2, 300, 2)
    assert (state.position, state.current, state.last) == (-1, None, ScrubPass(5, 8, 2, 300, 2))
