"""`dfs scrub`: the background verification of all replicas, and what was set aside as damaged.

Every chunkserver is asked directly, so this works without a leader too. Exit code 4 when some of
them could not be asked, 3 when none could.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dfs.cli import output
from dfs.cli.cluster import Target, cluster_options
from dfs.cli.exits import Exit
from dfs.messages.scrubbing import (
    DiskScrub,
    QuarantineCleared,
    QuarantinedFile,
    ScrubAction,
    ScrubPass,
    ScrubStatus,
)

if TYPE_CHECKING:
    from dfs.cli.asking import Told
    from dfs.rpc import Connection

T = TypeVar("T")

ASK_TIMEOUT_S = 5.0
PAGE = 256
WHOLE_REPLICA = -1

_server_option = click.option(
    "--server", type=click.IntRange(1), metavar="ID", help="Only this chunkserver."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group("scrub")
def command() -> None:
    """Verify all replicas in the background: start, pause, watch.

    Each chunkserver reads its disks by itself, at a bounded rate, and has what is damaged replaced
    from good replicas.
    """


@command.command()
@cluster_options
@_server_option
@_json_option
def status(target: Target, server: int | None, as_json: bool) -> int:
    """Show how far the scrub of each disk is, and what it found."""
    from dfs.messages.scrubbing import GetScrubStatus

    return _show(_ask_all(target, server, GetScrubStatus()), as_json)


@command.command()
@cluster_options
@_server_option
@_json_option
def start(target: Target, server: int | None, as_json: bool) -> int:
    """Begin a pass now, where none is under way; takes back a pause."""
    return _control(target, server, ScrubAction.START, as_json)


@command.command()
@cluster_options
@_server_option
@_json_option
def pause(target: Target, server: int | None, as_json: bool) -> int:
    """Hold the scrub where it is, over restarts too, until `resume` or `start`."""
    return _control(target, server, ScrubAction.PAUSE, as_json)


@command.command()
@cluster_options
@_server_option
@_json_option
def resume(target: Target, server: int | None, as_json: bool) -> int:
    """Let a paused scrub go on."""
    return _control(target, server, ScrubAction.RESUME, as_json)


@command.command()
@cluster_options
@_server_option
@_json_option
@click.option("--clear", is_flag=True, help="Delete all that is set aside.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before deleting.")
def quarantine(target: Target, server: int | None, as_json: bool, clear: bool, yes: bool) -> int:
    """List what was set aside: damaged blocks, and replica files that could not be read.

    With --clear, delete it.
    """
    if not clear:
        return _list(target, server, as_json)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("--clear deletes; where nobody can be asked, give --yes too.")
        which = "all chunkservers" if server is None else f"chunkserver {server}"
        click.confirm(f"Delete what {which} set aside?", abort=True, err=True)
    return _clear(target, server, as_json)


# -- asking


def _run(
    target: Target, server: int | None, ask: Callable[[Connection], Awaitable[T]]
) -> list[Told[T]]:
    import trio

    from dfs.cli.asking import ask_servers
    from dfs.runtime.real import RealEnv

    settings = target.settings()
    timeout_s = min(ASK_TIMEOUT_S, target.timeout_s)
    return trio.run(ask_servers, RealEnv("cli"), settings, timeout_s, server, ask)


def _ask_all(target: Target, server: int | None, message: object) -> list[Told[ScrubStatus]]:
    async def ask(connection: Connection) -> ScrubStatus:
        answer: ScrubStatus = (await connection.call(message, timeout_s=ASK_TIMEOUT_S)).message
        return answer

    return _run(target, server, ask)


def _control(target: Target, server: int | None, action: ScrubAction, as_json: bool) -> int:
    from dfs.messages.scrubbing import ControlScrub

    return _show(_ask_all(target, server, ControlScrub(action)), as_json)


def _list(target: Target, server: int | None, as_json: bool) -> int:
    from dfs.messages.scrubbing import GetScrubStatus, ListQuarantine, QuarantinePage

    async def ask(connection: Connection) -> list[tuple[str, QuarantinedFile]]:
        found: list[tuple[str, QuarantinedFile]] = []
        answer = await connection.call(GetScrubStatus(), timeout_s=ASK_TIMEOUT_S)
        for disk in answer.message.disks:
            after, complete = "", False
            while not complete:
                message = ListQuarantine(disk.path, after, PAGE)
                answer = await connection.call(message, timeout_s=ASK_TIMEOUT_S)
                page: QuarantinePage = answer.message
                found += [(disk.path, file) for file in page.files]
                complete = page.complete or not page.files
                after = page.files[-1].name if page.files else ""
        return found

    told = _run(target, server, ask)
    if as_json:
        output.emit_json([_as_dict(each, _files_as_list) for each in told])
    else:
        output.lines(quarantine_report(told))
    return _exit_code(told)


def _clear(target: Target, server: int | None, as_json: bool) -> int:
    from dfs.messages.scrubbing import ClearQuarantine

    async def ask(connection: Connection) -> QuarantineCleared:
        message = ClearQuarantine("")
        answer: QuarantineCleared = (
            await connection.call(message, timeout_s=ASK_TIMEOUT_S)
        ).message
        return answer

    told = _run(target, server, ask)
    if as_json:
        output.emit_json([_as_dict(each, dataclasses.asdict) for each in told])
    else:
        for each in told:
            if each.answer is not None:
                size = output.human_bytes(each.answer.bytes)
                output.line(f"chunkserver {each.server}: {each.answer.files} files, {size} deleted")
    return _exit_code(told)


# -- showing


def _show(told: Sequence[Told[ScrubStatus]], as_json: bool) -> int:
    if as_json:
        output.emit_json([_as_dict(each, _status_as_dict) for each in told])
    else:
        output.lines(status_report(told))
    return _exit_code(told)


def _exit_code(told: Sequence[Told[Any]]) -> int:
    for each in told:
        if each.answer is None:
            output.complain(f"chunkserver {each.server} at {each.address}: {each.problem}")
    missing = sum(each.answer is None for each in told)
    if not missing:
        return Exit.OK
    return Exit.UNREACHABLE if missing == len(told) else Exit.PARTIAL


def _as_dict(told: Told[T], shown: Callable[[T], Any]) -> dict[str, Any]:
    answer = None if told.answer is None else shown(told.answer)
    return {
        "server": told.server,
        "address": told.address,
        "problem": told.problem,
        "answer": answer,
    }


def _status_as_dict(answer: ScrubStatus) -> Any:
    return dataclasses.asdict(answer)["disks"]


def _files_as_list(found: list[tuple[str, QuarantinedFile]]) -> Any:
    return [{"disk": disk, **dataclasses.asdict(file)} for disk, file in found]


def status_report(told: Sequence[Told[ScrubStatus]]) -> list[str]:
    """A line for each disk, and what its passes came to."""
    heads = ["server", "disk", "scrub", "done", "rate", "left", "last pass", "damaged", "set aside"]
    rows = [heads]
    for each in told:
        for disk in each.answer.disks if each.answer else ():
            rows.append([str(each.server), output.printable(disk.path), *_of_disk(disk)])
    return output.table(rows, right=frozenset({3, 4, 5, 7}))


def _of_disk(disk: DiskScrub) -> list[str]:
    under_way = bool(disk.current.began_ns)
    aside = disk.quarantined_blocks + disk.quarantined_replicas
    return [
        disk.state,
        f"{disk.fraction * 100:.0f}%" if under_way else "",
        f"{output.human_bytes(int(disk.bytes_per_s))}/s" if disk.state == "running" else "",
        _left(disk),
        last_pass(disk.last),
        f"{disk.damaged_blocks} blocks" if disk.damaged_blocks else "0",
        f"{aside} files, {output.human_bytes(disk.quarantined_bytes)}" if aside else "nothing",
    ]


def _left(disk: DiskScrub) -> str:
    """Until the pass ends, or the next one begins."""
    if disk.state == "running" and disk.eta_s >= 0:
        return duration(disk.eta_s)
    return f"next in {duration(disk.next_in_s)}" if disk.state == "waiting" else ""


def last_pass(done: ScrubPass) -> str:
    """When the last complete pass began, how long it took and what it came to."""
    if not done.ended_ns:
        return "none yet"
    took = duration((done.ended_ns - done.began_ns) / 1e9)
    size = output.human_bytes(done.bytes)
    began = output.timestamp(done.began_ns)
    return f"{began}, {took}, {done.replicas} replicas, {size}, {done.found} found damaged"


def duration(seconds: float) -> str:
    """A time in at most two units: 12s, 3m 20s, 4h 5m, 12d 3h."""
    left = int(seconds)
    parts: list[str] = []
    for name, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{name}")
    return " ".join(parts[:2]) if parts else "0s"


def quarantine_report(told: Sequence[Told[list[tuple[str, QuarantinedFile]]]]) -> list[str]:
    """A line for each file that was set aside."""
    rows = [["server", "chunk", "block", "bytes", "when", "file", "why"]]
    for each in told:
        for disk, file in each.answer or ():
            rows.append(
                [
                    str(each.server),
                    f"{file.handle:x}",
                    "all" if file.block == WHOLE_REPLICA else str(file.block),
                    str(file.bytes),
                    output.timestamp(file.when_ns) if file.when_ns else "?",
                    output.printable(f"{disk}/quarantine/{file.name}"),
                    output.printable(file.why),
                ]
            )
    return output.table(rows, right=frozenset({3}))
