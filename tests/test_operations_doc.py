"""docs/operations.md keeps in step: its commands exist, its codes are all that there are."""

from __future__ import annotations

import re

import click
import pytest

from dfs.cli import main
from tests.house import ROOT

DOC = (ROOT / "docs/operations.md").read_text()
HEALTH = (ROOT / "dfs/cli/health.py").read_text()


@pytest.mark.parametrize("group", ["node", "disk"])
def test_the_commands_and_options_it_names_exist(group: str) -> None:
    context = click.Context(main.cli)
    command = main.cli.get_command(context, group)
    assert isinstance(command, click.Group)
    named = re.findall(rf"dfs {group} (\w+)([^\n`#|]*)", DOC)
    assert {verb for verb, _ in named} == set(command.commands)
    for verb, rest in named:
        known = {o for p in command.commands[verb].params for o in p.opts}
        assert set(re.findall(r"--\w+", rest)) <= known


def test_it_explains_every_finding_and_no_other() -> None:
    made = set(re.findall(r'"([A-Z]{2,}(?:_[A-Z]+)*)"', HEALTH))
    rows = [line.split("|") for line in DOC.splitlines() if line.startswith("| `")]
    explained = {code for row in rows for code in re.findall(r"`([A-Z_]+)`", row[1])}
    assert explained == made
