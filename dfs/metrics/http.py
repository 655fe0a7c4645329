"""Just enough HTTP/1.1 for GET: a request's bytes to its path, an answer to its bytes.

No I/O. Every connection carries one request; what follows it is not looked at, and the answer says
that the connection is closed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

END_OF_HEAD = b"\r\n\r\n"
TEXT, JSON = "text/plain; charset=utf-8", "application/json"

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,2048}) HTTP/1\.[01]")
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class BadRequest(Exception):
    """A request that is answered with an error. `status` is HTTP's; the text says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for. `head`: without the body."""

    path: str
    head: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered."""

    status: int
    body: bytes
    content_type: str = TEXT


def parse(head: bytes) -> Asked:
    """The request whose head (up to the empty line) that is. Raises BadRequest."""
    line = head.split(b"\r\n", 1)[0]
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadRequest(400, f"it sent {line[:40]!r}, which is no HTTP request")
    method, target = match[1].decode(), match[2].decode()
    if method not in ("GET", "HEAD"):
        raise BadRequest(405, f"it asked {method} of {target[:40]!r}; only GET is known here")
    return Asked(target.partition("?")[0], method == "HEAD")


def render(answer: Answer, *, head: bool = False) -> list[bytes]:
    """The answer's bytes, in one or two buffers."""
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "Connection: close",
        "",
        "",
    ]
    start = "\r\n".join(lines).encode("ascii")
    return [start] if head else [start, answer.body]


def as_json(status: int, value: object) -> Answer:
    """An answer of one JSON value on one line."""
    return Answer(status, json.dumps(value, ensure_ascii=False).encode() + b"\n", JSON)


def refusal(error: BadRequest) -> Answer:
    """What somebody who cannot be served is told."""
    return Answer(error.status, f"{error.why}\n".encode())
