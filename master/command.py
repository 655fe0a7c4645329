"""`dfs master`: run one master, and administer the group of masters.

`run` is the process itself; the other verbs are clients of the leader.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.exits import Exit

if TYPE_CHECKING:
    from dfs.messages.cluster import ClusterStatus


@click.group()
def master() -> None:
    """Run a master, or change the group of masters."""


@master.command()
@click.option("--config", "config_path", required=True, help="This master's TOML file.")
@click.option("--verbose", is_flag=True, help="Log debug lines too.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Else as the file says.")
def run(config_path: str, verbose: bool, log_format: str | None) -> None:
    """Run one master in the foreground until SIGTERM."""
    from dfs.config import Master, load
    from dfs.errors import Failure
    from dfs.process import EXIT_CONFIG, log_to_stderr, run_process
    from dfs.runtime.real import RealEnv
    from master import server

    try:
        config = load(Master, config_path)
    except Failure as error:
        click.echo(f"dfs: {error.message}", err=True)
        sys.exit(EXIT_CONFIG)
    node = f"master-{config.id}"
    log_format = log_format or config.log_format
    log_to_stderr(node, verbose=verbose, log_format=log_format, limits=config.log)
    env = RealEnv(node, sync_delay_s=config.debug_sync_delay_ms / 1000)
    sys.exit(run_process(lambda stop: server.run(env, config, stop)))


@master.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@cluster_options
def list_masters(target: Target, as_json: bool) -> int:
    """Show the members of the group, as the leader sees them."""

    async def work(session: Session) -> int:
        from dfs.messages.cluster import GetClusterStatus

        status: ClusterStatus = await session.client.cluster_call(GetClusterStatus())
        _show(status, as_json)
        return Exit.OK

    return target.run(work)


def _show(status: ClusterStatus, as_json: bool) -> None:
    import dataclasses

    from dfs.cli import output

    if as_json:
        output.emit_json([dataclasses.asdict(m) for m in status.masters])
        return
    rows = [("id", "address", "role", "reachable")]
    for member in status.masters:
        reachable = "yes" if member.reachable else "no"
        rows.append((str(member.id), member.address, member.state, reachable))
    output.lines(output.table(rows))


@master.command()
@click.argument("id", type=click.IntRange(1))
@click.argument("address")
@cluster_options
def add(target: Target, id: int, address: str) -> int:
    """Add the running master ID at ADDRESS (host:port) to the group.

    Start it first, on an empty data directory, under an id that was never used before. Afterwards
    name it in the `masters` of client.toml and of the chunkservers' files.
    """
    from dfs.messages.cluster import AddMaster

    return _ask(target, AddMaster(id, address), f"master {id} at {address} added")


@master.command()
@click.argument("id", type=click.IntRange(1))
@cluster_options
def remove(target: Target, id: int) -> int:
    """Take master ID out of the group; its id is never used again."""
    from dfs.messages.cluster import RemoveMaster

    return _ask(target, RemoveMaster(id), f"master {id} removed")


@master.command()
@click.argument("id", type=click.IntRange(0), default=0)
@cluster_options
def transfer(target: Target, id: int) -> int:
    """Hand leadership to master ID, or to the most up-to-date other one."""
    from dfs.messages.cluster import TransferLeadership

    return _ask(target, TransferLeadership(id), "leadership handed over")


@master.command()
@cluster_options
def snapshot(target: Target) -> int:
    """Have the leader write a snapshot and shorten its log."""
    from dfs.messages.cluster import CreateSnapshot

    return _ask(target, CreateSnapshot(), "snapshot written")


@master.command()
@click.option("--config", "config_path", required=True, help="This master's TOML file.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def recover(config_path: str, yes: bool) -> int:
    """Make this stopped master a cluster of its own again: all others are gone for ever.

    Only when the masters that are left are no majority and the others' disks will not come back.
    What a majority had without this master is LOST: changes that were acknowledged to users may be
    among it. The masters of the old group are refused from then on. The old state is kept beside
    the new one. With fewer losses to be feared: start the others instead.
    """
    import trio

    from dfs.config import Master, load
    from dfs.runtime.real import RealEnv
    from master import refounding, survivor

    config, env = load(Master, config_path), RealEnv("recover")
    trio.run(survivor.check_alone, env, config)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("recover may lose what only the others had: add --yes.")
        click.confirm(survivor.QUESTION.format(id=config.id), abort=True, err=True)
    founded = trio.run(refounding.recover, env, config)
    click.echo(survivor.report(config_path, founded), err=True)
    return Exit.OK


def _ask(target: Target, message: object, told: str) -> int:
    async def work(session: Session) -> int:
        await session.client.cluster_call(message)
        click.echo(told)
        return Exit.OK

    return target.run(work)
