"""A real cluster of processes for the verbs, one for the whole run; a directory for each test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfs.cli import main
from dfs.config import ENVIRONMENT_VARIABLE

Json = Any  # what a test expects of a document, it asserts


class Dfs:
    """Runs command lines in this process against the cluster, and keeps what they printed."""

    def __init__(self, capture: pytest.CaptureFixture[bytes], here: str) -> None:
        self._capture = capture
        self.here = here  # a directory of the cluster that is this test's own
        self.out, self.err = b"", ""

    def __call__(self, *arguments: object) -> int:
        """The exit code; a leading `:` of an argument stands for this test's directory."""
        self._capture.readouterr()
        code = main.run([self.path(str(argument)) for argument in arguments])
        out, err = self._capture.readouterr()
        self.out, self.err = out, err.decode()
        return code

    def path(self, argument: str) -> str:
        return self.here + argument[1:] if argument.startswith(":") else argument

    def ok(self, *arguments: object) -> list[str]:
        """The lines that a successful command printed."""
        code = self(*arguments)
        assert (code, self.err) == (0, "")
        return self.out.decode(errors="surrogateescape").splitlines()

    def json(self, *arguments: object) -> Json:
        assert self(*arguments, "--json") == 0
        return json.loads(self.out)

    def write(self, path: str, data: bytes = b"") -> None:
        """A file of the cluster with these contents."""
        saved = os.dup(0)
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            os.dup2(file.fileno(), 0)
            try:
                self.ok("put", "-", path)
            finally:
                os.dup2(saved, 0)
                os.close(saved)


def local(*arguments: object) -> None:
    command = [sys.executable, "-m", "dfs.cli.main", "local", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a running cluster of one master and three chunkservers."""
    root = tmp_path_factory.mktemp("cluster")
    local("up", "--root", root, "--masters", 1)
    yield root
    local("down", "--root", root, "--purge", "--yes")


@pytest.fixture
def dfs(
    cluster: Path,
    request: pytest.FixtureRequest,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Dfs:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(cluster / "client.toml"))
    made = Dfs(capfdbinary, f"/{request.node.path.stem}-{request.node.name}")
    made.ok("mkdir", ":")
    return made
