"""Mount processes for tests: started, watched, and never left behind.

A mount whose process hangs would leave callers that not even SIGKILL ends, so whatever a test did,
`end` unmounts it, by force where it must, and kills the process by its pid.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from dfs.errors import Failure
from fuse import mountpoints

END_TIMEOUT_S = 30.0


class MountProcess:
    """`python -m MODULE MOUNTPOINT OPTIONS`, until `end`."""

    def __init__(self, mountpoint: Path, log: IO[str], module: str, options: Sequence[str]) -> None:
        self.mountpoint = mountpoint
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(mountpoint), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        line = self._read_line()
        assert line == "ready", f"the mount process said {line!r}"

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def order(self, what: object) -> Any:
        """Have a `cluster_mount` do something; its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._read_line())

    def wait_end(self) -> tuple[int, str]:
        """Its exit code and the rest of what it said."""
        rest, _ = self._process.communicate(timeout=END_TIMEOUT_S)
        return self._process.returncode, rest.strip()

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        """Leave nothing behind, in whatever state it is."""
        try:
            while mountpoints.mounted_at(str(self.mountpoint)):
                mountpoints.unmount(str(self.mountpoint), lazy=False)
        except Failure:
            self._abort()
        try:
            self._process.communicate(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def _abort(self) -> None:
        while mounted := mountpoints.mounted_at(str(self.mountpoint)):
            mountpoints.abort(mounted)


@contextlib.contextmanager
def mount_process(
    mountpoint: Path,
    log_path: Path,
    module: str = "tests.fuse.memory_mount",
    options: Sequence[str] = (),
) -> Iterator[MountProcess]:
    """A running mount of that kind at that directory."""
    with contextlib.suppress(FileExistsError):  # and cannot be looked at when its client is dead
        mountpoint.mkdir()
    with log_path.open("a") as log:
        process = MountProcess(mountpoint, log, module, options)
        try:
            process.wait_ready()
            yield process
        finally:
            process.end()


def is_mounted(path: Path) -> bool:
    return mountpoints.mounted_at(str(path)) is not None


def unmount(path: Path) -> None:
    """Unmount in the ordinary way; the test fails when the mount is in use."""
    try:
        mountpoints.unmount(str(path), lazy=False)
    except Failure as failure:
        raise AssertionError(f"{failure.message}; open: {os.listdir('/proc/self/fd')}") from failure
