"""`dfs completion`: each shell's script names the program and completes commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from dfs.cli import completion
from dfs.cli.main import cli, run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_the_shell_accepts(shell: str) -> None:
    script = completion.script(cli, shell)
    assert "_DFS_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_commands_are_completed_without_loading_them() -> None:
    environment = {
        **os.environ,
        "_DFS_COMPLETE": "bash_complete",
        "COMP_WORDS": "dfs m",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv = ['dfs']; from dfs.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    names = [line.partition(",")[2] for line in done.stdout.splitlines()]
    assert names == ["mv", "mkdir", "mount", "master", "meta"]


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "tcsh"]) == 2
    assert "'tcsh' is not one of" in capsys.readouterr().err
