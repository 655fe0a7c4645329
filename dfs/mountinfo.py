"""The kernel's mount table: what is mounted where.

Read from /proc/self/mountinfo, never by a look at the mountpoint itself: that would be a request to
the process behind it, which may be dead, hang, or be the very one that looks.

Fields of a line: mount id, parent id, major:minor, root, mountpoint, options, optional fields up to
a lone `-`, file system type, source, more options. Blanks and backslashes are octal escapes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MOUNTINFO = "/proc/self/mountinfo"
_DEVICE, _MOUNTPOINT = 2, 4
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of mountinfo."""

    device: str  # major:minor
    mountpoint: str
    kind: str  # file system type: ext4, fuse.dfs, ...
    source: str


def mount_table() -> list[Mounted]:
    """Everything mounted, oldest first; the last entry of a mountpoint is the one seen there."""
    with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        return parse(file.read())


def mounted_at(path: str) -> Mounted | None:
    """What is mounted exactly at this absolute path without symlinks, on top."""
    found = [entry for entry in mount_table() if entry.mountpoint == path]
    return found[-1] if found else None


def parse(text: str) -> list[Mounted]:
    """The mounts in a mountinfo, in the order they were made."""
    return [_parse_line(line) for line in text.split("\n") if line]


def _parse_line(line: str) -> Mounted:
    before, _, after = line.partition(" - ")
    fields, kind_and_source = before.split(" "), after.split(" ")
    mountpoint, source = _unescaped(fields[_MOUNTPOINT]), _unescaped(kind_and_source[1])
    return Mounted(fields[_DEVICE], mountpoint, kind_and_source[0], source)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
