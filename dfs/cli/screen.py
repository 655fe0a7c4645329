"""The one screen of `dfs status`: is the data safe, why not, and what is being done about it.

Pure: from the judgement and what the masters said to lines of text. However large the cluster, it
stays about a screen: long lists are cut and say where the rest is.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from dfs.cli import chunkservers, output
from dfs.cli.chunkservers import Chunkserver
from dfs.cli.health import Finding, Health, State
from dfs.cli.masters import Answer, best_view, is_member, leader_among
from dfs.cli.output import counted, duration, human_bytes
from dfs.messages.cluster import ClusterStatus, RepairStatus

FINDINGS_MAX = 16
SERVERS_MAX = 16
_COLOURS = {
    State.SAFE: "green",
    State.DEGRADED: "yellow",
    State.ENDANGERED: "red",
    State.UNAVAILABLE: "red",
}
_COPIED = frozenset({"endangered", "under-replicated", "draining", "misplaced", "rebalancing"})


def report(
    cluster: str, answers: Sequence[Answer], health: Health, now_ns: int, *, colour: bool = False
) -> list[str]:
    """What a person reads."""
    made = [_headline(cluster, health.state, colour), *_findings(health.findings)]
    leader = leader_among(answers)
    if leader is None or leader.status is None:
        return [*made, "", "masters", *_indented(_masters(answers))]
    servers = chunkservers.joined(leader.status, leader.repair)
    return [
        *made,
        "",
        *(repair_lines(leader.repair) if leader.repair is not None else ()),
        scrub_line(servers, now_ns),
        "",
        "masters",
        *_indented(_masters(answers)),
        "",
        "chunkservers",
        *_indented(_servers(servers)),
        "",
        _totals(leader.status, servers),
    ]


def _headline(cluster: str, state: State, colour: bool) -> str:
    word = state.name
    if colour:
        word = click.style(word, fg=_COLOURS[state], bold=True)
    return f"cluster {output.printable(cluster)}: {word}, {state.meaning}"


def _findings(findings: Sequence[Finding]) -> list[str]:
    shown = [
        f"  {'!' if finding.state > State.SAFE else '-'} {output.printable(finding.text)}"
        for finding in findings[:FINDINGS_MAX]
    ]
    if len(findings) > FINDINGS_MAX:
        shown.append(f"    and {len(findings) - FINDINGS_MAX} more: --json tells all")
    return ["", *shown] if shown else []


def _indented(texts: list[str]) -> list[str]:
    return [f"  {text}" for text in texts]


# -- repair


def repair_lines(repair: RepairStatus) -> list[str]:
    """What waits, what runs, how fast and for how long."""
    queued = [c for c in repair.classes if c.chunks]
    if not queued:
        return ["repair: nothing to do"]
    copied = [c for c in queued if c.name in _COPIED]
    made = [f"repair: {_pace(repair, sum(c.bytes for c in copied))}"]
    rows = [["class", "chunks", "running", "to copy"]]
    for c in queued:
        size = human_bytes(c.bytes) if c.bytes else "-"
        rows.append([output.printable(c.name), str(c.chunks), str(c.running), size])
    return made + _indented(output.table(rows, right=frozenset({1, 2, 3})))


def _pace(repair: RepairStatus, left_bytes: int) -> str:
    cap = f" of at most {human_bytes(repair.cap_bytes_per_s)}/s" if repair.cap_bytes_per_s else ""
    if not left_bytes:
        return "no data to copy"
    if repair.bytes_per_s < 1:
        return f"{human_bytes(left_bytes)} to copy, nothing copied lately{cap and ','}{cap}"
    rate = f"{human_bytes(int(repair.bytes_per_s))}/s{cap}"
    eta = "time left unknown" if repair.eta_s < 0 else f"about {duration(repair.eta_s)} left"
    return f"{human_bytes(left_bytes)} to copy at {rate}, {eta}"


def scrub_line(servers: Sequence[Chunkserver], now_ns: int) -> str:
    """How long ago everything had been read and verified, and what is being read now."""
    disks = [disk.report for s in servers for disk in s.disks if disk.report and disk.healthy]
    said = []
    never = sum(not disk.scrubbed_ns for disk in disks)
    if disks and never == len(disks):
        said.append("no disk has been read in full yet")
    elif disks:
        ago_s = (now_ns - min(d.scrubbed_ns for d in disks if d.scrubbed_ns)) / 1e9
        rest = f" except {never} of {len(disks)}, never yet" if never else ""
        said.append(f"every disk read in full in the last {duration(ago_s)}{rest}")
    running = [disk.scrub_fraction for disk in disks if disk.scrub_fraction > 0]
    if running:
        percent = int(100 * sum(running) / len(running))
        said.append(f"{len(running)} of {counted(len(disks), 'disk')} being read, {percent}% done")
    return f"scrub: {'; '.join(said) or 'no disk is known'}"


# -- machines


def roles(answers: Sequence[Answer]) -> list[str]:
    """What each master is: leader, follower, candidate; no member; not reachable."""
    leader, view = leader_among(answers), best_view(answers)
    return [_role(answer, leader, view) for answer in answers]


def _role(answer: Answer, leader: Answer | None, view: ClusterStatus | None) -> str:
    if answer.status is None:
        return "not reachable"
    if not is_member(answer.status, view):
        return "no member"
    if answer is leader:
        return "leader"
    own = [m.state for m in answer.status.masters if m.id == answer.status.master]
    return "follower" if "leader" in own else (own or ["follower"])[0]


def _masters(answers: Sequence[Answer]) -> list[str]:
    rows = [["id", "address", "role", "term", "applied"]]
    digests = any(a.status and a.status.state_digest for a in answers)
    for answer, role in zip(answers, roles(answers), strict=True):
        status = answer.status
        counts = [str(status.term), str(status.applied_index)] if status else ["", ""]
        id = str(status.master) if status else "?"
        rows.append([id, output.printable(answer.address), role, *counts])
    if digests:
        seen = ["state"] + [a.status.state_digest if a.status else "" for a in answers]
        rows = [[*row, digest] for row, digest in zip(rows, seen, strict=True)]
    return output.table(rows)


def _servers(servers: Sequence[Chunkserver]) -> list[str]:
    if not servers:
        return ["none has registered yet"]
    if len(servers) <= SERVERS_MAX:
        return chunkservers.server_table(servers)
    troubled = [
        s for s in servers if s.state != "in service" or not all(d.healthy for d in s.disks)
    ]
    alive = sum(server.alive for server in servers)
    made = [f"{len(servers)}, {alive} of them alive; `dfs node list` shows all, here"]
    if not troubled:
        return [f"{made[0].removesuffix(', here')}"]
    made[0] += " those with something about them"
    made += chunkservers.server_table(troubled[:SERVERS_MAX])
    hidden = len(troubled) - SERVERS_MAX
    return [*made, f"and {hidden} more"] if hidden > 0 else made


def _totals(status: ClusterStatus, servers: Sequence[Chunkserver]) -> str:
    free = human_bytes(sum(s.free_bytes for s in servers if s.alive))
    total = human_bytes(sum(s.total_bytes for s in servers if s.alive))
    return (
        f"{counted(status.inodes, 'inode')}, {counted(status.chunks, 'chunk')} "
        f"({status.under_replicated} with fewer copies than wanted), "
        f"{counted(status.sessions, 'session')}; {free} of {total} free before replication"
    )
