"""The commands of a session: every change of the namespace. Wire ids 20 to 59.

A client sends them numbered, in a `Submit` (C3); the master applies each number once and keeps
its answer. Each names the credentials it runs under; the master enforces ownership, sticky bits
and the parent's write and search permission (`access(2)` rules, root passes). An operation that
fails answers `Refused` with the errno of the corresponding system call and changes nothing.

Answers: creating operations and `SetAttributes` answer `Attributes` of the inode concerned,
`AllocateChunks` answers `ChunkMap` (in `metadata`), the others `Done`.
"""

from __future__ import annotations

import enum

from dfs.messages.common import Credentials
from dfs.rpc.codec import message


class RenameFlags(enum.IntFlag):
    """renameat2(2)."""

    NONE = 0
    NOREPLACE = 1
    EXCHANGE = 2


class XattrFlags(enum.IntFlag):
    """setxattr(2)."""

    NONE = 0
    CREATE = 1
    REPLACE = 2


@message(20)
class Create:
    """open(O_CREAT): a regular file. An existing one is answered unless `exclusive` (EEXIST).

    An existing directory answers EISDIR, any other existing kind is answered as it is.
    """

    parent: int
    name: bytes
    mode: int  # permission bits only; the caller has applied its umask
    exclusive: bool
    caller: Credentials


@message(21)
class MakeNode:
    """mknod(2): regular file, fifo, socket or device, by the type in `mode`."""

    parent: int
    name: bytes
    mode: int
    rdev: int
    caller: Credentials


@message(22)
class MakeDirectory:
    """mkdir(2). A setgid parent hands down its group and the bit."""

    parent: int
    name: bytes
    mode: int
    caller: Credentials


@message(23)
class MakeSymlink:
    """symlink(2)."""

    parent: int
    name: bytes
    target: bytes
    caller: Credentials


@message(24)
class MakeLink:
    """link(2); EPERM for a directory, EMLINK at LINK_MAX, ENOENT for an unlinked inode."""

    inode: int
    parent: int
    name: bytes
    caller: Credentials


@message(25)
class Unlink:
    """unlink(2). An inode without links becomes an orphan until no session has it open."""

    parent: int
    name: bytes
    caller: Credentials


@message(26)
class RemoveDirectory:
    """rmdir(2); ENOTEMPTY."""

    parent: int
    name: bytes
    caller: Credentials


@message(27)
class Rename:
    """renameat2(2): EINVAL into its own subtree, ENOTEMPTY, EISDIR, ENOTDIR, sticky rules.

    `flags` is a `RenameFlags` value.
    """

    parent: int
    name: bytes
    new_parent: int
    new_name: bytes
    flags: int
    caller: Credentials


@message(28)
class SetAttributes:
    """chmod, chown, truncate and utimens in one; None leaves a field alone.

    Times: a value, or `atime_now`/`mtime_now` for the command's own time. `through_handle` is set
    for ftruncate: the handle was opened for writing, so the file's mode is not asked again.
    Clears setuid and setgid as POSIX says. A size below a chunk's written length leaves a cut
    pending on that chunk (see `metadata.ChunkLocation`).

    A file that grows shows zeros, so what chunks hold beyond its old end (of a client that died
    before it had committed what it wrote) is cut off the same way. Not with `keep_tail`: a client
    sets it that has made sure that nothing is there but its own; the leader does while another
    session has the file open, whose data it may be. `grow_only` leaves a file alone that has that
    size or more.
    """

    inode: int
    caller: Credentials
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size_bytes: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    atime_now: bool = False
    mtime_now: bool = False
    through_handle: bool = False
    grow_only: bool = False
    keep_tail: bool = False


@message(29)
class SetXattr:
    """setxattr(2); `flags` is an `XattrFlags` value. Namespaces user, trusted, security.

    user.* only on regular files and directories (EPERM), trusted.* only by root (EPERM; and
    invisible to others), system.* EOPNOTSUPP, an unknown prefix EOPNOTSUPP.
    """

    inode: int
    name: bytes
    value: bytes
    flags: int
    caller: Credentials


@message(30)
class RemoveXattr:
    """removexattr(2); ENODATA."""

    inode: int
    name: bytes
    caller: Credentials


@message(31)
class CommitWrite:
    """Make written data part of the file: size becomes at least `end_bytes`.

    Sent after the data is on its replicas, before flush, fsync or close returns. Sets mtime (to
    `mtime_ns` or the command's time) and ctime, raises `data_version`, and clears setuid/setgid
    unless the caller is root. `cuts` names the chunks (index, generation in turn) whose pending
    cut the writer has carried out on the replicas, `written` the fresh ones (index, handle in
    turn) that now have all their replicas.
    """

    inode: int
    end_bytes: int
    caller: Credentials
    mtime_ns: int | None = None
    cuts: tuple[int, ...] = ()
    written: tuple[int, ...] = ()


@message(32)
class AllocateChunks:
    """Give the chunks [first_index, first_index + count) of a file a handle and replicas each.

    A chunk that is there is answered as it is. The leader fills in `replicas`, one tuple of
    server ids per chunk that it knows to be missing, before it proposes the command; a client
    sends it empty, with `avoid` naming servers that just failed it. `wanted`, filled in too, is how
    many replicas each chunk should have, however many servers there are just now.
    """

    inode: int
    first_index: int
    count: int
    avoid: tuple[int, ...] = ()
    replicas: tuple[tuple[int, ...], ...] = ()
    wanted: int = 0


@message(33)
class DropReplicas:
    """Take the `failed` servers out of a chunk's replica set and raise its version by one.

    Applies only while the chunk has exactly `version` (so that two reports of one failure count
    once) and as long as `least` replicas remain, or as many as the chunk should have if that is
    less; otherwise it changes nothing. Answers `ChunkMap` with the chunk as it now is. A client
    sends it when a write fails; how many must remain the leader fills in. While there are too few
    the client waits: repair gives the chunk another replica.
    """

    inode: int
    index: int
    handle: int
    version: int
    failed: tuple[int, ...]
    least: int = 1


Operation = (
    Create
    | MakeNode
    | MakeDirectory
    | MakeSymlink
    | MakeLink
    | Unlink
    | RemoveDirectory
    | Rename
    | SetAttributes
    | SetXattr
    | RemoveXattr
    | CommitWrite
    | AllocateChunks
    | DropReplicas
)
