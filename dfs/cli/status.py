"""`dfs status`: is the data safe, why not, and what is being done about it."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from dfs.cli import chunkservers, output, screen
from dfs.cli.cluster import Target, cluster_options
from dfs.cli.exits import Exit
from dfs.cli.health import Finding, Health, State, judge
from dfs.cli.masters import Answer, ask_all, leader_among

ASK_TIMEOUT_S = 3.0


@click.command("status")
@cluster_options
@click.option("--check", is_flag=True, help="Exit code 1 unless all is safe; for scripts.")
@click.option("--digest", is_flag=True, help="Each master's hash of the whole state (slow).")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(target: Target, check: bool, digest: bool, as_json: bool) -> int:
    """Show whether the data is safe, why not, and what is being done about it.

    SAFE: nothing lacks. DEGRADED: all data can be read, but copies, servers, masters or room lack.
    ENDANGERED: some data has its last copy left, or cannot be read now. UNAVAILABLE: no master
    leads.

    Every master is asked by itself, so this works without a leader too. Exit code 0 when a leader
    answers, 3 when none does; with --check 1 when the state is not safe.
    """
    import trio

    from dfs.runtime.real import RealEnv

    settings = target.settings()
    timeout_s = target.timeout_s if digest else min(ASK_TIMEOUT_S, target.timeout_s)

    env = RealEnv("cli")

    async def ask() -> list[Answer]:
        return await ask_all(env, settings, timeout_s, digest=digest, repair=True)

    answers = trio.run(ask)
    health = judge(answers)
    if as_json:
        output.emit_json(as_dict(settings.cluster, answers, health))
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        now_ns = env.clock.wall_ns()
        output.lines(screen.report(settings.cluster, answers, health, now_ns, colour=colour))
    return exit_code(health, check=check)


def exit_code(health: Health, *, check: bool) -> Exit:
    """Whether the question could be answered or, to `check`, whether the answer is a good one."""
    if health.state is State.UNAVAILABLE:
        return Exit.UNREACHABLE
    return Exit.FAILURE if check and health.state is not State.SAFE else Exit.OK


def as_dict(cluster: str, answers: Sequence[Answer], health: Health) -> dict[str, Any]:
    """What `--json` shows: the health, the leader's view, and each master's own."""
    leader = leader_among(answers)
    view = leader.status if leader else None
    repair = leader.repair if leader else None
    servers = chunkservers.joined(view, repair) if view else ()
    return {
        "cluster": cluster,
        "state": health.state.word,
        "problems": [_finding(problem) for problem in health.problems],
        "notes": [_finding(note) for note in health.notes],
        "leader": dataclasses.asdict(view) if view else None,
        "repair": dataclasses.asdict(repair) if repair else None,
        "chunkservers": [chunkservers.as_dict(server) for server in servers],
        "masters": [
            {
                "address": answer.address,
                "leader": answer is leader,
                "role": role,
                "problem": answer.problem,
                "status": dataclasses.asdict(answer.status) if answer.status else None,
            }
            for answer, role in zip(answers, screen.roles(answers), strict=True)
        ],
    }


def _finding(finding: Finding) -> dict[str, str]:
    return {"state": finding.state.word, "code": finding.code, "text": finding.text}
