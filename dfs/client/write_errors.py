"""The write errors of one file, and who has been told of which.

An error is counted when a packet, a commit or a sync fails for good; what could not be written is
gone then, as it is with a local file system. From there on nothing may drop it:

- `write` reports it once per handle, and does not take its data;
- `sync` reports it once per handle, whatever `write` and `flush` have said: only a successful
  fsync promises that all data is safe;
- `flush` reports it until the handle's `sync` has: the kernel flushes at each close of a
  descriptor, also of a duplicate in another process that ends and looks at no error;
- `close` reports it when nothing else on the handle has.

A handle is told of what happened while it was open for writing. What no `write` or `sync` has told
anybody is left to the next `sync` of a handle opened later, be it by another program.
"""

from __future__ import annotations

from dfs.errors import Failure


class WriteErrors:
    """One file's errors. Outlives its handles."""

    __slots__ = ("_newest", "count", "raised", "told")

    def __init__(self) -> None:
        self.count = 0
        self.told = 0  # up to which of them a `write` or `sync` has told somebody
        self.raised = 0  # the same of any call at all, whether or not somebody has listened
        self._newest: Failure | None = None

    def add(self, failure: Failure) -> None:
        """One more."""
        self.count += 1
        self._newest = failure

    def newest(self) -> Failure:
        """What went wrong last; a new exception each time."""
        failure = self._newest
        assert failure is not None, "no write error"
        return Failure(failure.code, failure.message, errno=failure.errno, detail=failure.detail)


class ErrorCursor:
    """How far one handle has reported. The methods raise Failure when there is news."""

    def __init__(self, errors: WriteErrors) -> None:
        self._errors = errors
        self._opened_at = errors.count
        self._by_write = self._by_any = errors.count
        self._by_sync = errors.told

    def before_write(self) -> None:
        if self._by_write < self._errors.count:
            self._by_write = self._errors.count
            self._tell()

    def after_flush(self) -> None:
        if max(self._by_sync, self._opened_at) < self._errors.count:
            self._raise()

    def after_sync(self) -> None:
        if self._by_sync < self._errors.count:
            self._by_sync = self._by_write = self._errors.count
            self._tell()

    def at_close(self) -> None:
        if self._by_any < self._errors.count:
            self._raise()

    def _tell(self) -> None:
        self._errors.told = self._errors.count
        self._raise()

    def _raise(self) -> None:
        self._by_any = self._errors.raised = self._errors.count
        raise self._errors.newest()
