"""The registry of chunkservers, and what they have still to delete."""

from __future__ import annotations

from dfs.errors import Code, Failure
from dfs.messages.common import Done
from master import tables as names
from master.commands import ForgetDeletions, SetServer
from master.state import records
from master.state.records import key, key2
from master.state.transaction import Transaction

TEXT_MAX_CHARACTERS = 1024


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
