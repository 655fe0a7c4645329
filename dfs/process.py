"""What every long-running process does alike: log lines, signals, an orderly end.

A process logs to standard error, one line per event (`dfs.logs` has their forms). SIGTERM and
SIGINT set the stop event; the process then finishes what it owes and exits 0. A `Failure` while
starting is one clear line and exit code 2 for a wrong configuration, 1 otherwise.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Awaitable, Callable

import trio

from dfs.config import Log
from dfs.errors import Code, Failure, first_failure
from dfs.logs import LogHandler, formatter

log = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_CONFIG = 2


def log_to_stderr(
    node: str, *, verbose: bool = False, log_format: str = "text", limits: Log | None = None
) -> None:
    """Set up logging for this process, as text or json; every line names the node."""
    handler = LogHandler(sys.stderr, limits or Log())
    handler.setFormatter(formatter(log_format, node))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    # pysyncobj logs through the root logger's children at a level of its own.
    logging.getLogger("pysyncobj").setLevel(logging.WARNING)


def run_process(main: Callable[[trio.Event], Awaitable[None]]) -> int:
    """Run `main(stop)` under trio until it ends; the process's exit code."""
    try:
        trio.run(_until_signalled, main)
    except BaseExceptionGroup as group:
        failures, rest = group.split(Failure)
        if rest is not None or failures is None:
            raise
        return _report(first_failure(failures))
    except Failure as error:
        return _report(error)
    return 0


async def _until_signalled(main: Callable[[trio.Event], Awaitable[None]]) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, stop)
        await main(stop)
        nursery.cancel_scope.cancel()


async def _watch_signals(stop: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: stopping", signal.Signals(number).name)
            stop.set()


def _report(error: Failure) -> int:
    print(f"dfs: {error.message}", file=sys.stderr)
    return EXIT_CONFIG if error.code is Code.CONFIG else EXIT_FAILED
