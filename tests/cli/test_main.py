"""The program as a whole: instant help, one line for every error, documented exit codes."""

from __future__ import annotations

import errno
import importlib.metadata
import resource
import subprocess
import sys

import click
import pytest

from dfs.cli import main
from dfs.cli.exits import Exit, exit_for
from dfs.errors import Code, Failure, os_failure

HEAVY = ("trio", "msgpack", "rich", "lmdb", "pyfuse3", "pysyncobj", "dfs.client", "dfs.rpc")


def dfs(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dfs.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_answers_at_once() -> None:
    """By processor time: what else the machine does is not the program's."""
    took_s = []
    for _ in range(5):
        began_s = children_s()
        assert dfs("--help").returncode == Exit.OK
        took_s.append(children_s() - began_s)
    assert min(took_s) < 0.3


def children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, dfs.cli.main as m\n"
        "m.run(['--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_alone_it_explains_itself() -> None:
    done = dfs()
    assert done.returncode == Exit.OK
    assert "dfs local up" in done.stdout
    assert "--help" in done.stdout


def test_every_listed_command_exists_with_the_help_that_is_listed() -> None:
    context = click.Context(main.cli)
    installed = {e.name for e in importlib.metadata.entry_points(group=main.ENTRY_POINTS)}
    assert installed == main.FROM_ENTRY_POINTS
    for commands in main.SECTIONS.values():
        for name in set(commands) - installed:
            command = main.cli.get_command(context, name)
            assert command is not None
            assert command.name == name
            assert command.help


def test_an_unknown_command_is_one_line_and_a_usage_error() -> None:
    done = dfs("nonsense")
    assert done.returncode == Exit.USAGE
    assert done.stderr.splitlines() == ["dfs: No such command 'nonsense'. See `dfs --help`."]


def test_a_missing_configuration_is_one_line_and_a_usage_error() -> None:
    done = dfs("--config", "/nonexistent/client.toml", "ls")
    assert done.returncode == Exit.USAGE
    assert done.stderr == "dfs: /nonexistent/client.toml: No such file or directory\n"


def test_config_may_stand_before_or_after_the_command() -> None:
    before = dfs("--config", "/nonexistent/a", "ls")
    after = dfs("ls", "--config", "/nonexistent/a")
    assert before.stderr == after.stderr
    assert "/nonexistent/a" in after.stderr


def test_debug_shows_the_traceback() -> None:
    done = dfs("--debug", "ls", "--config", "/nonexistent/a")
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("dfs: /nonexistent/a")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (os_failure(errno.ENOENT, "/a"), Exit.FAILURE, "/a: No such file or directory"),
        (Failure(Code.TIMEOUT, "no leader"), Exit.UNREACHABLE, "no leader"),
        (Failure(Code.CONFIG, "bad key"), Exit.USAGE, "bad key"),
        (OSError(errno.EACCES, "Permission denied", "/b"), Exit.FAILURE, "/b: Permission denied"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "interrupted"),
        (click.Abort(), Exit.INTERRUPTED, "interrupted"),
    ],
)
def test_each_way_to_end_has_its_code_and_its_line(
    error: BaseException, code: Exit, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    group = BaseExceptionGroup("tasks", [BaseExceptionGroup("inner", [error])])
    for ended in (error, group):
        assert main.explain(ended) == code
        assert capsys.readouterr().err == f"dfs: {line}\n"


def test_a_bug_among_failures_is_what_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup("tasks", [Failure(Code.TIMEOUT, "late"), TypeError("a bug")])
    assert main.explain(group) == Exit.FAILURE
    assert "internal error, TypeError: a bug" in capsys.readouterr().err


def test_every_failure_code_has_an_exit_code() -> None:
    assert {exit_for(Failure(code, "")) for code in Code} == {
        Exit.FAILURE,
        Exit.USAGE,
        Exit.UNREACHABLE,
    }


def test_a_closed_pipe_ends_quietly() -> None:
    command = [sys.executable, "-m", "dfs.cli.main"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == Exit.PIPE
