"""What a disk has set aside: damaged blocks and unreadable replica files, for people to look at.

    DIR/quarantine/HANDLE.N          a replica file that could not be read, as it was
    DIR/quarantine/HANDLE.bBLOCK.N   a damaged block's bytes, before good ones were written over
                                     them; what the disk could not read of it is zeros
    DIR/quarantine/NAME.note         when and why: {"magic": "dfs quarantine note", "format": 1,
                                     "when_ns": nanoseconds since 1970, "why": TEXT}

HANDLE is 16 hex digits, BLOCK and N are decimal; N rises on each disk, so it tells the order. A
file without a note (the process ended in between) is listed all the same.

Bounded: with more than `limit_bytes` set aside, the oldest blocks go, but for the newest one.
Replica files stay until an operator clears the quarantine: one may be the last that is left of a
chunk. Everything here blocks; several threads may call at a time.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass

from dfs.layout import BLOCK_BYTES
from dfs.messages.scrubbing import QuarantinedFile
from dfs.runtime import Env

log = logging.getLogger(__name__)

NOTE_MAGIC = "dfs quarantine note"
NOTE_FORMAT = 1
NOTE_SUFFIX = ".note"
WHOLE_REPLICA = -1
_NAME = re.compile(r"([0-9a-f]{16})(?:\.b([0-9]+))?\.([0-9]+)")


@dataclass(frozen=True, slots=True)
class Kept:
    """One file set aside; `bytes` of a block found at the start is what it has at most."""

    name: str
    handle: int
    block: int  # or WHOLE_REPLICA
    number: int
    bytes: int


class Quarantine:
    """The quarantine of one data directory."""

    def __init__(self, env: Env, path: str, limit_bytes: int) -> None:
        self._env, self.path, self._limit_bytes = env, path, limit_bytes
        self._kept: dict[str, Kept] = {}
        self._numbers = itertools.count()

    def load(self) -> None:
        """Have the directory, and learn what is in it."""
        self._env.disk.make_directory(self.path)
        names = self._env.disk.list_directory(self.path)
        found = [kept for kept in map(self._found, names) if kept is not None]
        self._kept = {kept.name: kept for kept in found}
        self._numbers = itertools.count(max((kept.number for kept in found), default=-1) + 1)

    def _found(self, name: str) -> Kept | None:
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        handle, block, number = match.groups()
        if block is not None:
            return Kept(name, int(handle, 16), int(block), int(number), BLOCK_BYTES)
        return Kept(name, int(handle, 16), WHOLE_REPLICA, int(number), self._size(name))

    def _size(self, name: str) -> int:
        file = self._env.disk.open(f"{self.path}/{name}")
        try:
            return file.size()
        finally:
            file.close()

    # -- counts

    @property
    def blocks(self) -> int:
        return sum(kept.block != WHOLE_REPLICA for kept in self._all())

    @property
    def replicas(self) -> int:
        return sum(kept.block == WHOLE_REPLICA for kept in self._all())

    @property
    def total_bytes(self) -> int:
        return sum(kept.bytes for kept in self._all())

    def _all(self) -> Iterable[Kept]:
        return list(self._kept.values())

    # -- setting aside

    def add_replica(self, path: str, handle: int, why: str) -> None:
        """Take the file at `path` away from there."""
        number = next(self._numbers)
        name = f"{handle:016x}.{number}"
        self._env.disk.rename(path, f"{self.path}/{name}")
        kept = Kept(name, handle, WHOLE_REPLICA, number, self._size(name))
        self._kept[name] = kept
        log.error(
            "%s: replica %x set aside as %s/%s: %s", self._env.name, handle, *self._at(kept), why
        )
        self._note(kept, why)
        self._trim(kept)

    def add_block(self, handle: int, block: int, data: bytes, why: str) -> None:
        """Keep a block's damaged bytes; durable when this returns."""
        number = next(self._numbers)
        kept = Kept(f"{handle:016x}.b{block}.{number}", handle, block, number, len(data))
        self._env.disk.write_file(f"{self.path}/{kept.name}", data)
        self._kept[kept.name] = kept
        text = "%s: damaged block %d of replica %x set aside as %s/%s"
        log.warning(text, self._env.name, block, handle, *self._at(kept))
        self._note(kept, why)
        self._trim(kept)

    def _at(self, kept: Kept) -> tuple[str, str]:
        return self.path, kept.name

    def _note(self, kept: Kept, why: str) -> None:
        note = {
            "magic": NOTE_MAGIC,
            "format": NOTE_FORMAT,
            "when_ns": self._env.clock.wall_ns(),
            "why": why,
        }
        content = json.dumps(note).encode() + b"\n"
        self._env.disk.write_file(f"{self.path}/{kept.name}{NOTE_SUFFIX}", content)

    def _trim(self, newest: Kept) -> None:
        excess = self.total_bytes - self._limit_bytes
        if excess <= 0:
            return
        blocks = [k for k in self._all() if k.block != WHOLE_REPLICA and k is not newest]
        for kept in sorted(blocks, key=lambda k: k.number):
            if excess <= 0:
                return
            self._remove(kept)
            excess -= kept.bytes
            log.warning("%s: quarantine is full: %s/%s is gone", self._env.name, *self._at(kept))
        if excess > 0:
            text = "%s: %s holds %d bytes; `dfs scrub quarantine --clear` empties it"
            log.warning(text, self._env.name, self.path, self.total_bytes)

    # -- looking at it, and emptying it

    def page(self, after: str, limit: int) -> list[QuarantinedFile]:
        """The files with names above `after`, at most `limit`, in the order of names."""
        names = sorted(name for name in self._kept if name > after)[:limit]
        return [self._described(self._kept[name]) for name in names]

    def _described(self, kept: Kept) -> QuarantinedFile:
        when_ns, why = self._noted(f"{self.path}/{kept.name}{NOTE_SUFFIX}")
        size = self._size(kept.name)
        return QuarantinedFile(kept.name, kept.handle, kept.block, size, when_ns, why)

    def _noted(self, path: str) -> tuple[int, str]:
        if not self._env.disk.exists(path):
            return 0, ""
        try:
            note = json.loads(self._env.disk.read_file(path))
            if (note["magic"], note["format"]) == (NOTE_MAGIC, NOTE_FORMAT):
                return int(note["when_ns"]), str(note["why"])
        except (ValueError, KeyError, TypeError):
            return 0, "(its note cannot be read)"
        return 0, "(its note is of another format)"

    def clear(self) -> tuple[int, int]:
        """Delete everything, as an operator ordered; how many files and bytes it was."""
        kept = self._all()
        for each in kept:
            self._remove(each)
        files, size = len(list(kept)), sum(each.bytes for each in kept)
        text = "%s: %s cleared by an operator: %d files, %d bytes"
        log.warning(text, self._env.name, self.path, files, size)
        return files, size

    def _remove(self, kept: Kept) -> None:
        if self._kept.pop(kept.name, None) is None:
            return  # another thread did
        self._env.disk.unlink(f"{self.path}/{kept.name}")
        note = f"{self.path}/{kept.name}{NOTE_SUFFIX}"
        if self._env.disk.exists(note):
            self._env.disk.unlink(note)
