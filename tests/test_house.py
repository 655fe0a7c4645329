"""The house rules hold over the whole tree, and each rule catches what it is for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import house
from tests.house import CODE_RULES, PACKAGES, ROOT, TEST_RULES, Rule, parse

CODE = "dfs/example.py"
TEST = "tests/test_example.py"
LONG_FUNCTION = "def f() -> None:\n" + "    x = 1\n" * house.FUNCTION_LINES
HEAD = '"""A module."""\n'


def test_the_tree_was_found() -> None:
    paths = [module.path for module in house.tree_modules(*PACKAGES)]
    assert "dfs/runtime/env.py" in paths


@pytest.mark.parametrize("rule", CODE_RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps(rule: Rule) -> None:
    found = [str(v) for module in house.tree_modules(*PACKAGES) for v in rule(module)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("rule", TEST_RULES, ids=lambda rule: rule.__name__)
def test_the_tests_keep(rule: Rule) -> None:
    found = [str(v) for module in house.tree_modules("tests") for v in rule(module)]
    assert not found, "\n" + "\n".join(found)


def test_exceptions_have_reasons_and_their_files_exist() -> None:
    for (prefix, _), reason in house.ALLOWED.items():
        assert reason
        assert list(ROOT.glob(f"{prefix.rstrip('/')}*")), f"nothing begins with {prefix} any more"


CAUGHT = [
    (house.import_direction, CODE, "import master.server"),
    (house.import_direction, "master/x.py", "from chunkserver.replica import Replica"),
    (house.import_direction, "fuse/x.py", "def f() -> None:\n    from tests import house"),
    (house.function_length, CODE, LONG_FUNCTION),
    (house.module_length, CODE, "x = 1\n" * (house.MODULE_LINES + 1)),
    (house.module_length, TEST, "x = 1\n" * (house.TEST_MODULE_LINES + 1)),
    (house.module_docstring, CODE, "x = 1"),
    (house.seams, CODE, "import time"),
    (house.seams, CODE, "from time import monotonic"),
    (house.seams, CODE, "import os\nx = os.urandom(3)"),
    (house.seams, CODE, "import trio as t\nasync def f() -> None:\n    await t.sleep(1)"),
    (house.seams, CODE, "from trio import move_on_after"),
    (house.seams, CODE, "import trio\ntrio.to_thread.run_sync(print)"),
    (house.seams, CODE, "import trio\ntrio.open_tcp_stream('h', 1)"),
    (house.seams, CODE, "open('x')"),
    (house.seams, CODE, "from pathlib import Path\nPath('x').read_text()"),
    (house.seams, "dfs/config.py", "import random"),
    (house.mutable_globals, CODE, "seen = {}\ndef f() -> None:\n    seen['x'] = 1"),
    (house.mutable_globals, CODE, "seen: list[int] = []\ndef f() -> None:\n    seen.append(1)"),
    (house.mutable_globals, CODE, "n = 0\ndef f() -> None:\n    global n\n    n = 1"),
    (house.set_order, CODE, "for x in {1, 2}:\n    pass"),
    (house.set_order, CODE, "def f(a):\n    return [x for x in set(a) - {1}]"),
    (house.set_order, CODE, "names = frozenset('ab')\nx = list(names)"),
    (
        house.set_order,
        CODE,
        "class C:\n    x: set[str]\n    def f(self):\n        for y in self.x:\n            y",
    ),
    (house.identity_order, CODE, "x = sorted([], key=lambda y: id(y))"),
    (house.identity_order, CODE, "x = hash('a') % 7"),
    (house.broad_except, CODE, "try:\n    f()\nexcept:\n    pass"),
    (house.broad_except, CODE, "try:\n    f()\nexcept (OSError, Exception):\n    g()  # why"),
    (house.broad_except, CODE, "try:\n    f()\nexcept Exception:\n    log.error('x')"),
    (house.test_sleeps, TEST, "import time\ntime.sleep(1)"),
    (house.test_sleeps, TEST, "from trio import sleep\nasync def f():\n    await sleep(1)"),
    (
        house.test_sleeps,
        TEST,
        "from dfs.runtime.real import RealEnv\nasync def f(env):\n    await env.clock.sleep(1)",
    ),
]

PASSED = [
    (house.import_direction, "master/x.py", "from dfs.errors import Failure\nimport master.y"),
    (house.module_docstring, CODE, ""),
    (house.seams, "dfs/runtime/real/x.py", "import socket, time, threading"),
    (house.seams, CODE, "import trio\nx = trio.Event()\ny = trio.sleep_forever()"),
    (house.seams, CODE, "def f(env) -> None:\n    env.disk.open('x')\n    env.clock.sleep(1)"),
    (house.seams, "dfs/config.py", "open('x')"),
    (house.seams, CODE, "def f(time: int) -> str:\n    return str(time.real)"),
    (house.mutable_globals, CODE, "LIMITS = {'a': 1}\ndef f() -> int:\n    return LIMITS['a']"),
    (house.mutable_globals, CODE, "x = []\ndef f() -> None:\n    x = []\n    x.append(1)"),
    (house.set_order, CODE, "for x in sorted({1, 2}):\n    pass"),
    (house.set_order, CODE, "x = 1 in {1, 2}"),
    (house.identity_order, CODE, "class C:\n    def __hash__(self):\n        return hash(1)"),
    (house.broad_except, CODE, "try:\n    f()\nexcept Exception:\n    g()\n    raise"),
    (house.broad_except, CODE, "try:\n    f()\nexcept Exception:  # why\n    log.error('x')"),
    (
        house.broad_except,
        CODE,
        "def g():\n    log.error('x')\ntry:\n    f()\nexcept Exception:  # why\n    g()",
    ),
    (house.broad_except, CODE, "try:\n    f()\nexcept OSError:\n    pass"),
    (house.test_sleeps, TEST, "async def f(world):\n    await world.clock.sleep(1)"),
]


@pytest.mark.parametrize(("rule", "path", "source"), CAUGHT)
def test_a_rule_catches(rule: Rule, path: str, source: str) -> None:
    violations = list(rule(parse(source, path)))
    assert violations
    assert str(violations[0]).startswith(path)


@pytest.mark.parametrize(("rule", "path", "source"), PASSED)
def test_a_rule_lets_pass(rule: Rule, path: str, source: str) -> None:
    assert list(rule(parse(source, path))) == []


def test_every_rule_is_shown_to_catch_something() -> None:
    shown = [rule for rule, _, _ in CAUGHT]
    assert [rule.__name__ for rule in (*CODE_RULES, *TEST_RULES) if rule not in shown] == []


def run_tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy", "--strict")],
    ids=["ruff check", "ruff format", "mypy"],
)
@pytest.mark.timeout(600)
def test_a_tool_is_content(arguments: tuple[str, ...]) -> None:
    result = run_tool(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_catches_a_bad_module(tmp_path: object) -> None:
    bad = f"{tmp_path}/bad.py"
    with open(bad, "w") as file:
        file.write(HEAD + "import os\n")
    result = run_tool("ruff", "check", "--config", str(ROOT / "pyproject.toml"), bad)
    assert "F401" in result.stdout


def test_mypy_catches_a_bad_module(tmp_path: object) -> None:
    bad = f"{tmp_path}/bad.py"
    with open(bad, "w") as file:
        file.write(HEAD + "def f(x):\n    return x\n")
    result = run_tool("mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), bad)
    assert "no-untyped-def" in result.stdout
