"""`dfs node`: list chunkservers, drain them, take them down for maintenance, strike them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from dfs.cli import output
from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.exits import Exit
from dfs.cli.output import counted, duration

if TYPE_CHECKING:
    from dfs.cli.chunkservers import Chunkserver
    from dfs.cli.overview import Overview

_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(_ctx: click.Context, _parameter: click.Parameter, value: str) -> float:
    """`90`, `90s`, `30m`, `2h`, `1d` in seconds. Raises click.BadParameter."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a time such as 90s, 30m, 2h or 1d.")
    return float(found[1]) * _UNITS_S[found[2]]


_id = click.argument("id", type=click.IntRange(1))


@click.group("node")
def command() -> None:
    """List chunkservers, drain them, take them down for maintenance, strike them."""


@command.command("list")
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="As JSON: one array.")
def list_command(target: Target, as_json: bool) -> int:
    """Show every chunkserver: its state, what it holds, its space.

    States: in service; draining, then drained; maintenance; DEAD; awaited, by a leader that is new.
    A `?` under chunks: it is dead and the leader does not tell.
    """

    async def work(session: Session) -> int:
        from dfs.cli.chunkservers import as_dict, server_table
        from dfs.cli.overview import look

        servers = (await look(session)).servers
        if as_json:
            output.emit_json([as_dict(server) for server in servers])
        else:
            output.lines(server_table(servers))
        return Exit.OK

    return target.run(work)


@command.command("drain")
@cluster_options
@_id
@click.option("--wait", is_flag=True, help="Return when it is empty, showing progress.")
def drain_command(target: Target, id: int, wait: bool) -> int:
    """Move all chunks of chunkserver ID elsewhere; it gets no new ones.

    Every chunk keeps all its copies meanwhile. Ends by `dfs node back ID`, or when the empty server
    is stopped and removed. With --wait, Ctrl-C ends the waiting and not the drain.
    """

    async def work(session: Session) -> int:
        from dfs.cli.chunkservers import find
        from dfs.cli.drain import Drained, drain
        from dfs.cli.overview import look

        view = await look(session)
        server = find(view.servers, id)
        _warn_of_too_few(view, server)
        return await drain(session, Drained(id), server.replicas or 0, wait=wait)

    return target.run(work)


@command.command("maintenance")
@cluster_options
@_id
@click.option(
    "--for",
    "seconds",
    callback=seconds_of,
    default="1h",
    show_default=True,
    metavar="TIME",
    help="Until it counts as any other: 90s, 30m, 2h, 1d; 0 for no end.",
)
def maintenance_command(target: Target, id: int, seconds: float) -> int:
    """Say that chunkserver ID may be away for a while: no repair is started for it.

    It gets no new chunks from now on. When the time is over, or after `dfs node back ID`, it is in
    service again or, if it is not back, dead like any other.
    """

    async def work(session: Session) -> int:
        from dfs.cli.overview import change
        from dfs.messages.cluster import ServerMode, SetServerMode

        await _known(session, id, _warn_of_lacking_copies)
        await change(session, SetServerMode(id, ServerMode.MAINTENANCE, "", seconds))
        how_long = f"for {duration(seconds)}" if seconds else "until it is taken back"
        output.line(f"chunkserver {id} is in maintenance {how_long}; `dfs node back {id}` ends it")
        return Exit.OK

    return target.run(work)


@command.command("back")
@cluster_options
@_id
def back_command(target: Target, id: int) -> int:
    """Put chunkserver ID in service again, after a drain or maintenance."""

    async def work(session: Session) -> int:
        from dfs.cli.overview import change
        from dfs.messages.cluster import ServerMode, SetServerMode

        server = await _known(session, id)
        await change(session, SetServerMode(id, ServerMode.IN_SERVICE))
        dead = "" if server.alive else ", but it is not alive: start it"
        output.line(f"chunkserver {id} is in service{dead}")
        return Exit.OK

    return target.run(work)


@command.command("remove")
@cluster_options
@_id
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def remove_command(target: Target, id: int, yes: bool) -> int:
    """Strike the dead and empty chunkserver ID from the registry.

    Refused while it is alive or any chunk still has a copy there: drain it, then stop it.
    """
    if not yes:
        _confirm(target, id)

    async def work(session: Session) -> int:
        from dfs.cli.overview import change
        from dfs.messages.cluster import RemoveServer

        await _known(session, id, must_be_removable)
        await change(session, RemoveServer(id))
        output.line(f"chunkserver {id} is struck from the registry")
        return Exit.OK

    return target.run(work)


def _confirm(target: Target, id: int) -> None:
    """Ask, once it is clear that the answer matters. Not within the event loop: Ctrl-C is heard."""
    if not sys.stdin.isatty():
        raise click.UsageError("this strikes a chunkserver from the registry: add --yes.")
    names = []

    async def look(session: Session) -> int:
        names.append((await _known(session, id, must_be_removable)).name)
        return Exit.OK

    target.run(look)
    click.confirm(f"Strike {names[0]} from the registry?", abort=True, err=True)


async def _known(
    session: Session, id: int, check: Callable[[Overview, Chunkserver], None] | None = None
) -> Chunkserver:
    """The server with that id, checked. Raises Failure(CONFIG)."""
    from dfs.cli.chunkservers import find
    from dfs.cli.overview import look

    view = await look(session)
    server = find(view.servers, id)
    if check is not None:
        check(view, server)
    return server


def must_be_removable(_view: Overview, server: Chunkserver) -> None:
    """Raise Failure, mostly CONFIG, when the leader would refuse to strike the server."""
    from dfs.errors import Code, Failure

    if server.awaited:
        text = f"the leader is new and waits for {server.name} to register; try again in a moment"
        raise Failure(Code.UNAVAILABLE, text)
    if server.alive:
        text = f"{server.name} is alive: drain and stop it first (silent, it is dead in seconds)"
        raise Failure(Code.CONFIG, text)
    if server.replicas:
        holds = f"still holds {counted(server.replicas, 'chunk')}"
        text = f"{server.name} {holds}: `dfs node drain {server.id} --wait` has them copied"
        raise Failure(Code.CONFIG, text)


def _warn_of_too_few(view: Overview, leaving: Chunkserver) -> None:
    """A drain without anywhere to go does not end; better said before than wondered at."""
    rest = sum(s.takes_replicas for s in view.servers if s.id != leaving.id)
    if rest < view.status.copies:
        output.remark(
            f"note: {counted(rest, 'other chunkserver')} in service, and each chunk has "
            f"{view.status.copies} copies: this cannot end before there are more"
        )


def _warn_of_lacking_copies(view: Overview, _server: Chunkserver) -> None:
    lacking = view.status.under_replicated
    if lacking:
        output.remark(
            f"note: {counted(lacking, 'chunk')} with fewer copies than wanted already; before you "
            "stop this one, better wait until `dfs status` says SAFE"
        )
