"""What leaves a handler, and what the kernel is told."""

from __future__ import annotations

import errno
import logging
from collections.abc import Coroutine
from typing import Any

import pyfuse3
import pytest
import trio

from dfs.errors import Code, Failure, os_failure
from fuse.errors import ERRNO_OF_CODE, errno_of, handler, refusal
from tests.conftest import ExpectedLogs


def answered(error: BaseException) -> int:
    """The errno that a handler answers when its work raises that."""

    @handler
    async def work() -> None:
        raise error

    return raised(work())


def raised(call: Coroutine[Any, Any, object]) -> int:
    async def main() -> None:
        await call

    with pytest.raises(pyfuse3.FUSEError) as caught:
        trio.run(main)
    return caught.value.errno


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_an_errno(code: Code, expected_logs: ExpectedLogs) -> None:
    expected_logs(f"work failed: .*{code.name}")
    assert code in ERRNO_OF_CODE
    assert answered(Failure(code, "something", errno=errno.EROFS)) > 0


def test_file_system_errors_pass_as_they_are() -> None:
    assert answered(os_failure(errno.ENOTEMPTY, "x")) == errno.ENOTEMPTY
    assert answered(refusal(errno.EBADF)) == errno.EBADF


def test_a_full_disk_is_enospc(expected_logs: ExpectedLogs) -> None:
    expected_logs("no space")
    assert answered(Failure(Code.DISK, "no space", errno=errno.ENOSPC)) == errno.ENOSPC


@pytest.mark.parametrize("code", [Code.TIMEOUT, Code.CONNECTION_LOST, Code.CORRUPT])
def test_trouble_of_the_cluster_is_eio(code: Code) -> None:
    assert errno_of(Failure(code, "x")) == errno.EIO


def test_a_bug_is_eio_and_logged_with_its_traceback(
    expected_logs: ExpectedLogs, caplog: pytest.LogCaptureFixture
) -> None:
    expected_logs("an error in this program")
    with caplog.at_level(logging.ERROR, "fuse"):
        assert answered(ZeroDivisionError("oops")) == errno.EIO
    [record] = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_groups_of_exceptions_do_not_end_the_mount(expected_logs: ExpectedLogs) -> None:
    expected_logs("an error in this program")
    assert answered(ExceptionGroup("two", [ValueError(), KeyError()])) == errno.EIO


def test_operating_system_errors_keep_their_errno(expected_logs: ExpectedLogs) -> None:
    expected_logs("work failed")
    assert answered(OSError(errno.ENOSPC, "full")) == errno.ENOSPC
    assert answered(OSError("without a number")) == errno.EIO


def test_cancellation_passes() -> None:
    reached = False

    async def main() -> None:
        nonlocal reached

        @handler
        async def work() -> None:
            await trio.sleep_forever()

        with trio.CancelScope() as scope:
            scope.cancel()
            await work()
        reached = scope.cancelled_caught

    trio.run(main)
    assert reached
