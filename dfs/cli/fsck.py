"""`dfs fsck`: check the whole cluster, and have mended what can be mended without loss.

The leader does the checking (`dfs.cli.checks` asks it); here its findings are shown. The exit code
is 0 only when all is sound and fully redundant, and else tells how grave the gravest finding is.
"""

from __future__ import annotations

import base64
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from dfs.cli import output
from dfs.cli.cluster import Session, Target, cluster_options
from dfs.cli.exits import Exit
from dfs.messages.checking import CheckProgress, Finding, Severity

if TYPE_CHECKING:
    from dfs.cli.checks import Checked, Checks, Watch

ROUNDS_MAX = 4  # of checking and mending: what one round mends may show more
LISTED_FOR_PEOPLE = 100  # findings of a kind; --json has all
_STATES = {
    Severity.NOTE: ("sound", Exit.OK),
    Severity.UNCHECKED: ("unchecked", Exit.PARTIAL),
    Severity.REDUNDANCY: ("degraded", Exit.DEGRADED),
    Severity.METADATA: ("inconsistent", Exit.INCONSISTENT),
    Severity.DATA: ("unreadable", Exit.UNREADABLE),
}
_SUMMARIES = {
    "sound": "all is sound and fully redundant",
    "unchecked": "nothing is wrong as far as could be checked, but not everything could be",
    "degraded": "everything is readable, but not all of it is as safe or tidy as it should be",
    "inconsistent": "the metadata contradict themselves",
    "unreadable": "not everything can be read",
}


@dataclass
class Repair:
    """What was mended, round by round, and what could not be."""

    mended: list[Finding] = field(default_factory=list)
    refused: list[Finding] = field(default_factory=list)

    def told(self) -> list[str]:
        """What a person reads of it."""
        if not self.mended:
            return []
        made = [f"{len(self.mended) - len(self.refused)} findings mended; now:", ""]
        return [f.text for f in self.refused] + made


@click.command("fsck")
@cluster_options
@click.argument("path", default="/")
@click.option("--repair", is_flag=True, help="Mend what can be mended without loss; asks before.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before mending.")
@click.option("--deep", is_flag=True, help="Have every replica read from its disk and verified.")
@click.option("--json", "as_json", is_flag=True, help="As JSON: one document.")
def command(target: Target, path: str, repair: bool, yes: bool, deep: bool, as_json: bool) -> int:
    """Check that all is sound and fully redundant: metadata, and what the servers have.

    Reads only, unless --repair is given. With PATH, only what concerns that file, or that
    directory and all below it, is told. Exit code 0: sound; 4: not all could be checked;
    5: readable, but copies lack or something is surplus; 6: the metadata contradict themselves;
    7: something cannot be read.
    """
    if repair and not yes and not sys.stdin.isatty():
        raise click.UsageError("--repair asks before it mends; without a terminal, give --yes.")
    return target.run(lambda s: check(s, path, repair=repair, yes=yes, deep=deep, json=as_json))


async def check(
    session: Session, path: str, *, repair: bool, yes: bool, deep: bool, json: bool
) -> int:
    """Check, show, and mend in as many rounds as it takes; the exit code."""
    from dfs.cli.checks import Checks

    inode = await _inode_of(session, path)
    checks, done = Checks(session.env, session.client), Repair()
    with shown_progress() as watch:
        checked = await checks.check(watch, deep=deep, inode=inode)
    if repair:
        checked = await _repair(checks, checked, done, inode, yes=yes, deep=deep, quiet=json)
    if json:
        output.emit_json(as_dict(session.settings.cluster, checked, done))
    elif not repair or done.mended or not checked.mendable:  # else it was shown with the plan
        output.lines([*done.told(), *report(checked)])
    return int(exit_code(checked))


def exit_code(checked: Checked) -> Exit:
    """The gravest finding's; 1 when the check did not get to its end and found nothing graver."""
    severity = checked.severity
    if checked.progress.problem and severity is Severity.UNCHECKED:
        return Exit.FAILURE
    return _STATES[severity][1]


async def _inode_of(session: Session, path: str) -> int:
    if path.strip("/") == "":
        return 0
    return (await session.tree.find(os.fsencode(path), follow=False)).inode


