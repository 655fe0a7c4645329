"""Standard input and output as ends of a copy, without holding up the session's heartbeats."""

from __future__ import annotations

import errno
import os

import trio

from dfs.cli.local_side import write_all
from dfs.runtime import Buffer, Env

STDIN, STDOUT = 0, 1


class StandardInput:
    """Standard input as a `sides.Source`. Left open: it is not ours."""

    def __init__(self, env: Env) -> None:
        self._env = env

    async def read(self, length_bytes: int) -> Buffer:
        if await self._readable():
            return os.read(STDIN, length_bytes)
        return await self._env.run_blocking(lambda: os.read(STDIN, length_bytes))

    async def _readable(self) -> bool:
        """Wait for a pipe or terminal, so that Ctrl-C is heard; False for a plain file."""
        try:
            await trio.lowlevel.wait_readable(STDIN)
        except OSError as error:
            if error.errno != errno.EPERM:  # what epoll says of a regular file
                raise
            return False
        return True

    async def close(self) -> None:
        pass


class StandardOutput:
    """Standard output, written in a thread because a pipe's reader may take its time."""

    def __init__(self, env: Env) -> None:
        self._env = env

    async def write(self, data: Buffer) -> None:
        await self._env.run_blocking(lambda: write_all(STDOUT, data))
