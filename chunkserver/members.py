"""Where the masters are, remembered on this server's disks over restarts.

Its configuration names those masters that there were when it was written; they may all have been
replaced since. What a leader told last is kept in each data directory, in the file `masters`:
magic "dfsmasters 1", then a line for each address. A file that is lost costs nothing as long as
one configured master is left.
"""

from __future__ import annotations

import logging

from dfs.runtime import Env

log = logging.getLogger(__name__)

_NAME = "masters"
_MAGIC = "dfsmasters 1"


class MembersFile:
    """The addresses told last. Reads and writes a few bytes, rarely."""

    def __init__(self, env: Env, directories: tuple[str, ...]) -> None:
        self._env, self._directories = env, directories

    def read(self) -> tuple[str, ...]:
        """What the first disk that knows any remembers."""
        return next(filter(None, map(self._stored, self._directories)), ())

    def write(self, addresses: tuple[str, ...]) -> None:
        """Remember them on every disk that works."""
        content = "\n".join((_MAGIC, *addresses, "")).encode()
        for directory in self._directories:
            try:
                self._env.disk.write_file(f"{directory}/{_NAME}", content)
            except OSError as error:
                log.warning("%s: %s/%s not written: %s", self._env.name, directory, _NAME, error)

    def _stored(self, directory: str) -> tuple[str, ...]:
        path = f"{directory}/{_NAME}"
        try:
            content = self._env.disk.read_file(path) if self._env.disk.exists(path) else b""
            magic, *addresses = content.decode().splitlines() or [""]
        except (OSError, UnicodeDecodeError) as error:
            log.warning("%s: %s cannot be read: %s", self._env.name, path, error)
            return ()
        return tuple(addresses) if magic == _MAGIC else ()
