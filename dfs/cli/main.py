"""`dfs`: finds the command, runs it, and turns whatever happens into an exit code and one line.

Owns the list of commands and the last `except` of the program. Help must be instant, so the list
and its one-line helps are written down here and a command's module is imported only when that
command runs. The processes' own commands (master, chunkserver, mount) come from the entry points
`dfs.commands`, because dfs/ imports nothing of the packages that stand on it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from dfs import __version__
from dfs.cli import output
from dfs.cli.exits import Exit, exit_for
from dfs.errors import Failure

DEBUG_VARIABLE = "DFS_DEBUG"
ENTRY_POINTS = "dfs.commands"

SECTIONS: dict[str, dict[str, str]] = {
    "A whole cluster on this machine": {
        "local": "Start, stop and look at a cluster on this machine.",
    },
    "Files, without a mount": {
        "ls": "List directories.",
        "cat": "Print files.",
        "put": "Copy local files into the cluster.",
        "get": "Copy files out of the cluster.",
        "cp": "Copy within the cluster.",
        "mv": "Move or rename.",
        "rm": "Remove files and directories.",
        "mkdir": "Make directories.",
        "stat": "Show everything about a file.",
        "du": "Add up the space that directories use.",
        "find": "List all paths below a directory, by name and kind.",
    },
    "Mounting": {
        "mount": "Mount the cluster at a directory.",
        "umount": "Unmount it.",
        "sync": "Make everything written through a mount durable.",
    },
    "For operators": {
        "status": "Is the data safe, why not, and what is being done about it.",
        "node": "Chunkservers: list, drain, maintenance, back, remove.",
        "disk": "Their disks: list, drain, back.",
        "info": "Where a file's chunks are, and whether its replicas agree.",
        "fsck": "Check that all is sound and fully redundant; --repair mends.",
        "scrub": "The background verification of all replicas; the quarantine.",
        "master": "Run and manage master servers.",
        "chunkserver": "Run chunkservers.",
        "meta": "Dump, check and load the metadata; snapshots; recovery.",
    },
    "The shell": {
        "completion": "Print the completion script of a shell.",
    },
}
FROM_ENTRY_POINTS = frozenset({"master", "chunkserver", "meta", "mount", "umount", "sync"})

_OVERVIEW = """dfs is a replicated, strictly consistent file system that mounts as a directory.

  dfs local up --mount ~/dfs    a cluster of six processes on this machine, mounted
  dfs status                    is it well?
  dfs put -r DIR /              files in and out without a mount: ls cat put get cp mv rm
  dfs --help                    all commands; `dfs COMMAND --help` tells about one

The cluster is named by --config FILE or DFS_CONFIG (a client.toml); without either it is the one
that `dfs local up` keeps for you."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they run, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for commands in SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        if cmd_name in FROM_ENTRY_POINTS:
            return _from_entry_points(cmd_name)
        command: click.Command = importlib.import_module(f"dfs.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, KeyboardInterrupt) as error:
            # click would print a line of its own for these.
            raise click.exceptions.Exit(explain(error)) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()), col_max=14)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [
            CompletionItem(name, help=text)
            for commands in SECTIONS.values()
            for name, text in commands.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def _from_entry_points(name: str) -> click.Command | None:
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS, name=name):
        command: click.Command = entry.load()
        return command
    raise click.ClickException(f"the command {name!r} is not installed: pip install the package")


@click.group(cls=LazyGroup, invoke_without_command=True)
@click.version_option(__version__, prog_name="dfs", message="%(prog)s %(version)s")
@click.option("--config", metavar="FILE", help="client.toml of the cluster (or DFS_CONFIG).")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.pass_context
def cli(ctx: click.Context, config: str | None, debug: bool) -> None:
    """A replicated, strictly consistent file system that mounts as a directory."""
    # Both are worth exactly what their environment variables are, for every command, wherever
    # it is defined; the process and its children are all that sees them.
    if config:
        os.environ["DFS_CONFIG"] = config
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
    if ctx.invoked_subcommand is None:
        output.line(_OVERVIEW)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program. Exits with a code of `dfs.cli.exits`."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; its exit code. Every error ends as one line on standard error."""
    try:
        result = cli.main(arguments, prog_name="dfs", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        if isinstance(error, SystemExit | GeneratorExit):
            raise
        if os.environ.get(DEBUG_VARIABLE):
            _print_traceback(error)
        return explain(error)
    return int(result or 0)


def explain(error: BaseException) -> int:
    """Say in one line what ended the command; the exit code."""
    leaves = list(_leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt | click.Abort) for leaf in leaves):
        output.complain("interrupted")
        return Exit.INTERRUPTED
    if any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
        _drop_stdout()
        return Exit.PIPE
    # A programming error among the leaves matters more than the failures it led to.
    leaves.sort(key=lambda leaf: isinstance(leaf, Failure | OSError))
    return _explain_leaf(leaves[0])


def _explain_leaf(error: BaseException) -> int:
    match error:
        case click.UsageError():
            output.complain(f"{error.format_message()} See `{_help_of(error)}`.")
            return Exit.USAGE
        case click.ClickException():
            output.complain(error.format_message())
            return Exit.FAILURE
        case Failure():
            output.complain(error.message)
            return exit_for(error)
        case OSError():
            about = os.fsdecode(error.filename) if error.filename else ""
            text = error.strerror or str(error)
            output.complain(f"{about}: {text}" if about else text)
            return Exit.FAILURE
    about_bug = f"internal error, {type(error).__name__}: {error}"
    output.complain(f"{about_bug} (`dfs --debug ...` shows where; please report it)")
    return Exit.FAILURE


def _help_of(error: click.UsageError) -> str:
    return f"{error.ctx.command_path if error.ctx else 'dfs'} --help"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside (nested) groups, as concurrent tasks raise them."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _print_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error)


def _drop_stdout() -> None:
    """Point standard output at /dev/null, so that the flush at exit does not fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


if __name__ == "__main__":
    main()
