"""The one place where an error becomes what the kernel is told.

Owns the table from `dfs.errors.Code` to an errno, and `handler`, which every operation the kernel
may call is wrapped in. pyfuse3 ends the whole mount when a handler raises anything but
`FUSEError`, so nothing else may leave a handler: a bug is logged with its traceback and answered
as EIO, and the mount lives on.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pyfuse3

from dfs.errors import Code, Failure

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

# None: the failure's own errno, which the master or a disk chose for the application. What only
# this system understands (no leader in time, no replica left) is an input/output error to an
# application: codes such as ETIMEDOUT are nothing that programs expect of a file system.
ERRNO_OF_CODE: dict[Code, int | None] = {
    Code.ERRNO: None,
    Code.NOT_LEADER: errno.EIO,
    Code.OUTCOME_UNKNOWN: errno.EIO,
    Code.UNAVAILABLE: errno.EIO,
    Code.CONNECTION_LOST: errno.EIO,
    Code.TIMEOUT: errno.EIO,
    Code.OVERLOADED: errno.EIO,
    Code.BAD_MESSAGE: errno.EIO,
    Code.UNAUTHENTICATED: errno.EACCES,
    Code.NO_SESSION: errno.ESTALE,
    Code.STALE_VERSION: errno.EIO,
    Code.NO_REPLICA: errno.EIO,
    Code.CORRUPT: errno.EIO,
    Code.CHAIN_BROKEN: errno.EIO,
    Code.DISK: None,
    Code.CONFIG: errno.EINVAL,
}


def errno_of(error: Failure | OSError) -> int:
    """The errno an application sees for this error."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    chosen = ERRNO_OF_CODE.get(error.code, errno.EIO)
    return error.errno if chosen is None else chosen


def refusal(number: int) -> pyfuse3.FUSEError:
    """The exception that answers the kernel with an errno of our own finding."""
    return pyfuse3.FUSEError(number)


def handler(
    function: Callable[P, Awaitable[T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Wrap an operation so that `FUSEError` (and cancellation) is all that leaves it."""
    name = function.__name__

    @functools.wraps(function)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Failure as failure:
            # An errno is an answer like any other; the rest is trouble that somebody will look for.
            if failure.code is not Code.ERRNO:
                log.warning("%s failed: %s (%s)", name, failure.message, failure.code.name)
            raise pyfuse3.FUSEError(errno_of(failure)) from None
        except OSError as error:
            log.warning("%s failed: %s", name, error)
            raise pyfuse3.FUSEError(errno_of(error)) from None
        except Exception:
            log.exception("%s: an error in this program, answered as EIO", name)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return guarded
