"""How a `Failure` travels: the header of an ERROR or REJECT frame. Wire id 200.

dfs/rpc has its own message for this, because `dfs.messages` stands on this package.
"""

from __future__ import annotations

from dfs.errors import Code, Failure
from dfs.rpc.codec import message

_TEXT_MAX_CHARS = 4096  # of a sentence or a detail; longer ones are cut

_CODES = {int(code): code for code in Code}


@message(200)
class Problem:
    """The fields of `dfs.errors.Failure`."""

    code: int
    errno: int
    message: str
    detail: str = ""


def to_problem(failure: Failure) -> Problem:
    """The wire form; text that is no UTF-8 (a file name in a sentence) is replaced."""
    return Problem(failure.code, failure.errno, _clean(failure.message), _clean(failure.detail))


def to_failure(problem: Problem) -> Failure:
    """The exception; a code from a newer peer becomes ERRNO, whose errno says enough."""
    code = _CODES.get(problem.code, Code.ERRNO)
    return Failure(code, problem.message, errno=problem.errno, detail=problem.detail)


def _clean(text: str) -> str:
    return text[:_TEXT_MAX_CHARS].encode("utf-8", "replace").decode("utf-8")
