"""`dfs local` on one root, driven as a user drives it: by its command line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0


class Local:
    """One local cluster; nothing runs before `ok("up")`."""

    def __init__(self, base: Path) -> None:
        self.root, self.mount = base / "root", base / "mnt"

    def dfs(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run `dfs` with these arguments."""
        words = [sys.executable, "-m", "dfs.cli.main", *(str(word) for word in arguments)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    def __call__(self, verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self.dfs("local", verb, "--root", self.root, *arguments)

    def ok(self, verb: str, *arguments: object) -> str:
        """Run it, expecting success; what it printed."""
        done = self(verb, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> Any:
        return json.loads(self.ok("status", "--json"))

    def pids(self) -> dict[tuple[str, int], int]:
        """The living processes by role and id."""
        return {(p["role"], p["id"]): p["pid"] for p in self.status()["processes"] if p["alive"]}

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for real processes to bring it about; fails after a generous time."""
        give_up_at = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < give_up_at, "it did not come about"
