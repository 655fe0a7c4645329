"""`dfs local`: start, stop and look at a whole cluster on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from dfs.cli import output
from dfs.cli.exits import Exit
from dfs.local.layout import MOUNT, Root, default_root
from dfs.local.state import CHUNKSERVERS_MAX, MASTERS_MAX

if TYPE_CHECKING:
    from dfs.local.report import Row
    from dfs.local.state import State
    from dfs.runtime import Env

R = TypeVar("R")

_root_option = click.option(
    "--root",
    "root_path",
    metavar="DIR",
    help="Where the cluster lives (default: ~/.local/share/dfs).",
)


@click.group("local")
def command() -> None:
    """Start, stop and look at a cluster on this machine.

    Everything lives under one directory, the root: data, configuration, logs, and the client.toml
    that the other commands take as --config.
    """


@command.command("up")
@_root_option
@click.option("--mount", metavar="DIR", help="Mount at this directory too; remembered.")
@click.option("--masters", type=click.IntRange(1, MASTERS_MAX), help="At the first start; 3.")
@click.option(
    "--chunkservers", type=click.IntRange(1, CHUNKSERVERS_MAX), help="3; more may follow later."
)
@click.option(
    "--base-port", type=click.IntRange(1024, 65_000), help="The first port; else free ones."
)
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=1), default=60.0, hidden=True)
def up_command(
    root_path: str | None,
    mount: str | None,
    masters: int | None,
    chunkservers: int | None,
    base_port: int | None,
    timeout_s: float,
) -> int:
    """Start what does not run, mount what is not mounted.

    Run it again after anything was stopped or killed: it brings back exactly that.
    """
    from dfs.local.up import Wish, up

    root = _root(root_path)
    directory = os.path.realpath(mount) if mount else None
    wish = Wish(masters, chunkservers, base_port, directory, timeout_s)
    _greet(root, _run(lambda env: up(env, root, wish, output.remark)))
    return Exit.OK


@command.command("down")
@_root_option
@click.option("--force", is_flag=True, help="Detach mounts that are in use, too.")
@click.option("--purge", is_flag=True, help="Remove the root with all data.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before removing.")
def down_command(root_path: str | None, force: bool, purge: bool, yes: bool) -> int:
    """Unmount and stop everything; the data stays unless --purge."""
    from dfs.local import down

    root = _root(root_path)
    if purge and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("--purge removes all data of the cluster: add --yes.")
        click.confirm(f"Remove {root.path} with all data in it?", abort=True, err=True)
    _run(lambda env: down.down(env, root, output.remark, force=force))
    if purge:
        down.purge(root)
        output.remark(f"{root.path} is removed")
    return Exit.OK


@command.command("status")
@_root_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status_command(root_path: str | None, as_json: bool) -> int:
    """Show every process and mount."""
    from dfs.local import report

    root = _root(root_path)
    rows = _run(lambda env: report.report(env, root))
    if as_json:
        output.emit_json(report.as_dict(rows))
    else:
        output.lines([f"root {root.path}", "", *_table(rows)])
    return Exit.OK


def _root(path: str | None) -> Root:
    return Root(os.path.realpath(path or default_root()))


def _run(work: Callable[[Env], Awaitable[R]]) -> R:
    import trio

    from dfs.runtime.real import RealEnv

    return trio.run(work, RealEnv("local"))


def _greet(root: Root, state: State) -> None:
    """What stands now, and how to use it."""
    output.line(f"{state.masters} masters and {state.chunkservers} chunkservers run.")
    for directory in state.mounts.values():
        output.line(f"mounted at {directory}")
    if root.path != os.path.realpath(default_root()):
        output.line(f"export DFS_CONFIG={root.client_config}")


def _table(rows: list[Row]) -> list[str]:
    made = [["process", "pid", "address", "state", "metrics"]]
    for row in rows:
        name = "mounted" if row.role == MOUNT else "leader" if row.leader else "running"
        pid, state = str(row.pid or "-"), name if row.alive else "NOT RUNNING"
        metrics = f"http://{row.metrics}/metrics" if row.metrics else ""
        made.append([f"{row.role}-{row.id}", pid, row.address, state, metrics])
    return output.table(made, right=frozenset({1}))
