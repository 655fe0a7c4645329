"""Which group of masters this server belongs to, remembered on its disks.

A group of masters that is founded anew (from a survivor, or from a dump) has a higher lineage than
the one that it replaces. A server that has registered with it once must never again take orders of
the old one, whose masters may come back: to them, every chunk made since is unknown, and to be
deleted. So the highest number is kept in each data directory, in the file `lineage`: magic
"dfslineage 1 ", the number in decimal, a newline. Without the file it is 0.
"""

from __future__ import annotations

import logging

from dfs.errors import Code, Failure
from dfs.runtime import Env

log = logging.getLogger(__name__)

_NAME = "lineage"
_MAGIC = b"dfslineage 1 "


class Lineage:
    """The highest number seen. Reads and writes a few bytes, rarely."""

    def __init__(self, env: Env, directories: tuple[str, ...]) -> None:
        self._env, self._directories = env, directories
        self._known: int | None = None  # not read yet

    def known(self) -> int:
        """The highest that any of the disks remembers."""
        if self._known is None:
            self._known = max(map(self._stored, self._directories), default=0)
        return self._known

    def learn(self, number: int) -> None:
        """The leader that was just registered with has this one.

        Raises Failure(CONFIG) for one that was replaced, DISK when no disk can remember it.
        """
        if number < self.known():
            text = "this master belongs to a group that was replaced; its orders are refused"
            raise Failure(Code.CONFIG, text)
        if number == self.known():
            return
        kept = [self._store(directory, number) for directory in self._directories]
        if not any(kept):
            raise Failure(Code.DISK, "no disk can remember which group of masters is the right one")
        self._known = number
        log.warning("%s: a group of masters founded anew has taken over", self._env.name)

    def _stored(self, directory: str) -> int:
        path = f"{directory}/{_NAME}"
        try:
            content = self._env.disk.read_file(path) if self._env.disk.exists(path) else b""
            return int(content.removeprefix(_MAGIC)) if content.startswith(_MAGIC) else 0
        except (OSError, ValueError) as error:
            log.error("%s: %s cannot be read: %s", self._env.name, path, error)
            return 0

    def _store(self, directory: str, number: int) -> bool:
        try:
            content = _MAGIC + str(number).encode() + b"\n"
            self._env.disk.write_file(f"{directory}/{_NAME}", content)
        except OSError as error:
            log.error("%s: %s cannot be written: %s", self._env.name, directory, error)
            return False
        return True
