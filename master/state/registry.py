"""The registry of chunkservers, what they have still to delete, and what operators said of them."""

from __future__ import annotations

from dfs.errors import Code, Failure
from dfs.messages.cluster import ServerMode
from dfs.messages.common import Done
from master import tables as names
from master.commands import ForgetDeletions, SetMode, SetServer, StrikeServer
from master.state import records
from master.state.records import Mode, key, key2
from master.state.transaction import Transaction

TEXT_MAX_CHARACTERS = 1024
PATH_MAX_BYTES = 480  # the key must be one of LMDB


def set_server(transaction: Transaction, command: SetServer) -> Done:
    """Raises BAD_MESSAGE for an id out of range or a text without end."""
    too_long = max(len(command.address), len(command.zone)) > TEXT_MAX_CHARACTERS
    if not 0 <= command.server < records.SERVER_END or too_long:
        raise Failure(Code.BAD_MESSAGE, f"chunkserver {command.server} cannot be registered")
    value = records.encode_server(command.address, command.zone)
    transaction.tables.put(names.SERVERS, key(command.server), value)
    return Done()


def forget_deletions(transaction: Transaction, command: ForgetDeletions) -> Done:
    """Numbers that cannot be are ignored, as unknown ones are."""
    if 0 <= command.server < records.SERVER_END:
        for handle in command.handles:
            if 0 < handle < records.NUMBER_END:
                transaction.tables.delete(names.DELETIONS, key2(command.server, handle))
    return Done()


def set_mode(transaction: Transaction, command: SetMode) -> Done:
    """Raises BAD_MESSAGE for an unknown server, and for what cannot be."""
    server, tables = command.server, transaction.tables
    known = 0 <= server < records.SERVER_END and tables.get(names.SERVERS, key(server)) is not None
    valid = command.mode in tuple(ServerMode) and 0 <= command.until_ns <= records.TIME_MAX_NS
    if not known or not valid or len(command.disk.encode()) > PATH_MAX_BYTES:
        text = f"mode {command.mode} of chunkserver {server} {command.disk!r}"
        raise Failure(Code.BAD_MESSAGE, f"{text} cannot be set")
    mode_key = key(server) + command.disk.encode()
    if command.mode == ServerMode.IN_SERVICE:
        tables.delete(names.MODES, mode_key)
    else:
        mode = Mode(command.mode, transaction.now_ns, command.until_ns)
        tables.put(names.MODES, mode_key, mode.encode())
    return Done()


def strike_server(transaction: Transaction, command: StrikeServer) -> Done:
    """Raises BAD_MESSAGE while a chunk has a replica there."""
    server, tables = command.server, transaction.tables
    if not 0 <= server < records.SERVER_END:
        return Done()
    if any(server in servers for _, servers in transaction.replica_sets()):
        text = f"chunkserver {server} is in the replica sets of chunks"
        raise Failure(Code.BAD_MESSAGE, text)
    tables.delete(names.SERVERS, key(server))
    for table in (names.MODES, names.DELETIONS):
        for found in [k for k, _ in tables.scan(table, *records.range_of(server))]:
            tables.delete(table, found)
    return Done()
