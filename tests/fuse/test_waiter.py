"""The waiter, on a socket pair in place of /dev/fuse: one byte is one request."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pyfuse3
import pytest
import trio
import trio.testing

from fuse import waiter
from fuse.waiter import REQUESTS_PER_YIELD, Waiter
from tests.conftest import ExpectedLogs


class Device:
    """The kernel's side and ours. Reading without a request fails the test instead of blocking."""

    def __init__(self) -> None:
        self.kernel, self.ours = socket.socketpair()
        self.ours.setblocking(False)
        self.waiter = Waiter(self.ours.fileno())
        self.handled = 0
        self.at_once = 0
        self.most_at_once = 0

    def request(self, count: int = 1) -> None:
        self.kernel.send(b"r" * count)

    async def serve(self, answer: trio.Event | None = None) -> None:
        """What a task of pyfuse3 does; `answer` is what its handlers wait for."""
        while await self.waiter.wait():
            assert self.ours.recv(1) == b"r"
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            if answer is not None:
                await answer.wait()
            self.at_once -= 1
            self.handled += 1

    def close(self) -> None:
        self.kernel.close()
        self.ours.close()


@pytest.fixture
def device() -> Iterator[Device]:
    made = Device()
    yield made
    made.close()


@asynccontextmanager
async def served(
    device: Device, tasks: int, answer: trio.Event | None = None
) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(device.serve, answer)
        await trio.testing.wait_all_tasks_blocked()
        yield nursery


async def settled(device: Device, handled: int) -> None:
    """Wait until that many requests are handled."""
    while device.handled < handled:
        await trio.lowlevel.checkpoint()
    await trio.testing.wait_all_tasks_blocked()


def test_every_request_is_handled_once_by_one_task_or_many(device: Device) -> None:
    async def main() -> None:
        async with served(device, 5):
            for burst in (1, 1, 40, 3, 200):
                before = device.handled
                device.request(burst)
                await settled(device, before + burst)
                assert device.handled == before + burst
            device.waiter.end()
            trio.lowlevel.notify_closing(device.ours.fileno())

    trio.run(main)


def test_requests_are_taken_while_other_handlers_wait(device: Device) -> None:
    async def main() -> None:
        answer = trio.Event()
        async with served(device, 4, answer):
            for number in range(1, 5):  # one after the other, so that each needs a new watcher
                device.request()
                while device.at_once < number:
                    await trio.lowlevel.checkpoint()
            assert device.most_at_once == 4
            answer.set()
            await settled(device, 4)
            device.waiter.end()
            trio.lowlevel.notify_closing(device.ours.fileno())

    trio.run(main)


def test_a_stream_of_requests_lets_other_tasks_run(device: Device) -> None:
    rounds = 0

    async def other() -> None:
        nonlocal rounds
        while device.handled < 1000:
            rounds += 1
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        device.request(1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.serve)
            nursery.start_soon(other)
            await settled(device, 1000)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert rounds >= 1000 // REQUESTS_PER_YIELD


def test_a_request_taken_by_another_task_is_not_reported_twice(device: Device) -> None:
    """The watcher is woken for a request which a busy task, back from its work, takes first."""

    async def main() -> None:
        async with served(device, 3):
            for _ in range(REQUESTS_PER_YIELD - 1):
                device.request()
                assert await device.waiter.wait()
                assert device.ours.recv(1) == b"r"  # before the watcher gets to run
                await trio.testing.wait_all_tasks_blocked()
            assert device.handled == 0  # none of them tried a read, which would have failed
            device.waiter.end()
            trio.lowlevel.notify_closing(device.ours.fileno())

    trio.run(main)


def test_an_error_condition_lets_every_task_go(device: Device) -> None:
    async def main() -> None:
        async with served(device, 6):
            device.kernel.close()  # POLLHUP, as /dev/fuse has POLLERR once it is unmounted

    trio.run(main)
    assert trio.run(device.waiter.wait) is False


def test_ending_lets_every_task_go_also_without_a_watcher(device: Device) -> None:
    async def main() -> None:
        answer = trio.Event()
        async with served(device, 2, answer):
            device.request(2)
            while device.at_once < 2:
                await trio.lowlevel.checkpoint()
            device.waiter.end()
            answer.set()

    trio.run(main)
    assert device.handled == 2


def test_a_cancelled_task_leaves_no_trace(device: Device) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            async with served(device, 3) as inner:
                inner.cancel_scope.cancel()
            nursery.start_soon(device.serve)
            device.request(2)
            await settled(device, 2)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_it_replaces_the_one_of_pyfuse3_and_puts_it_back(device: Device) -> None:
    stock = getattr(pyfuse3, waiter.STOCK_NAME)
    with waiter.installed(device.ours.fileno()) as fast:
        assert fast is not None
        assert getattr(pyfuse3, waiter.STOCK_NAME) == fast.wait
    assert getattr(pyfuse3, waiter.STOCK_NAME) is stock


def test_it_falls_back_where_pyfuse3_has_no_such_function(
    device: Device, monkeypatch: pytest.MonkeyPatch, expected_logs: ExpectedLogs
) -> None:
    expected_logs("cannot take the faster waiter")
    monkeypatch.delattr(pyfuse3, waiter.STOCK_NAME)
    with waiter.installed(device.ours.fileno()) as fast:
        assert fast is None
        assert not hasattr(pyfuse3, waiter.STOCK_NAME)
