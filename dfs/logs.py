"""The lines of a process's log: text for people, JSON for machines, and not too many of one kind.

JSON, one object per line: `ts` (RFC 3339, UTC, milliseconds), `level`, `node`, `logger`, `message`,
`exception` where there is one, and whatever the call gave as `extra` (chunk, inode, session,
server, term and the like). Text lines say all of that in the message.

A kind of line is a logger and a template for warnings; for errors it is the whole line, since each
error names something else to look after. What is below or above these is never held back. Of a
kind `similar_lines` are written in `similar_interval_s`; in place of the next stands that more will
only be counted, and the count is told before the first line of whatever kind after the interval,
or at the end of the process.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO

from dfs.config import Log

TEXT_LAYOUT = "%(asctime)s.%(msecs)03d %(levelname)-7s {node} %(name)s: %(message)s"

# What every record has; the rest is what the call gave as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def formatter(log_format: str, node: str) -> logging.Formatter:
    """For `text` or `json`; every line names the node."""
    if log_format == "json":
        return JsonFormatter(node)
    layout = TEXT_LAYOUT.replace("{node}", node.replace("%", "%%"))
    return logging.Formatter(layout, datefmt="%Y-%m-%d %H:%M:%S")


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """A value that JSON has no form for is written as text."""
        fields: dict[str, object] = {
            "ts": _rfc3339(record.created),
            "level": record.levelname,
            "node": self._node,
            "logger": record.name,
            "message": record.getMessage(),
        }
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD and k not in fields}
        if record.exc_info:
            extra["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields | extra, ensure_ascii=True, default=str)


def _rfc3339(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Kind = tuple[str, str]


@dataclass(slots=True)
class _Seen:
    """Lines of one kind in the present interval."""

    since: float
    example: logging.LogRecord
    count: int = 0


class Repeats:
    """Decides which lines are written. Takes the time from the records."""

    def __init__(self, limits: Log) -> None:
        self._limits = limits
        self._seen: OrderedDict[Kind, _Seen] = OrderedDict()  # by the beginning of the interval

    def admit(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """What is to be written now: counts that are due, and the record unless it is too much."""
        due = self._ended(record.created)
        kind = _kind(record)
        if kind is None:
            return [*due, record]
        seen = self._seen.get(kind)
        if seen is None:
            seen = self._seen[kind] = _Seen(record.created, record)
        seen.count += 1
        if len(self._seen) > self._limits.max_kinds:
            due += _told(self._seen.popitem(last=False)[1], self._limits)
        if seen.count <= self._limits.similar_lines:
            return [*due, record]
        if seen.count == self._limits.similar_lines + 1:
            return [*due, self._announcement(record)]
        return due

    def rest(self) -> list[logging.LogRecord]:
        """At the end of the process: the counts that nobody has been told."""
        seen, self._seen = self._seen, OrderedDict()
        return [line for each in seen.values() for line in _told(each, self._limits)]

    def _ended(self, now: float) -> list[logging.LogRecord]:
        """Close the intervals that are over, and those that a clock set back left in the future."""
        due: list[logging.LogRecord] = []
        while self._seen:
            kind, seen = next(iter(self._seen.items()))
            if 0 <= now - seen.since < self._limits.similar_interval_s:
                break
            del self._seen[kind]
            due += _told(seen, self._limits)
        return due

    def _announcement(self, record: logging.LogRecord) -> logging.LogRecord:
        seconds = self._limits.similar_interval_s
        text = "more such lines are only counted for up to %g s: %s"
        return _line(record, text, (seconds, record.getMessage()))


def _kind(record: logging.LogRecord) -> Kind | None:
    """None: the line is always written."""
    if record.levelno == logging.WARNING:
        return record.name, str(record.msg)
    if record.levelno == logging.ERROR:
        return record.name, record.getMessage()
    return None


def _told(seen: _Seen, limits: Log) -> list[logging.LogRecord]:
    suppressed = seen.count - limits.similar_lines
    if suppressed <= 0:
        return []
    text = "suppressed %d similar lines in %g s, the first was: %s"
    arguments = (suppressed, limits.similar_interval_s, seen.example.getMessage())
    return [_line(seen.example, text, arguments)]


def _line(like: logging.LogRecord, text: str, arguments: tuple[object, ...]) -> logging.LogRecord:
    return logging.LogRecord(
        like.name, like.levelno, like.pathname, like.lineno, text, arguments, None
    )


class LogHandler(logging.StreamHandler[IO[str]]):
    """Writes what `Repeats` admits."""

    def __init__(self, stream: IO[str], limits: Log) -> None:
        super().__init__(stream)
        self._repeats = Repeats(limits)

    def emit(self, record: logging.LogRecord) -> None:
        for line in self._repeats.admit(record):
            super().emit(line)

    def close(self) -> None:
        """At the end of the process."""
        for line in self._repeats.rest():
            super().emit(line)
        super().close()
