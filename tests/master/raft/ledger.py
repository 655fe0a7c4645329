"""A small state machine to test Raft with: counters, each addition made once.

Its command is `Add`, its answer `Sum`. It keeps, per client, the last number and answer, so that a
retry is not counted twice, and counts how often each numbered addition was really made.
"""

from __future__ import annotations

from typing import Any

import msgpack

from dfs.rpc import codec
from dfs.rpc.codec import message
from master.commands import CommandBatch
from master.tables import ANSWERS, COUNTERS, SETTINGS, Tables


@message(9200)
class Add:
    client: int
    number: int
    counter: bytes
    amount: int
    padding: bytes = b""


@message(9201)
class Sum:
    value: int


@message(9202)
class Explode:
    """A command that the machine cannot bear: its bug."""


class Ledger:
    """Applies batches of `Add`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def apply(self, command: bytes) -> list[Any]:
        batch = codec.decode_as(CommandBatch, command)
        return [self._add(codec.decode(c)) for c in batch.commands]

    def _add(self, add: Add) -> Sum:
        if isinstance(add, Explode):
            raise ZeroDivisionError("a bug in the machine")
        tables, client = self._tables, b"%d" % add.client
        stored = tables.get(ANSWERS, client)
        number, answer = msgpack.unpackb(stored) if stored else (0, 0)
        if add.number <= number:
            return Sum(answer)
        value = self.value(add.counter) + add.amount
        tables.put(COUNTERS, add.counter, b"%d" % value)
        tables.put(ANSWERS, client, msgpack.packb([add.number, value]))
        made = b"%d/%d" % (add.client, add.number)
        times = int(tables.get(SETTINGS, made) or b"0") + 1
        tables.put(SETTINGS, made, b"%d" % times)
        return Sum(value)

    def value(self, counter: bytes) -> int:
        return int(self._tables.get(COUNTERS, counter) or b"0")
