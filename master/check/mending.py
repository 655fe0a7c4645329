"""Having findings mended: the metadata by commands of the log, replicas by the leader's own repair.

Nothing is lost by it. A replica that is not in order is reported to the leader once more, as its
server would: settling and copying are the repair's. A replica that is not wanted is noted to be
deleted, after another look, and goes after the usual grace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from dfs.errors import Failure
from dfs.messages.cluster import ReplicaReport, ReportReplicas, ReportSuspicions, Suspicion
from dfs.messages.common import Refused
from master import tables as names
from master.check.audit import Audit
from master.check.findings import Discard, Found, Kind, Mend, Settle, put
from master.commands import MendRecords
from master.raft import RaftNode
from master.state import records
from master.state.records import key2

log = logging.getLogger(__name__)

Tell = Callable[[object], Any]  # has one of this leader's own handlers take a message


class Mending:
    """Mends findings of one audit. `tell` reaches the handlers of chunkservers' reports."""

    def __init__(self, raft: RaftNode, audit: Audit, tell: Tell) -> None:
        self._raft, self._audit, self._tell = raft, audit, tell

    async def run(self, numbers: Sequence[int]) -> None:
        """Mend these, one after the other; what cannot be mended becomes a finding."""
        audit = self._audit
        audit.phase, audit.done, audit.total = "mending", 0, len(numbers)
        for number in numbers:
            mend = audit.ledger.mend_of(number)
            problem = "" if mend is None else await self._mend(mend)
            if problem:
                text = f"finding {number} was not mended: {problem}"
                log.info("fsck: %s", text)
                audit.ledger.add(Found(Kind.NOT_MENDED, text))
                audit.ledger.publish()
            audit.done += 1
            audit.tell()
        audit.finished = True
        audit.tell()

    async def _mend(self, mend: Mend) -> str:
        """Why it was not possible, "" when it was."""
        try:
            match mend:
                case Settle():
                    return await self._settle(mend)
                case Discard():
                    return await self._discard(mend)
                case _:
                    return await self._commit(mend)
        except Failure as error:
            return error.message

    async def _commit(self, command: object) -> str:
        answer = await self._raft.propose(command)
        return answer.message if isinstance(answer, Refused) else ""

    async def _settle(self, mend: Settle) -> str:
        found, row = await self._audit.look_at(mend.handle)
        if not any(f.server == mend.server and isinstance(f.mend, Settle) for f in found):
            return ""  # it has been seen to meanwhile
        if any(f.kind is Kind.DIFFERING_REPLICA for f in found):
            suspicion = Suspicion(mend.handle, mend.version)
            await self._told(ReportSuspicions(mend.server, (suspicion,)))
        replica = row.listed.get(mend.server)
        report = ReplicaReport(mend.handle, 0, 0)
        if replica is not None and (replica.digest or not row.verified):
            report = ReplicaReport(
                mend.handle,
                replica.version,
                replica.length_bytes,
                replica.state,
                bool(replica.damaged_blocks),
            )
        await self._told(ReportReplicas(mend.server, (report,), last=True))
        return ""

    async def _told(self, message: object) -> None:
        answer = self._tell(message)
        if hasattr(answer, "__await__"):
            await answer

    async def _discard(self, mend: Discard) -> str:
        found, _ = await self._audit.look_at(mend.handle)
        if not any(f.mend == mend for f in found):
            return ""
        due = records.encode_deletion(self._audit.now_ns())
        change = put(names.DELETIONS, key2(mend.server, mend.handle), None, due)
        return await self._commit(MendRecords((change,)))
