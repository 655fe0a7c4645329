"""Messages to bytes and back, and what decoding does with bytes that are none."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import pkgutil
import types
import typing
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import dfs.messages
from dfs.errors import Code, Failure
from dfs.messages.common import Attributes, Credentials, Done
from dfs.messages.metadata import Lookup, Numbered, Submit
from dfs.messages.operations import Create, SetAttributes
from dfs.rpc import codec

for _module in pkgutil.iter_modules(dfs.messages.__path__):
    importlib.import_module(f"dfs.messages.{_module.name}")
for _name in ("master.commands", "dfs.rpc"):
    importlib.import_module(_name)

CLASSES = codec.message_classes()


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Everything that a field with this annotation may hold."""
    simple: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(-(2**63), 2**64 - 1),
        bool: st.booleans(),
        float: st.floats(allow_nan=False),
        str: st.text(),
        bytes: st.binary(),
        type(None): st.none(),
    }
    if hint in simple:
        return simple[hint]
    args = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return st.one_of([values(a) for a in args])
    if issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    return messages(hint)


def messages(cls: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    return st.builds(cls, **{name: values(hints[name]) for name in names})


ANY_MESSAGE = st.sampled_from(CLASSES).flatmap(messages)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_message_survives_the_wire(cls: type) -> None:
    @given(messages(cls))
    def check(value: object) -> None:
        decoded = codec.decode(codec.encode(value))
        assert decoded == value
        assert type(decoded) is cls

    check()


def decodes_or_refuses(data: bytes) -> None:
    """Fails on any exception but a Failure."""
    try:
        decoded = codec.decode(data)
    except Failure as failure:
        decoded = failure
    assert type(decoded) in CLASSES or decoded.code is Code.BAD_MESSAGE


@given(st.binary(max_size=300))
@example(b"\x81\x90\x01")  # a map with an array as key
@example(b"\x91" * 3000)  # nested deeper than any stack
@example(b"\xdd\xff\xff\xff\xff")  # an array of 4 G elements
@example(b"\xdb\xff\xff\xff\xffx")  # a string of 4 GiB
@example(b"\xc7\x0c\xff" + b"\xff" * 12)  # a timestamp beyond time
def test_arbitrary_bytes_are_decoded_or_refused(data: bytes) -> None:
    decodes_or_refuses(data)


def junk() -> st.SearchStrategy[Any]:
    leaves: st.SearchStrategy[Any] = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=5),
    )
    return st.recursive(leaves, lambda x: st.lists(x, max_size=4), max_leaves=12)


@given(st.sampled_from(CLASSES), st.lists(junk(), max_size=15))
def test_any_values_in_any_field_are_decoded_or_refused(cls: type, fields: list[Any]) -> None:
    decodes_or_refuses(msgpack.packb([codec.wire_id_of(cls), *fields]))


@given(ANY_MESSAGE, st.data())
def test_mutated_messages_are_decoded_or_refused(value: object, data: st.DataObject) -> None:
    encoded = bytearray(codec.encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(encoded) - 1))
        encoded[at] = data.draw(st.integers(0, 255))
    decodes_or_refuses(bytes(encoded))


@given(ANY_MESSAGE, st.data())
def test_truncated_messages_are_refused(value: object, data: st.DataObject) -> None:
    encoded = codec.encode(value)
    with pytest.raises(Failure) as caught:
        codec.decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    assert caught.value.code is Code.BAD_MESSAGE


def test_last_fields_with_defaults_may_be_missing() -> None:
    assert codec.decode(msgpack.packb([1, 5, 6])) == Credentials(5, 6)


def test_surplus_fields_of_a_newer_peer_are_ignored() -> None:
    assert codec.decode(msgpack.packb([3, "new", [1]])) == Done()


def test_a_required_field_must_be_there() -> None:
    with pytest.raises(Failure, match="Credentials: 1 fields of 2 required"):
        codec.decode(msgpack.packb([1, 5]))


@pytest.mark.parametrize("wrong", [True, 5.0, "5", b"5", None, [5]])
def test_a_value_of_another_type_is_refused(wrong: object) -> None:
    with pytest.raises(Failure, match=r"Lookup\.parent"):
        codec.decode(msgpack.packb([codec.wire_id_of(Lookup), wrong, b"name"]))


def test_none_fits_only_where_it_may_stand() -> None:
    changes = SetAttributes(1, Credentials(0, 0), mode=None, uid=3)
    assert codec.decode(codec.encode(changes)) == changes
    with pytest.raises(Failure, match=r"Lookup\.name"):
        codec.decode(msgpack.packb([codec.wire_id_of(Lookup), 1, None]))


def test_a_message_stands_only_where_its_class_is_due() -> None:
    create = Create(1, b"x", 0o644, True, Credentials(0, 0))
    submit = Submit(1, 1, (Numbered(1, create),))
    assert codec.decode(codec.encode(submit)) == submit
    inner = [codec.wire_id_of(Numbered), 1, [codec.wire_id_of(Done)]]
    with pytest.raises(Failure, match="Done is not expected here"):
        codec.decode(msgpack.packb([codec.wire_id_of(Submit), 1, 1, [inner]]))


def test_an_unknown_wire_id_is_told_from_garbage() -> None:
    with pytest.raises(codec.UnknownMessageError):
        codec.decode(msgpack.packb([9999, 1]))
    with pytest.raises(Failure) as caught:
        codec.decode(b"\xc1")
    assert not isinstance(caught.value, codec.UnknownMessageError)


def test_wire_ids_are_not_given_twice() -> None:
    with pytest.raises(TypeError, match="is taken"):
        codec.message(codec.wire_id_of(Attributes))(type("Usurper", (), {"__annotations__": {}}))
