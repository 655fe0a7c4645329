"""Notices to the kernel: in order, from a thread, bounded, unknown ones ignored."""

from __future__ import annotations

import errno
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio

from dfs.errors import Code, Failure
from dfs.runtime.real import RealEnv
from fuse.invalidation import ForgetInode, ForgetName, Invalidation
from tests.conftest import ExpectedLogs


class Kernel:
    """Takes notices; may be told to block, or to refuse."""

    def __init__(self) -> None:
        self.taken: list[object] = []
        self.threads: set[int] = set()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.error: OSError | None = None

    def invalidate_inode(self, inode: int, attr_only: bool) -> None:
        self._take((inode, attr_only))

    def invalidate_entry(self, inode_p: int, name: bytes) -> None:
        self._take((inode_p, name))

    def _take(self, what: object) -> None:
        self.threads.add(threading.get_ident())
        self.may_go_on.wait()
        self.taken.append(what)
        if self.error is not None:
            raise self.error


def run_with(kernel: Kernel, body: Callable[[Invalidation], Awaitable[None]], limit: int) -> None:
    async def main() -> None:
        invalidation = Invalidation(RealEnv("test"), limit, kernel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(invalidation.run)
            await body(invalidation)
            invalidation.stop()
            await invalidation.idle.wait()

    trio.run(main)


def test_notices_go_out_in_order_from_a_thread() -> None:
    kernel = Kernel()

    async def body(invalidation: Invalidation) -> None:
        for number in range(1000):
            done = invalidation.submit(
                ForgetName(number, b"n") if number % 2 else ForgetInode(number, number % 3 == 0)
            )
        await done.wait()

    run_with(kernel, body, 1000)
    assert kernel.taken == [(n, b"n") if n % 2 else (n, n % 3 == 0) for n in range(1000)]
    assert threading.get_ident() not in kernel.threads


def test_what_the_kernel_does_not_know_is_done() -> None:
    kernel = Kernel()
    kernel.error = OSError(errno.ENOENT, "unknown")

    async def body(invalidation: Invalidation) -> None:
        await invalidation.submit(ForgetInode(5)).wait()
        await invalidation.submit(ForgetName(1, b"x")).wait()

    run_with(kernel, body, 10)
    assert kernel.taken == [(5, False), (1, b"x")]


def test_another_error_is_logged_and_the_rest_sent(expected_logs: ExpectedLogs) -> None:
    expected_logs("the kernel did not take ForgetInode")
    kernel = Kernel()
    kernel.error = OSError(errno.EBADF, "closed")

    async def body(invalidation: Invalidation) -> None:
        invalidation.submit(ForgetInode(5))
        await invalidation.submit(ForgetInode(6)).wait()

    run_with(kernel, body, 10)
    assert kernel.taken == [(5, False), (6, False)]


def test_the_queue_is_bounded_and_the_loop_goes_on_while_the_kernel_blocks() -> None:
    kernel = Kernel()
    kernel.may_go_on.clear()

    async def body(invalidation: Invalidation) -> None:
        invalidation.submit(ForgetInode(0))
        while not kernel.threads:
            await trio.lowlevel.checkpoint()  # the loop runs, the thread is in the kernel
        waiting = [invalidation.submit(ForgetInode(number)) for number in range(1, 4)]
        with pytest.raises(Failure) as caught:
            invalidation.submit(ForgetInode(4))
        assert caught.value.code is Code.OVERLOADED
        kernel.may_go_on.set()
        for done in waiting:
            await done.wait()

    run_with(kernel, body, 3)
    assert kernel.taken == [(number, False) for number in range(4)]


def test_after_the_end_nothing_is_taken() -> None:
    async def body(invalidation: Invalidation) -> None:
        invalidation.stop()
        with pytest.raises(Failure) as caught:
            invalidation.submit(ForgetInode(1))
        assert caught.value.code is Code.UNAVAILABLE

    run_with(Kernel(), body, 3)