async def _repair(
    checks: Checks,
    checked: Checked,
    done: Repair,
    inode: int,
    *,
    yes: bool,
    deep: bool,
    quiet: bool,
) -> Checked:
    """Round by round, until nothing new can be mended; the last check."""
    from dfs.cli.checks import while_kept

    ordered: Counter[tuple[str, str]] = Counter()  # what was mended once is not tried again
    for _ in range(ROUNDS_MAX):
        due = [f for f in checked.mendable if not ordered[f.kind, f.text]]
        if not due:
            break
        if not quiet:
            output.lines([*report(checked), "", *plan(due)])
        if not yes and not await while_kept(checks, checked, _confirmed):
            break
        with shown_progress() as watch:
            done.refused += await checks.mend(checked, due, watch)
            done.mended += due
            ordered.update((f.kind, f.text) for f in due)
            checked = await checks.check(watch, deep=deep, inode=inode)
    return checked


def _confirmed() -> bool:
    return click.confirm("Mend this?", err=True)


# -- showing


def report(checked: Checked) -> list[str]:
    """What a person reads."""
    made: list[str] = []
    kinds: dict[tuple[int, str], list[Finding]] = {}
    for finding in checked.findings:
        kinds.setdefault((-finding.severity, finding.kind), []).append(finding)
    for (_, kind), found in sorted(kinds.items()):
        word = Severity(found[0].severity).name.lower()
        made.append(f"{word}: {kind} ({len(found)})")
        made += [f"  {told(f)}" for f in found[:LISTED_FOR_PEOPLE]]
        if len(found) > LISTED_FOR_PEOPLE:
            made.append(f"  ... and {len(found) - LISTED_FOR_PEOPLE} more (--json lists them)")
    progress = checked.progress
    looked = f"{progress.inodes} inodes, {progress.chunks} chunks, {progress.replicas} replicas"
    if progress.problem:
        made.append(f"the check did not get to its end: {progress.problem}")
    state = _STATES[checked.severity][0]
    made += [f"checked {looked}", f"{state}: {_SUMMARIES[state]}"]
    return made


def told(finding: Finding) -> str:
    """One finding in a line: which file and range, and what."""
    where = ""
    if finding.path:
        where = output.shown(finding.path)
        if finding.length_bytes:
            end = finding.offset + finding.length_bytes
            where += f" [{finding.offset}, {end})"
        where += ": "
    return where + output.printable(finding.text)


def plan(findings: list[Finding]) -> list[str]:
    """What mending these would do."""
    made = [f"{len(findings)} of these can be mended without loss:"]
    for finding in findings[:LISTED_FOR_PEOPLE]:
        made.append(f"  {finding.number}. {finding.kind}: {finding.mend}")
        if finding.saved:
            made.append(f"     what goes, as stored: {_base64(finding.saved)}")
    if len(findings) > LISTED_FOR_PEOPLE:
        made.append(f"  ... and {len(findings) - LISTED_FOR_PEOPLE} more (--json lists them)")
    return made


def as_dict(cluster: str, checked: Checked, done: Repair) -> dict[str, Any]:
    """What `--json` shows."""
    progress, state = checked.progress, _STATES[checked.severity][0]
    return {
        "cluster": cluster,
        "state": state,
        "exit_code": int(exit_code(checked)),
        "complete": not progress.problem,
        "problem": progress.problem,
        "inodes": progress.inodes,
        "chunks": progress.chunks,
        "replicas": progress.replicas,
        "findings": [_finding_dict(f) for f in checked.findings],
        "mended": [_finding_dict(f) for f in done.mended],
        "not_mended": [f.text for f in done.refused],
    }


def _finding_dict(finding: Finding) -> dict[str, Any]:
    return {
        "number": finding.number,
        "kind": finding.kind,
        "severity": Severity(finding.severity).name.lower(),
        "text": finding.text,
        "path": os.fsdecode(finding.path) if finding.path else None,
        "inode": finding.inode or None,
        "offset": finding.offset,
        "length_bytes": finding.length_bytes,
        "handle": finding.handle or None,
        "server": finding.server or None,
        "mend": finding.mend or None,
        "saved": _base64(finding.saved) if finding.saved else None,
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- progress


@contextmanager
def shown_progress() -> Iterator[Watch]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def watch(progress: CheckProgress) -> None:
            total = max(progress.total, progress.done) if progress.total else None
            bar.update(task, description=progress.phase, completed=progress.done, total=total)

        yield watch
