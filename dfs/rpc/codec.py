"""Typed messages: frozen dataclasses to and from msgpack, validated when decoded.

Wire form of a message: a msgpack array `[wire id, field 1, field 2, ...]` in the order of the
dataclass. Nested messages are nested arrays, enums their integers, tuples arrays. A shorter array
is accepted when the missing last fields have defaults (an older peer), surplus fields are ignored
(a newer peer): so fields are only ever appended, with a default, and wire ids never reused.

`decode` raises `Failure(BAD_MESSAGE)` and nothing else, whatever the bytes are. Bulk data does not
pass through here: it travels as the raw payload of a frame.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import msgpack

from dfs.errors import Code, Failure
from dfs.runtime.network import Buffer

M = TypeVar("M")
Reader = Callable[[Any], Any]
Writer = Callable[[Any], Any] | None  # None: msgpack takes the value as it is


@dataclasses.dataclass(frozen=True, slots=True)
class _Schema:
    cls: type
    wire_id: int
    readers: tuple[Reader, ...]
    writers: tuple[tuple[str, Writer], ...]
    required: int
    names: tuple[str, ...]


_by_id: dict[int, _Schema] = {}  # filled by @message while modules load, constant afterwards
_by_class: dict[type, _Schema] = {}


@typing.dataclass_transform(frozen_default=True)
def message(wire_id: int) -> Callable[[type[M]], type[M]]:
    """Class decorator: makes the class a frozen, slotted dataclass and registers it."""

    def register(cls: type[M]) -> type[M]:
        made = dataclasses.dataclass(frozen=True, slots=True)(cls)
        if wire_id in _by_id:
            raise TypeError(f"wire id {wire_id} of {cls.__name__} is taken")
        schema = _schema(made, wire_id)
        _by_id[wire_id] = schema
        _by_class[made] = schema
        return made

    return register


def wire_id_of(cls: type) -> int:
    """The wire id that `@message` gave the class."""
    return _by_class[cls].wire_id


def encode(value: object) -> bytes:
    """A registered message as bytes."""
    return typing.cast(bytes, msgpack.packb(_to_wire(value)))


def decode(data: Buffer) -> Any:
    """The message in `data`. Raises Failure(BAD_MESSAGE)."""
    try:
        raw = msgpack.unpackb(data, use_list=True, raw=False, strict_map_key=False)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise Failure(Code.BAD_MESSAGE, f"not msgpack: {error}") from None
    return _from_wire(raw)


def decode_as(cls: type[M], data: Buffer) -> M:
    """The message in `data`, which must be of that class. Raises Failure(BAD_MESSAGE)."""
    value = decode(data)
    if type(value) is not cls:
        raise Failure(Code.BAD_MESSAGE, f"{type(value).__name__} where {cls.__name__} is due")
    return typing.cast(M, value)


def _to_wire(value: object) -> list[Any]:
    schema = _by_class[type(value)]
    wire: list[Any] = [schema.wire_id]
    for name, writer in schema.writers:
        item = getattr(value, name)
        wire.append(item if writer is None else writer(item))
    return wire


def _from_wire(raw: Any) -> Any:
    if type(raw) is not list or not raw or type(raw[0]) is not int:
        raise Failure(Code.BAD_MESSAGE, "a message is an array that begins with its wire id")
    schema = _by_id.get(raw[0])
    if schema is None:
        raise Failure(Code.BAD_MESSAGE, f"no message has the wire id {raw[0]}")
    return _build(schema, raw)


def _build(schema: _Schema, raw: list[Any]) -> Any:
    given = raw[1:]
    if len(given) < schema.required:
        raise Failure(
            Code.BAD_MESSAGE,
            f"{schema.cls.__name__} has {len(given)} fields of {schema.required} required",
        )
    values = []
    for name, reader, item in zip(schema.names, schema.readers, given, strict=False):
        try:
            values.append(reader(item))
        except _WrongTypeError as error:
            text = f"{schema.cls.__name__}.{name}: {error}"
            raise Failure(Code.BAD_MESSAGE, text) from None
    try:
        return schema.cls(*values)
    except ValueError as error:  # a __post_init__ that checks ranges
        raise Failure(Code.BAD_MESSAGE, f"{schema.cls.__name__}: {error}") from None


class _WrongTypeError(Exception):
    """A field's value does not fit its annotation."""


def _schema(cls: type, wire_id: int) -> _Schema:
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    required = sum(
        f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        for f in fields
    )
    return _Schema(
        cls=cls,
        wire_id=wire_id,
        readers=tuple(_reader(hints[f.name]) for f in fields),
        writers=tuple((f.name, _writer(hints[f.name])) for f in fields),
        required=required,
        names=tuple(f.name for f in fields),
    )


# -- readers: check a decoded value against an annotation, return what the field holds


def _reader(hint: Any) -> Reader:
    if hint in (int, bool, str, bytes):
        return _exact(hint)
    if hint is float:
        return _float
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return _tuple_reader(args)
    if origin in (typing.Union, types.UnionType):
        return _union_reader(args)
    if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
        return _enum_reader(hint)
    if isinstance(hint, type) and hint in _by_class:
        return _message_reader((hint,))
    raise TypeError(f"a message field cannot be {hint!r}")


def _exact(cls: type) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not cls:
            raise _WrongTypeError(f"{type(value).__name__} where {cls.__name__} is due")
        return value

    return read


def _float(value: Any) -> float:
    if type(value) not in (float, int):
        raise _WrongTypeError(f"{type(value).__name__} where float is due")
    return float(value)


def _tuple_reader(args: tuple[Any, ...]) -> Reader:
    if len(args) != 2 or args[1] is not Ellipsis:
        raise TypeError("message fields use tuple[X, ...] or a message for fixed shapes")
    item = _reader(args[0])

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _WrongTypeError(f"{type(value).__name__} where an array is due")
        return tuple(item(v) for v in value)

    return read


def _union_reader(args: tuple[Any, ...]) -> Reader:
    optional = type(None) in args
    rest = [a for a in args if a is not type(None)]
    inner = _reader(rest[0]) if len(rest) == 1 else _message_reader(tuple(rest))

    def read(value: Any) -> Any:
        return None if value is None and optional else inner(value)

    return read


def _enum_reader(cls: type[enum.IntEnum]) -> Reader:
    def read(value: Any) -> enum.IntEnum:
        try:
            return cls(value)
        except ValueError:
            raise _WrongTypeError(f"{value!r} is no {cls.__name__}") from None

    return read


def _message_reader(classes: tuple[type, ...]) -> Reader:
    allowed = frozenset(_by_class[cls].cls for cls in classes)

    def read(value: Any) -> Any:
        made = _from_wire(value)
        if type(made) not in allowed:
            raise _WrongTypeError(f"{type(made).__name__} is not expected here")
        return made

    return read


# -- writers: the msgpack form of a field; None where the value goes as it is


def _writer(hint: Any) -> Writer:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        item = _writer(args[0])
        return None if item is None else lambda values: [item(v) for v in values]
    if origin in (typing.Union, types.UnionType):
        inner = [_writer(a) for a in args if a is not type(None)]
        if inner[0] is None:
            return None
        return lambda v: None if v is None else _to_wire(v)
    if isinstance(hint, type) and hint in _by_class:
        return _to_wire
    if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
        return int
    return None
