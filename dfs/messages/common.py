"""Messages that several protocols share. Wire ids 1 to 19."""

from __future__ import annotations

from dfs.rpc.codec import message


@message(1)
class Credentials:
    """On whose behalf an operation runs. uid 0 passes every permission check."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


ROOT = Credentials(0, 0)


@message(2)
class Attributes:
    """An inode as `stat(2)` shows it, times in nanoseconds since 1970 UTC.

    `data_version` rises with every change of the file's data or size: equal versions mean equal
    contents, so a client may keep its pages. `allocated_bytes` is what `st_blocks` shows.
    """

    inode: int
    mode: int  # type and permission bits
    nlink: int
    uid: int
    gid: int
    rdev: int
    size_bytes: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    data_version: int
    allocated_bytes: int = 0


@message(3)
class Done:
    """The answer where success is all there is to say."""


@message(4)
class Refused:
    """The answer of an operation that failed: see `dfs.errors.Failure` for the fields."""

    code: int
    errno: int
    message: str
    detail: str = ""
