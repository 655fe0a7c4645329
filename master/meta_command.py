"""`dfs meta`: dumps of the metadata, and what is made of them.

`dump`, `snapshots` and `recovered` talk to running masters; `load`, `check` and `dump --offline`
work on files of this machine, without any. Recovery of one surviving master is `dfs master
recover`. What to do when: docs/operations-metadata.md.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from dfs.cli import output
from dfs.cli.cluster import Target, cluster_options
from dfs.cli.exits import Exit

if TYPE_CHECKING:
    from dfs.config import Master
    from dfs.messages.recovery import RecoveryStatus
    from dfs.runtime import Env

R = TypeVar("R")
STDOUT = "-"


@click.group()
def meta() -> None:
    """Dump, check and load the cluster's metadata."""


@meta.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--offline", metavar="MASTER.TOML", help="Of this stopped master's data directory.")
@click.option("--master", metavar="HOST:PORT", help="Of this running master, not of the leader.")
@click.option("--snapshot", metavar="NAME", help="Fetch this one (see `dfs meta snapshots`).")
@cluster_options
def dump(
    target: Target, file: str, offline: str | None, master: str | None, snapshot: str | None
) -> int:
    """Write the whole metadata, of one moment, to FILE (- for standard output).

    The leader, or the master named, makes a dump and verifies it; then it is copied here and
    verified again. Without a leader the master that is furthest is asked.
    """
    from master import meta_work

    if offline and (master or snapshot):
        raise click.UsageError("--offline needs no running master.")
    if offline:
        config = _master_config(offline)
        report = _run(lambda env: meta_work.dump_offline(env, config, file))
    else:
        settings, timeout_s = target.settings(), target.timeout_s
        fetch = meta_work.Fetch(settings, timeout_s, master or "", snapshot or "", _tell)
        report = _run(lambda env: meta_work.dump_online(env, fetch, file))
    _tell(report)
    return Exit.OK


@meta.command()
@click.argument("file", type=click.Path(dir_okay=False), required=False)
@click.option("--offline", metavar="MASTER.TOML", help="The state of this stopped master instead.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def check(file: str | None, offline: str | None, as_json: bool) -> int:
    """Read the dump FILE, or a master's state, from beginning to end and verify all of it."""
    from master import meta_work

    if (file is None) == (offline is None):
        raise click.UsageError("Give a FILE, or --offline MASTER.TOML.")
    if offline is not None:
        config = _master_config(offline)
        file = config.data_dir
        facts = _run(lambda env: meta_work.check_offline(env, config))
    else:
        file = str(file)
        facts = _run(lambda env: meta_work.check(env, file))
    if as_json:
        output.emit_json(facts)
    else:
        output.lines(meta_work.described(file, facts))
    return Exit.OK


@meta.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--config", "config_path", required=True, help="The new master's TOML file.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def load(file: str, config_path: str, yes: bool) -> int:
    """Found a new group of masters with the state of the dump FILE.

    For a cluster whose masters are all gone. Works in the empty data directory of a master that
    does not run; that master is then the only member of the group, and `dfs master add` brings it
    to more. What was changed after the dump was made is lost. Nothing is changed when the dump
    turns out to be damaged. Afterwards see `dfs meta recovered`.
    """
    from master import refounding

    config = _master_config(config_path)
    _confirm(
        yes,
        f"Master {config.id} in {config.data_dir} becomes a new group of masters of cluster "
        f"{config.cluster!r}, with the state of {file}. Masters of the old group will be refused "
        "from then on. Go on?",
    )
    founded = _run(lambda env: refounding.load(env, config, file))
    _tell(
        f"loaded the state at {founded.applied}: {founded.inodes} inodes, {founded.chunks} chunks"
    )
    _tell(_NEXT.format(config=config_path))
    return Exit.OK


_NEXT = """next:
  dfs master run --config {config}      start it; the chunkservers come by themselves
  dfs meta recovered                    see what they have, then end the recovery
  dfs master add ID ADDRESS             more masters, each on an empty data directory"""


@meta.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@cluster_options
def snapshots(target: Target, as_json: bool) -> int:
    """List the dumps that each master keeps, with their sizes.

    Exit code 4 when some master could not be asked.
    """
    from master import meta_work

    settings = target.settings()
    found = _run(lambda env: meta_work.snapshots(env, settings, min(3.0, target.timeout_s)))
    if as_json:
        output.emit_json(found)
    else:
        output.lines(meta_work.listed(found))
    return Exit.PARTIAL if any(master["problem"] for master in found) else Exit.OK


@meta.command()
@click.option("-y", "--yes", is_flag=True, help="End the recovery without asking.")
@click.option("--show", is_flag=True, help="Only show how far it is.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@cluster_options
def recovered(target: Target, yes: bool, show: bool, as_json: bool) -> int:
    """Show what the chunkservers have after a load or a recovery, and end it.

    From then on the cluster can be changed again, and replicas of chunks that the metadata does not
    know are deleted after their grace period: so every chunkserver should have reported.
    """
    from master import meta_work

    settings, timeout_s = target.settings(), target.timeout_s

    def ask(finish: bool) -> RecoveryStatus:
        return _run(lambda env: meta_work.recovery(env, settings, timeout_s, finish=finish))

    status = ask(False)
    if as_json:
        output.emit_json(dataclasses.asdict(status))
    else:
        output.lines(meta_work.recovery_report(status))
    if show or not status.under_way:
        return Exit.OK
    if meta_work.unreported(status) and yes:
        _tell("some chunkservers have not reported; ended all the same, as --yes says")
    _confirm(yes, "End the recovery?")
    ask(True)
    _tell("the recovery is over; the cluster can be changed again")
    return Exit.OK


def _master_config(path: str) -> Master:
    from dfs.config import Master, load

    return load(Master, path)


def _run(work: Callable[[Env], Awaitable[R]]) -> R:
    import trio

    from dfs.runtime.real import RealEnv

    return trio.run(work, RealEnv("meta"))


def _confirm(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to be asked: add --yes.")
    click.confirm(question, abort=True, err=True)


def _tell(text: str) -> None:
    """A step of the work, on standard error."""
    click.echo(text, err=True)
