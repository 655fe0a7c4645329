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
from operator import attrgetter, contains
from typing import Any, TypeVar

import msgpack

from dfs.errors import Code, Failure
from dfs.runtime.network import Buffer

M = TypeVar("M")
Reader = Callable[[Any], Any]
Converter = Callable[[Any], Any]
Writer = Converter | None  # None: msgpack takes the value as it is


@dataclasses.dataclass(frozen=True, slots=True)
class _Schema:
    cls: type
    wire_id: int
    names: tuple[str, ...]
    required: int
    values_of: Callable[[Any], tuple[Any, ...]]  # of a message, its fields
    readers: tuple[Reader, ...]
    writers: tuple[tuple[int, Converter], ...]  # by position in the wire form
    plain: tuple[frozenset[type], ...] | None  # what each field may hold if none needs a reader


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


class UnknownMessageError(Failure):
    """A wire id that this side does not know: the peer may be newer. Code BAD_MESSAGE."""


def wire_id_of(cls: type) -> int:
    """The wire id that `@message` gave the class."""
    return _by_class[cls].wire_id


def message_classes() -> list[type]:
    """Every class registered so far, by wire id."""
    return [_by_id[wire_id].cls for wire_id in sorted(_by_id)]


def encode(value: object) -> bytes:
    """A registered message as bytes. Raises TypeError for anything else."""
    return typing.cast(bytes, msgpack.packb(_to_wire(value)))


def decode(data: Buffer) -> Any:
    """The message in `data`. Raises Failure(BAD_MESSAGE)."""
    try:
        raw = msgpack.unpackb(data, use_list=True, raw=False)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise Failure(Code.BAD_MESSAGE, f"not msgpack: {error}") from None
    return _from_wire(raw)


def decode_as(cls: type[M], data: Buffer) -> M:
    """The message in `data`, which must be of that class. Raises Failure(BAD_MESSAGE)."""
    value = decode(data)
    if type(value) is not cls:
        raise Failure(Code.BAD_MESSAGE, f"{type(value).__name__} where {cls.__name__} is due")
    return value


def _to_wire(value: object) -> list[Any]:
    schema = _by_class.get(type(value))
    if schema is None:
        raise TypeError(f"{type(value).__name__} is no message")
    wire = [schema.wire_id, *schema.values_of(value)]
    for position, convert in schema.writers:
        wire[position] = convert(wire[position])
    return wire


def _from_wire(raw: object, allowed: frozenset[int] | None = None) -> Any:
    """Build what the array `raw` says; `allowed` are the wire ids that fit here, None all."""
    if type(raw) is not list or not raw or type(raw[0]) is not int:
        raise Failure(Code.BAD_MESSAGE, "a message is an array that begins with its wire id")
    schema = _by_id.get(raw[0])
    if schema is None:
        raise UnknownMessageError(Code.BAD_MESSAGE, f"no message has the wire id {raw[0]}")
    if allowed is not None and raw[0] not in allowed:
        raise _WrongTypeError(f"{schema.cls.__name__} is not expected here")
    values = raw[1:]
    if len(values) < schema.required:
        text = f"{schema.cls.__name__}: {len(values)} fields of {schema.required} required"
        raise Failure(Code.BAD_MESSAGE, text)
    try:
        if schema.plain is None or not all(map(contains, schema.plain, map(type, values))):
            values = _read_each(schema, values)
        return schema.cls(*values[: len(schema.names)])
    except ValueError as error:  # a __post_init__ that checks ranges
        raise Failure(Code.BAD_MESSAGE, f"{schema.cls.__name__}: {error}") from None


def _read_each(schema: _Schema, given: list[Any]) -> list[Any]:
    values = []
    for name, read, item in zip(schema.names, schema.readers, given, strict=False):
        try:
            values.append(read(item))
        except _WrongTypeError as error:
            text = f"{schema.cls.__name__}.{name}: {error}"
            raise Failure(Code.BAD_MESSAGE, text) from None
    return values


class _WrongTypeError(Exception):
    """A field's value does not fit its annotation."""


def _schema(cls: type, wire_id: int) -> _Schema:
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    required = sum(
        f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        for f in fields
    )
    names = tuple(f.name for f in fields)
    writers = [(i, _writer(hints[name])) for i, name in enumerate(names, 1)]
    plain = [_plain_types(hints[name]) for name in names]
    return _Schema(
        cls=cls,
        wire_id=wire_id,
        names=names,
        required=required,
        values_of=_values_getter(names),
        readers=tuple(_reader(hints[name]) for name in names),
        writers=tuple((i, writer) for i, writer in writers if writer is not None),
        plain=None if None in plain else tuple(p for p in plain if p is not None),
    )


def _values_getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda _: ()
    only = attrgetter(*names)
    return lambda value: (only(value),)


def _plain_types(hint: Any) -> frozenset[type] | None:
    """The types that a field takes just as msgpack gives them; None when it needs a reader."""
    members = _members(hint) or (hint,)
    plain = (int, bool, str, bytes, type(None))
    return frozenset(members) if all(m in plain for m in members) else None


def _members(hint: Any) -> tuple[Any, ...]:
    """The members of a union; none of anything else."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else ()


# -- readers: check a decoded value against an annotation, return what the field holds


def _reader(hint: Any) -> Reader:
    if hint in (int, bool, str, bytes):
        return _exact(hint)
    if hint is float:
        return _float
    if typing.get_origin(hint) is tuple:
        return _tuple_reader(typing.get_args(hint))
    if _members(hint):
        return _union_reader(_members(hint))
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


def _float(value: object) -> float:
    if type(value) is not float and type(value) is not int:
        raise _WrongTypeError(f"{type(value).__name__} where float is due")
    return float(value)


def _tuple_reader(args: tuple[Any, ...]) -> Reader:
    if len(args) != 2 or args[1] is not Ellipsis:
        raise TypeError("message fields use tuple[X, ...] or a message for fixed shapes")
    item = _reader(args[0])
    plain = _plain_types(args[0])

    def read(value: object) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _WrongTypeError(f"{type(value).__name__} where an array is due")
        if plain is not None and plain.issuperset(map(type, value)):
            return tuple(value)
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
    def read(value: object) -> enum.IntEnum:
        if type(value) is not int:
            raise _WrongTypeError(f"{type(value).__name__} where {cls.__name__} is due")
        try:
            return cls(value)
        except ValueError:
            raise _WrongTypeError(f"{value} is no {cls.__name__}") from None

    return read


def _message_reader(classes: tuple[type, ...]) -> Reader:
    allowed = frozenset(_by_class[cls].wire_id for cls in classes)
    return lambda value: _from_wire(value, allowed)


# -- writers: the msgpack form of a field; None where the value goes as it is


def _writer(hint: Any) -> Writer:
    if typing.get_origin(hint) is tuple:
        item = _writer(typing.get_args(hint)[0])
        return None if item is None else lambda values: [item(v) for v in values]
    if _members(hint):
        inner = [_writer(a) for a in _members(hint) if a is not type(None)]
        if inner[0] is None:
            return None
        return lambda v: None if v is None else _to_wire(v)
    if isinstance(hint, type) and hint in _by_class:
        return _to_wire
    if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
        return int
    return None
