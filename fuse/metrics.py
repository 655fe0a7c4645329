"""What the kernel asks of a mount: how long each operation takes, and what it is answered.

`FuseMeter.watch` puts itself around the handlers of one `Operations`, so that these know nothing
of it. What leaves a handler is an answer or a `FUSEError` (`fuse.errors.handler`), or it was
cancelled.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pyfuse3
from prometheus_client.core import Metric

from dfs.metrics.families import counter, histogram
from dfs.metrics.instruments import CountsByName, Timings, TimingsByName
from dfs.runtime import Env

Handler = Callable[..., Awaitable[Any]]


class FuseMeter:
    """Counts for one mount, and tells."""

    def __init__(self, env: Env) -> None:
        self._clock = env.clock
        self._timings = TimingsByName()
        self._errors = CountsByName()

    def watch(self, operations: pyfuse3.Operations) -> None:
        """Count every operation whose handler `fuse.errors.handler` has made."""
        for name in dir(type(operations)):
            if hasattr(getattr(type(operations), name), "__wrapped__"):
                handler = getattr(operations, name)
                setattr(operations, name, self._around(handler, self._timings[name]))

    def _around(self, handler: Handler, timings: Timings) -> Handler:
        clock, errors = self._clock, self._errors

        async def counted(*args: object) -> object:
            began = clock.monotonic()
            try:
                return await handler(*args)
            except pyfuse3.FUSEError as error:
                errors[errno.errorcode.get(error.errno, str(error.errno))] += 1
                raise
            finally:
                timings.observe(clock.monotonic() - began)

        return counted

    def collect(self) -> Iterator[Metric]:
        yield histogram(
            "dfs_fuse_operation_duration_seconds",
            "Operations that the kernel asked for.",
            self._timings,
            "operation",
        )
        yield counter(
            "dfs_fuse_errors",
            "Operations answered with an error, most of them what programs expect (ENOENT).",
            self._errors,
            ("errno",),
        )
