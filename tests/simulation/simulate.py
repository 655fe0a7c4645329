"""`scripts/simulate`: run many seeds of the whole cluster, at most two at a time.

Each seed is a process of its own. A failing one is printed with its error, the last steps of its
clients, and how to run it again with the log.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import logging
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

from tests.simulation.swarm import run_seed

PROCESSES = 2
STEPS_SHOWN = 15


def main() -> int:
    arguments = _arguments()
    if arguments.log:
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s: %(message)s")
        logging.getLogger("tests").setLevel(logging.DEBUG)
    first, _, end = arguments.seeds.partition(":")
    seeds = range(int(first), int(end) if end else int(first) + 1)
    if len(seeds) == 1:
        failed = not _run(seeds[0], arguments.seconds, arguments.faults)
    else:
        failed = _run_all(seeds, arguments) > 0
    return int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", default="0:20", metavar="A:B", help="B not included; or one")
    parser.add_argument("--seconds", type=float, default=30.0, help="virtual, of each seed's work")
    parser.add_argument("--no-faults", dest="faults", action="store_false")
    parser.add_argument("--log", action="store_true", help="show the log (with one seed)")
    return parser.parse_args()


def _run_all(seeds: range, arguments: argparse.Namespace) -> int:
    """The number of seeds that failed."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        PROCESSES, mp_context=context, max_tasks_per_child=1
    ) as pool:
        runs = [pool.submit(_run, s, arguments.seconds, arguments.faults) for s in seeds]
        failed = [s for s, run in zip(seeds, runs, strict=True) if not run.result()]
    print(f"{len(seeds) - len(failed)} of {len(seeds)} seeds passed")
    for seed in failed:
        print(f"again: scripts/simulate --log --seconds {arguments.seconds:g} --seeds {seed}")
    return len(failed)


def _run(seed: int, seconds: float, faults: bool) -> bool:
    began = time.monotonic()
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory(prefix="dfs-simulate-") as directory:
        history: list[str] = []
        try:
            run = run_seed(seed, Path(directory), seconds=seconds, faults=faults, history=history)
        except Exception as error:  # noqa: BLE001  whatever it is, it is the seed's result
            print(f"seed {seed} FAILED after {time.monotonic() - began:.1f} s: {_inner(error)!r}")
            print("\n".join(f"    {line}" for line in history[-STEPS_SHOWN:]), flush=True)
            return False
    struck = ", ".join(f"{kind} {count}" for kind, count in sorted(run.struck.items()))
    print(
        f"seed {seed} ok in {time.monotonic() - began:.1f} s: {run.steps} steps,"
        f" {run.chunks} chunks, slowest {run.slowest.seconds:.2f} s ({run.slowest.step}); {struck}",
        flush=True,
    )
    return True


def _inner(error: Exception) -> BaseException:
    inner: BaseException = error
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner


if __name__ == "__main__":
    sys.exit(main())
