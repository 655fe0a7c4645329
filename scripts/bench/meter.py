"""What counting costs: nanoseconds of each thing that is done for one call, and one scrape.

    scripts/bench/meter.py [--times 200000]

Compare with the cost of a call as `scripts/bench/rpc.py` prints it (40 to 100 us on the machine of
ARCHITECTURE.md). The last line is what prometheus_client's own counters would cost instead.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from dfs.errors import Code
from dfs.messages.metadata import GetAttributes
from dfs.metrics.instruments import TimingsByName
from dfs.metrics.rpc import Rpc
from dfs.rpc.codec import message_classes
from dfs.rpc.meter import Meter
from dfs.runtime.real import RealEnv


def time_of(title: str, work: Callable[[], object], times: int) -> None:
    best = min(timeit.repeat(work, number=times, repeat=5)) / times
    print(f"{title:60} {best * 1e9:10.0f} ns")


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=200_000)
    times = parser.parse_args().times
    clock, meter, names = RealEnv("bench").clock, Meter(), TimingsByName()
    message = GetAttributes(1)

    def call() -> None:
        """As `Connection.call` does; it reads the clock once anyway."""
        kind = meter.calls[type(message)]
        kind.observe(clock.monotonic() - 1.0)
        kind.sent_bytes += 1

    def request() -> None:
        """As `Service.dispatch` does."""
        kind, began = meter.requests[type(message)], clock.monotonic()
        kind.received_bytes += 1
        kind.observe(clock.monotonic() - began)

    def refusal() -> None:
        meter.refusals[Code.ERRNO] += 1

    def operation() -> None:
        """As the handlers of a mount are counted, but for the coroutine around them."""
        began = clock.monotonic()
        names["lookup"].observe(clock.monotonic() - began)

    time_of("a call", call, times)
    time_of("a request", request, times)
    time_of("a refusal, besides", refusal, times)
    time_of("an operation of the kernel", operation, times)
    scrape(times)
    compare(times)


def scrape(times: int) -> None:
    """With every kind of message seen on both sides."""
    meter, collected = Meter(), CollectorRegistry()
    for kind in message_classes():
        meter.calls[kind].observe(0.001)
        meter.requests[kind].observe(0.001)
    collected.register(Rpc(meter))
    rounds = max(1, times // 20_000)
    time_of("a scrape, in the event loop", lambda: list(collected.collect()), rounds)
    time_of("a scrape, with the part in a thread", lambda: generate_latest(collected), rounds)


def compare(times: int) -> None:
    histogram = Histogram("h", "H.", ["message"], registry=CollectorRegistry())
    work = lambda: histogram.labels("GetAttributes").observe(0.001)  # noqa: E731
    time_of("prometheus_client's labels().observe()", work, times)


if __name__ == "__main__":
    run()
