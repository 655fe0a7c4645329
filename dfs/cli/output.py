"""Everything the command line prints: lines, tables, JSON, sizes, times, names and errors.

File names are bytes. They go to a pipe as they are; on a terminal, what could drive the terminal
(control characters, bytes that are not UTF-8) is shown as \\xNN. Results go to standard output,
everything else to standard error.
"""

from __future__ import annotations

import datetime
import json
import os
import stat
import sys
from collections.abc import Sequence

_UNITS = ("B", "K", "M", "G", "T", "P", "E")
_TIMES = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def line(text: str = "") -> None:
    """One line on standard output; surrogate escapes become the bytes they stand for."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(text) + b"\n")
    sys.stdout.buffer.flush()


def lines(texts: Sequence[str]) -> None:
    """Many lines in one write."""
    if texts:
        line("\n".join(texts))


def emit_json(value: object) -> None:
    """A result for programs: one JSON document, names as text with surrogate escapes."""
    line(json.dumps(value, indent=2, ensure_ascii=True))


def complain(text: str) -> None:
    """One line on standard error: what is wrong, as `dfs: ...`."""
    one_line = " ".join(text.split("\n"))
    sys.stderr.write(f"dfs: {printable(one_line)}\n")
    sys.stderr.flush()


def remark(text: str) -> None:
    """One line on standard error that is no error: a step of the work, a word of warning."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def printable(text: str) -> str:
    """The text with everything escaped that a terminal would not simply show."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def shown(name: bytes) -> str:
    """A file name for people: escaped on a terminal, as it is elsewhere."""
    text = os.fsdecode(name)
    return printable(text) if sys.stdout.isatty() else text


def quoted(path: bytes) -> str:
    """A path inside an error's sentence."""
    return printable(os.fsdecode(path))


def human_bytes(count: int) -> str:
    """A size in at most five characters: 0B, 999B, 1.5K, 12M, 3.0T (powers of 1024)."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    if unit == 0:
        return f"{count}B"
    return f"{value:.1f}{_UNITS[unit]}" if value < 9.95 else f"{value:.0f}{_UNITS[unit]}"


def timestamp(time_ns: int) -> str:
    """Local time to the second."""
    try:
        return datetime.datetime.fromtimestamp(time_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return str(time_ns // 1_000_000_000)


def kind(mode: int) -> str:
    """The type of an inode in a word."""
    return _KINDS.get(stat.S_IFMT(mode), "unknown")


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Rows as aligned columns, two blanks apart; the columns in `right` are flushed right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    return ["  ".join(_aligned(row, widths, right)).rstrip() for row in rows]


def _aligned(row: Sequence[str], widths: list[int], right: frozenset[int]) -> list[str]:
    return [
        cell.rjust(width) if i in right else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def duration(seconds: float) -> str:
    """A time for people: 42 s, 4 min 18 s, 16 min, 2 h 5 min, 3 d 4 h.

    Two units while the larger counts less than ten: more would be read past.
    """
    whole = max(0, round(seconds))
    for size, unit, next_size, next_unit in _TIMES:
        if whole >= size:
            count, rest = divmod(whole, size)
            second = rest // next_size
            return f"{count} {unit}" + (f" {second} {next_unit}" if second and count < 10 else "")
    return f"{whole} s"


def counted(count: int, noun: str) -> str:
    """`1 chunk`, `12 chunks`: for nouns that take an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
