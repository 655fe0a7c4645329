"""The judgement over a cluster's status: how safe is the data, and why.

Pure functions of what the masters said. The states, of which the worst that applies is the
cluster's:

    unavailable  no master leads: nothing can be read or changed.
    endangered   some chunk has one complete live replica left though more are wanted, or none.
    degraded     everything can be read and is there more than once (unless once is all that was
                 wanted), but something lacks: copies, a master, a server that holds data, a disk
                 with data on it, blocks that match their checksums, room.
    safe         nothing lacks.

Each thing found is a `Finding` with a code that stays, for programs, and a sentence for people.
What belongs to no state but should be known (a drain, a maintenance, an empty server that may go)
is a finding of state safe, a note. A dead server or a failed disk that holds no chunk any more is
a note too: the data does not need it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dfs.cli import chunkservers
from dfs.cli.chunkservers import Chunkserver, Disk
from dfs.cli.masters import Answer, best_view, is_member, leader_among
from dfs.cli.output import counted, duration
from dfs.messages.cluster import ClusterStatus, RepairStatus, ServerMode

DISK_FULL_PERCENT = 95

_LINES = {  # what a state means, in a line
    "safe": "every chunk has all its copies",
    "degraded": "all data can be read, but something lacks",
    "endangered": "data has its last copy left, or cannot be read",
    "unavailable": "nothing can be read or changed",
}


class State(enum.IntEnum):
    SAFE = 0
    DEGRADED = 1
    ENDANGERED = 2
    UNAVAILABLE = 3

    @property
    def word(self) -> str:
        return self.name.lower()

    @property
    def meaning(self) -> str:
        return _LINES[self.word]


@dataclass(frozen=True)
class Finding:
    """One thing to be known. `state` is the best state that the cluster can be in with it."""

    state: State
    code: str
    text: str


@dataclass(frozen=True)
class Health:
    """The judgement; the worst findings first."""

    state: State
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.state > State.SAFE)

    @property
    def notes(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.state is State.SAFE)


def judge(answers: Sequence[Answer]) -> Health:
    """The health of the cluster whose masters gave these answers."""
    leader, view = leader_among(answers), best_view(answers)
    found = [finding for answer in answers for finding in _master(answer, view)]
    if leader is None or leader.status is None:
        found.append(_without_leader(answers, view))
    else:
        status, repair = leader.status, leader.repair
        found += [*_missed(answers, status), *_recovering(status)]
        found += [*_repair(leader), *_chunks(status, repair)]
        for server in chunkservers.joined(status, repair):
            found += _server(server)
    found.sort(key=lambda finding: -finding.state)
    return Health(found[0].state if found else State.SAFE, tuple(found))


# -- masters


def _without_leader(answers: Sequence[Answer], view: ClusterStatus | None) -> Finding:
    told = sum(a.status is not None and is_member(a.status, view) for a in answers)
    members = len(view.masters) if view is not None else len(answers)
    text = "no master leads"
    if told <= members // 2:
        text += f": {told} of {members} masters answer, {members // 2 + 1} are needed"
    return Finding(State.UNAVAILABLE, "NO_LEADER", text)


def _missed(answers: Sequence[Answer], leader: ClusterStatus) -> Iterator[Finding]:
    """Masters that the leader misses; not those again that did not answer us either."""
    told = [answer.address for answer in answers if answer.status is None]
    missed = [m for m in leader.masters if not m.reachable and m.id != leader.master]
    for master in missed:
        if master.address not in told:
            text = f"master {master.id} at {master.address}: not reachable from the leader"
            yield Finding(State.DEGRADED, "MASTER_UNREACHABLE", text)
    members = len(leader.masters)
    if missed and members - len(missed) == members // 2 + 1:
        text = f"{members - len(missed)} of {members} masters are up: one more loss stops all"
        yield Finding(State.DEGRADED, "BARE_MAJORITY", text)


def _recovering(status: ClusterStatus) -> Iterator[Finding]:
    if status.recovering:
        text = f"recovering from {status.recovering}: nothing can be changed (dfs meta recovered)"
        yield Finding(State.DEGRADED, "RECOVERING", text)


def _master(answer: Answer, view: ClusterStatus | None) -> Iterator[Finding]:
    if answer.status is not None:
        if not is_member(answer.status, view):
            text = f"master {answer.status.master} at {answer.address} runs but is no member: "
            text += "stop it and take it out of client.toml, or add it"
            yield Finding(State.SAFE, "NO_MEMBER", text)
    elif view is None or any(m.address == answer.address for m in view.masters):
        text = f"master at {answer.address}: {answer.problem}"
        yield Finding(State.DEGRADED, "MASTER_SILENT", text)
    else:
        text = f"client.toml names a master at {answer.address}, which is no member and silent"
        yield Finding(State.SAFE, "NO_MEMBER", text)


# -- chunks


def _repair(leader: Answer) -> Iterator[Finding]:
    if leader.repair is None and leader.repair_problem:
        text = f"the leader does not tell about repair: {leader.repair_problem}"
        yield Finding(State.SAFE, "REPAIR_UNKNOWN", text)


def _chunks(status: ClusterStatus, repair: RepairStatus | None) -> Iterator[Finding]:
    if status.gathering:  # who has not registered yet is not dead, so no chunk is in danger by it
        alive = sum(server.alive for server in status.servers)
        text = f"a new leader gathers its chunkservers: {alive} of {len(status.servers)} are there"
        yield Finding(State.DEGRADED, "GATHERING", text)
        return
    queued = {c.name: c.chunks for c in repair.classes} if repair is not None else {}
    # The leader counts by live servers, its queue by what the replicas are worth: the worse holds.
    unreadable = max(status.unreadable, repair.unreadable if repair is not None else 0)
    endangered = max(status.endangered, queued.get("endangered", 0))
    fewer = status.under_replicated - status.endangered - status.unreadable
    lacking = max(fewer, queued.get("under-replicated", 0))
    for count, state, code, text in (
        (unreadable, State.ENDANGERED, "UNREADABLE", "cannot be read: no complete copy is up"),
        (endangered, State.ENDANGERED, "LAST_COPY", "down to the last copy"),
        (lacking, State.DEGRADED, "LACKS_COPIES", "with fewer copies than wanted"),
        (
            queued.get("settling", 0),
            State.DEGRADED,
            "SETTLING",
            "whose copies are being made equal",
        ),
        (queued.get("misplaced", 0), State.DEGRADED, "MISPLACED", "with two copies in one zone"),
    ):
        if count > 0:
            yield Finding(state, code, f"{counted(count, 'chunk')} {text}")
    if repair is not None and repair.stuck:
        yield Finding(State.DEGRADED, "STUCK", f"repair cannot go on: {repair.stuck}")


# -- chunkservers


def _server(server: Chunkserver) -> Iterator[Finding]:
    if not server.alive:
        if not server.awaited:
            yield _dead(server)
        return
    if server.mode == ServerMode.MAINTENANCE:
        left_s = server.repair.until_s if server.repair else 0
        left = f", {duration(left_s)} left" if left_s > 0 else " until it is taken back"
        yield Finding(State.SAFE, "MAINTENANCE", f"{server.name}: in maintenance{left}")
    elif server.mode == ServerMode.DRAINING:
        yield _draining(
            server.name, server.replicas or 0, f"stop it, `dfs node remove {server.id}`"
        )
    for disk in server.disks:
        yield from _disk(server, disk)


def _dead(server: Chunkserver) -> Finding:
    repair, holds = server.repair, server.replicas
    if holds == 0:
        text = f"dead, holds nothing any more: `dfs node remove {server.id}` strikes it"
        return Finding(State.SAFE, "EMPTY_SERVER_DEAD", f"{server.name}: {text}")
    if repair is None:
        return Finding(State.DEGRADED, "SERVER_DEAD", f"{server.name}: not alive")
    chunks = counted(repair.replicas, "chunk")
    if server.mode == ServerMode.MAINTENANCE:
        left = f"for {duration(repair.until_s)} more" if repair.until_s > 0 else "for it to be back"
        text = f"{server.name}: down for maintenance with {chunks}; repair waits {left}"
        return Finding(State.DEGRADED, "SERVER_DOWN_FOR_MAINTENANCE", text)
    when = "is under way"
    if repair.repaired_in_s > 0:
        when = f"starts in {duration(repair.repaired_in_s)}, unless it returns"
    dead = f"dead for {duration(repair.dead_for_s)}"
    text = f"{server.name}: {dead}; repair of its {chunks} {when}"
    return Finding(State.DEGRADED, "SERVER_DEAD", text)


def _disk(server: Chunkserver, disk: Disk) -> Iterator[Finding]:
    name, report = f"{server.name}: disk {disk.path}", disk.report
    if report is None:
        if disk.replicas:
            yield Finding(State.DEGRADED, "DISK_FAILED", f"{name}: not reported by its server")
        return
    if not report.healthy:
        state = State.DEGRADED if disk.replicas else State.SAFE
        code = "DISK_FAILED" if disk.replicas else "EMPTY_DISK_FAILED"
        holds = f"{counted(disk.replicas, 'chunk')} to be repaired"
        then = holds if disk.replicas else "holds nothing any more, replace it"
        yield Finding(state, code, f"{name}: {report.problem or 'failed'}; {then}")
        return
    if report.damaged_blocks:
        text = f"{name}: {counted(report.damaged_blocks, 'damaged block')} to be mended"
        yield Finding(State.DEGRADED, "DAMAGED_BLOCKS", text)
    used, total = report.total_bytes - report.free_bytes, report.total_bytes
    if 100 * used > DISK_FULL_PERCENT * total:
        text = f"{name}: {100 * used // total}% full"
        yield Finding(State.DEGRADED, "DISK_NEARLY_FULL", text)
    if report.quarantined_files:
        text = f"{name}: {counted(report.quarantined_files, 'file')} in quarantine"
        yield Finding(State.SAFE, "QUARANTINE", text)
    if disk.draining:
        yield _draining(name, disk.replicas, "it may be taken out")


def _draining(name: str, left: int, then: str) -> Finding:
    if left:
        return Finding(State.SAFE, "DRAINING", f"{name}: draining, {counted(left, 'chunk')} to go")
    return Finding(State.SAFE, "DRAINED", f"{name}: drained and empty: {then}")
