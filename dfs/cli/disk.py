"""`dfs disk`: list the chunkservers' disks, drain one, take it back."""

from __future__ import annotations

import click

from dfs.cli import output
from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.exits import Exit

_server = click.argument("server", type=click.IntRange(1))
_path = click.argument("path")


@click.group("disk")
def command() -> None:
    """List the chunkservers' disks (their data directories), drain one, take it back."""


@command.command("list")
@cluster_options
@click.argument("server", type=click.IntRange(1), required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON: one array.")
def list_command(target: Target, server: int | None, as_json: bool) -> int:
    """Show the disks of all chunkservers, or of one: state, chunks, space, what is wrong.

    States: in service; draining, then drained; FAILED. A dead chunkserver's disks are not known.
    """

    async def work(session: Session) -> int:
        from dfs.cli.chunkservers import disk_as_dict, disk_table, find
        from dfs.cli.overview import look

        servers = (await look(session)).servers
        if server is not None:
            servers = (find(servers, server),)
        if as_json:
            shown = [{"server": s.id, **disk_as_dict(d)} for s in servers for d in s.disks]
            output.emit_json(shown)
        else:
            output.lines(disk_table(servers))
        return Exit.OK

    return target.run(work)


@command.command("drain")
@cluster_options
@_server
@_path
@click.option("--wait", is_flag=True, help="Return when it is empty, showing progress.")
def drain_command(target: Target, server: int, path: str, wait: bool) -> int:
    """Move all chunks from the disk PATH of chunkserver SERVER; it gets no new ones.

    PATH as `dfs disk list` shows it. With --wait, Ctrl-C ends the waiting and not the drain.
    """

    async def work(session: Session) -> int:
        from dfs.cli.chunkservers import find, find_disk
        from dfs.cli.drain import Drained, drain
        from dfs.cli.overview import look

        disk = find_disk(find((await look(session)).servers, server), path)
        return await drain(session, Drained(server, disk.path), disk.replicas, wait=wait)

    return target.run(work)


@command.command("back")
@cluster_options
@_server
@_path
def back_command(target: Target, server: int, path: str) -> int:
    """Put the disk PATH of chunkserver SERVER in service again."""

    async def work(session: Session) -> int:
        from dfs.cli.chunkservers import find, find_disk
        from dfs.cli.overview import change, look
        from dfs.messages.cluster import ServerMode, SetServerMode

        disk = find_disk(find((await look(session)).servers, server), path)
        await change(session, SetServerMode(server, ServerMode.IN_SERVICE, disk.path))
        failed = "" if disk.healthy else ", but it has failed and is not used"
        output.line(f"disk {disk.path} of chunkserver {server} is in service{failed}")
        return Exit.OK

    return target.run(work)
