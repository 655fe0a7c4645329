"""`dfs status`: the cluster's health: leader, masters, servers, space."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import click

from dfs.cli import output
from dfs.cli.cluster import Target, cluster_options
from dfs.cli.exits import Exit
from dfs.cli.health import judge
from dfs.cli.masters import Answer, ask_all, leader_among
from dfs.messages.cluster import ClusterStatus, ServerStatus

ASK_TIMEOUT_S = 3.0


@click.command("status")
@cluster_options
@click.option("--digest", is_flag=True, help="Each master's hash of the whole state (slow).")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(target: Target, digest: bool, as_json: bool) -> int:
    """Show the cluster's health.

    Every master is asked by itself, so this works without a leader too. Exit code 0 when a leader
    answers, 3 when none does.
    """
    import trio

    from dfs.runtime.real import RealEnv

    settings = target.settings()
    timeout_s = target.timeout_s if digest else min(ASK_TIMEOUT_S, target.timeout_s)

    async def ask() -> list[Answer]:
        return await ask_all(RealEnv("cli"), settings, timeout_s, digest=digest)

    answers = trio.run(ask)
    if as_json:
        output.emit_json(as_dict(settings.cluster, answers))
    else:
        output.lines(report(settings.cluster, answers))
    return Exit.UNREACHABLE if leader_among(answers) is None else Exit.OK


def as_dict(cluster: str, answers: Sequence[Answer]) -> dict[str, Any]:
    """What `--json` shows: the health, the leader's view, and each master's own."""
    health, leader = judge(answers), leader_among(answers)
    view = dataclasses.asdict(leader.status) if leader and leader.status else None
    return {
        "cluster": cluster,
        "state": health.state,
        "problems": list(health.problems),
        "leader": view,
        "masters": [
            {
                "address": answer.address,
                "leader": leader is not None and answer is leader,
                "problem": answer.problem,
                "status": dataclasses.asdict(answer.status) if answer.status else None,
            }
            for answer in answers
        ],
    }


def report(cluster: str, answers: Sequence[Answer]) -> list[str]:
    """What a person reads."""
    health, leader = judge(answers), leader_among(answers)
    made = [f"cluster {cluster}: {health.state}"]
    made += [f"  ! {output.printable(problem)}" for problem in health.problems]
    made += ["", "masters", *_indented(_masters(answers, leader))]
    if leader is not None and leader.status is not None:
        made += ["", "chunkservers", *_indented(_servers(leader.status.servers))]
        made += ["", *_totals(leader.status)]
    return made


def _indented(texts: list[str]) -> list[str]:
    return [f"  {text}" for text in texts]


def _masters(answers: Sequence[Answer], leader: Answer | None) -> list[str]:
    rows = [["id", "address", "role", "term", "applied"]]
    digests = any(a.status and a.status.state_digest for a in answers)
    for answer in answers:
        status = answer.status
        if status is None:
            rows.append(["?", answer.address, "not reachable", "", ""])
        else:
            role = "leader" if answer is leader else "follower"
            counts = [str(status.term), str(status.applied_index)]
            rows.append([str(status.master), answer.address, role, *counts])
    if digests:
        seen = ["state"] + [a.status.state_digest if a.status else "" for a in answers]
        rows = [[*row, digest] for row, digest in zip(rows, seen, strict=True)]
    return output.table(rows)


def _servers(servers: Sequence[ServerStatus]) -> list[str]:
    rows = [["id", "address", "zone", "alive", "replicas", "used", "free", "disks"]]
    for server in servers:
        total = sum(disk.total_bytes for disk in server.disks)
        free = sum(disk.free_bytes for disk in server.disks)
        healthy = sum(disk.healthy for disk in server.disks)
        rows.append(
            [
                str(server.id),
                server.address,
                server.zone,
                "yes" if server.alive else "NO",
                str(server.replicas),
                output.human_bytes(max(0, total - free)),
                output.human_bytes(free),
                f"{healthy}/{len(server.disks)}",
            ]
        )
    return output.table(rows, right=frozenset({4, 5, 6}))


def _totals(status: ClusterStatus) -> list[str]:
    return [
        f"{status.inodes} inodes, {status.chunks} chunks "
        f"({status.under_replicated} lack replicas), {status.sessions} sessions"
    ]
