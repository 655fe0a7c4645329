"""What the kernel asks of the mounted file system: every operation that pyfuse3 dispatches.

A handler turns the kernel's arguments into one call of the client library, and the answer into the
kernel's form; decisions are the master's. Invariants:

- nothing but `FUSEError` leaves a handler (`fuse.errors.handler`);
- an answer's attributes are never older than its request, and contain what this mount has written
  and not yet flushed, because the kernel believes them and cuts its pages to that size;
- a handler never tells the kernel to forget anything (that would deadlock): `fuse.invalidation`;
- with `default_permissions` the kernel has checked access by mode bits before it asks.

An inode that is gone (removed elsewhere, not open here) is ESTALE when asked for by number: the
kernel then looks the path up again and finds out what became of it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import pyfuse3
import trio
from pyfuse3 import FileHandleT, FileNameT, FlagT, InodeT, ModeT, XAttrNameT

from dfs.errors import Code, Failure
from dfs.layout import NAME_MAX_BYTES
from dfs.messages.common import ROOT, Attributes, Credentials
from dfs.messages.metadata import Answer
from dfs.messages.operations import (
    Create,
    MakeDirectory,
    MakeLink,
    MakeNode,
    MakeSymlink,
    RemoveDirectory,
    RemoveXattr,
    Rename,
    SetAttributes,
    SetXattr,
    Unlink,
)
from fuse import callers
from fuse.backend import Backend, BackendFile
from fuse.directories import Directory
from fuse.entries import changes_of, entry_of, statvfs_of
from fuse.errors import handler, refusal
from fuse.handles import Handles, passes_page_cache
from fuse.tasks import describe_tasks
from fuse.xattrs import CAPABILITY, SYNC_NAME, Xattrs

log = logging.getLogger(__name__)

Ctx = pyfuse3.RequestContext
C = TypeVar(
    "C",
    bound=Create
    | MakeNode
    | MakeDirectory
    | MakeSymlink
    | MakeLink
    | Unlink
    | RemoveDirectory
    | Rename
    | SetXattr
    | RemoveXattr,
)
STACKTRACE_NAME = b"fuse_stacktrace"
SET_ID_BITS = stat.S_ISUID | stat.S_ISGID
CREATE_ATTEMPTS = 8  # a name may come and go between two requests, but not for ever


class Operations(pyfuse3.Operations):
    """The handlers of one mount. `about` is what the mount says of itself (`fuse.xattrs`).

    With `sync` every write is durable when it is answered; all other changes are anyway. `sync_all`
    makes durable all that was written.
    """

    def __init__(
        self,
        backend: Backend,
        about: dict[str, str | int],
        *,
        sync: bool = False,
        sync_all: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__()
        self._sync = sync
        self._backend = backend
        self._xattrs = Xattrs(backend, about)
        self._handles = Handles(self._xattrs.forget_capability)
        self._directories: dict[int, Directory] = {}
        self._next_directory = 1
        self._sync_all = sync_all or backend.sync_all
        self.started = trio.Event()
        self.writes_begun = 0
        self.writes_ended = 0

    def init(self) -> None:
        """The kernel and this process have agreed; requests follow."""
        self.started.set()

    async def close(self) -> None:
        """After the last request: close what the kernel had no time to release."""
        await self._handles.close_all()

    # -- names

    @handler
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: Ctx
    ) -> pyfuse3.EntryAttributes:
        _must_fit(name)
        return entry_of(await self._backend.lookup(parent_inode, name))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Nothing is kept per inode that the kernel knows: inode numbers are the master's own."""

    @handler
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: Ctx
    ) -> pyfuse3.EntryAttributes:
        _must_fit(name)
        caller = self._creator(ctx, mode)
        return await self._make(MakeNode(parent_inode, name, mode, rdev, caller), ctx)

    @handler
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: Ctx
    ) -> pyfuse3.EntryAttributes:
        _must_fit(name)
        caller = self._creator(ctx, mode)
        return await self._make(MakeDirectory(parent_inode, name, stat.S_IMODE(mode), caller), ctx)

    @handler
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: Ctx
    ) -> pyfuse3.EntryAttributes:
        _must_fit(name)
        return await self._make(
            MakeSymlink(parent_inode, name, target, callers.caller_of(ctx)), ctx
        )

    @handler
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: Ctx
    ) -> pyfuse3.EntryAttributes:
        _must_fit(new_name)
        return await self._make(
            MakeLink(inode, new_parent_inode, new_name, callers.caller_of(ctx)), ctx
        )

    @handler
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: Ctx) -> None:
        await self._perform(Unlink(parent_inode, name, callers.caller_of(ctx)), ctx)

    @handler
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: Ctx) -> None:
        await self._perform(RemoveDirectory(parent_inode, name, callers.caller_of(ctx)), ctx)

    @handler
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: Ctx,
    ) -> None:
        _must_fit(name_new)
        operation = Rename(
            parent_inode_old,
            name_old,
            parent_inode_new,
            name_new,
            flags,
            callers.caller_of(ctx),
        )
        await self._perform(operation, ctx)

    # -- inodes

    @handler
    async def getattr(self, inode: InodeT, ctx: Ctx) -> pyfuse3.EntryAttributes:
        try:
            return entry_of(await self._backend.attributes(inode))
        except Failure as failure:
            _raise_stale(failure)

    @handler
    async def setattr(
        self,
        inode: InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: Ctx,
    ) -> pyfuse3.EntryAttributes:
        operation = changes_of(inode, attr, fields, through_handle=fh is not None, ctx=ctx)
        try:
            return entry_of(await self._set_attributes(operation, ctx))
        except Failure as failure:
            _raise_stale(failure)

    @handler
    async def readlink(self, inode: InodeT, ctx: Ctx) -> FileNameT:
        try:
            return FileNameT(await self._backend.read_link(inode))
        except Failure as failure:
            _raise_stale(failure)

    @handler
    async def statfs(self, ctx: Ctx) -> pyfuse3.StatvfsData:
        return statvfs_of(await self._backend.stat_fs())

    # -- extended attributes

    @handler
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: Ctx) -> bytes:
        written = self._handles.is_written(inode)
        try:
            return await self._xattrs.get(inode, name, ctx, written=written)
        except Failure as failure:
            _raise_stale(failure)

    @handler
    async def setxattr(self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: Ctx) -> None:
        if name == STACKTRACE_NAME and inode == pyfuse3.ROOT_INODE and ctx.uid == 0:
            self.stacktrace()
            return
        if name == SYNC_NAME:
            await self._sync_all()
            return
        flags = self._xattrs.flags_of(ctx)
        await self._change_xattr(SetXattr(inode, name, value, flags, callers.caller_of(ctx)), ctx)

    @handler
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: Ctx) -> None:
        await self._change_xattr(RemoveXattr(inode, name, callers.caller_of(ctx)), ctx)

    @handler
    async def listxattr(self, inode: InodeT, ctx: Ctx) -> list[XAttrNameT]:
        try:
            names = await self._backend.list_xattrs(inode, callers.caller_of(ctx))
        except Failure as failure:
            _raise_stale(failure)
        return [XAttrNameT(name) for name in names]

    # -- files

    @handler
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: Ctx
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        _must_fit(name)
        caller = self._creator(ctx, mode)
        operation = Create(parent_inode, name, stat.S_IMODE(mode), True, caller)
        for _ in range(CREATE_ATTEMPTS):
            file = await self._create_or_none(operation, flags, ctx)
            if file is not None:
                info = self._opened(file, flags)
                if self._handles.is_written(file.inode):
                    self._xattrs.has_no_capability(file.inode)
                return info, entry_of(file.attributes)
            found = await self._open_found(operation, flags, ctx)
            if found is not None:
                return found
        raise refusal(errno.ESTALE)

    @handler
    async def open(self, inode: InodeT, flags: FlagT, ctx: Ctx) -> pyfuse3.FileInfo:
        try:
            file = await self._open(inode, flags, ctx)
        except Failure as failure:
            _raise_stale(failure)
        return self._opened(file, flags)

    @handler
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        data: Any = await self._handles.get(fh).file.read(off, size)
        return data  # type: ignore[no-any-return]  # any buffer will do; it is copied at once

    @handler
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        handle = self._handles.get(fh)
        self.writes_begun += 1
        try:
            await handle.file.write(off, buf)
            if self._sync:
                await handle.file.sync()
        finally:
            self.writes_ended += 1
        return len(buf)

    @handler
    async def flush(self, fh: FileHandleT) -> None:
        """close(2), of one descriptor of perhaps several: a reader has nothing to wait for."""
        handle = self._handles.get(fh)
        if handle.writes:
            await handle.file.flush()

    @handler
    async def release(self, fh: FileHandleT) -> None:
        await self._handles.close(fh)

    @handler
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._handles.get(fh).file.sync()

    # -- directories

    @handler
    async def opendir(self, inode: InodeT, ctx: Ctx) -> FileHandleT:
        number = self._next_directory
        self._next_directory += 1
        self._directories[number] = Directory(self._backend, inode)
        return FileHandleT(number)

    @handler
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        await self._directory(fh).read(start_id, token)

    @handler
    async def releasedir(self, fh: FileHandleT) -> None:
        self._directories.pop(fh, None)

    @handler
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """Every change of the namespace was durable before it was answered."""
        self._directory(fh)

    def stacktrace(self) -> None:
        """`setfattr -n fuse_stacktrace MOUNTPOINT` by root: log where every task stands."""
        log.warning("asked for by xattr: all tasks\n%s", describe_tasks())

    # -- how

    async def _perform(self, operation: C, ctx: Ctx) -> Answer:
        """Carry out a change; once more with the caller's groups where they may help."""
        try:
            return await self._backend.perform(operation)
        except Failure as failure:
            if not callers.groups_may_help(ctx, operation.caller, failure):
                raise
        return await self._backend.perform(replace(operation, caller=callers.full_caller_of(ctx)))

    async def _make(self, operation: C, ctx: Ctx) -> pyfuse3.EntryAttributes:
        made = await self._perform(operation, ctx)
        assert isinstance(made, Attributes), made
        if self._backend.is_open(made.inode):
            # A new link to a file that is being written: the master knows its old size.
            made = await self._backend.attributes(made.inode)
        return entry_of(made)

    def _creator(self, ctx: Ctx, mode: int) -> Credentials:
        if callers.needs_groups(ctx, mode, None):
            return callers.full_caller_of(ctx)
        return callers.caller_of(ctx)

    async def _change_xattr(self, operation: SetXattr | RemoveXattr, ctx: Ctx) -> None:
        if operation.name == CAPABILITY:
            self._xattrs.forget_capability(operation.inode)
        try:
            await self._perform(operation, ctx)
        except Failure as failure:
            _raise_stale(failure)
        finally:
            if operation.name == CAPABILITY:
                self._xattrs.forget_capability(operation.inode)

    async def _set_attributes(self, operation: SetAttributes, ctx: Ctx) -> Attributes:
        try:
            return await self._backend.set_attributes(operation)
        except Failure as failure:
            if ctx.uid == 0 or not callers.is_refusal(failure):
                raise
            again = await self._as_the_kernel_checked(operation, ctx)
            if again == operation:
                raise
        return await self._backend.set_attributes(again)

    async def _as_the_kernel_checked(self, operation: SetAttributes, ctx: Ctx) -> SetAttributes:
        """The same as the kernel meant it, for a caller whom the master found not permitted.

        The kernel has checked before it asked, and with more than pyfuse3 passes on. So of a caller
        who is not the owner, times are "now" (which whoever may write may set), and a mode that
        lacks nothing but set-id bits is the kernel's own doing, on account of a write.
        """
        caller = callers.full_caller_of(ctx)
        if operation.mode is not None:
            current = stat.S_IMODE((await self._backend.attributes(operation.inode)).mode)
            if operation.mode in (current & ~SET_ID_BITS, current & ~stat.S_ISUID):
                caller = ROOT
        return replace(
            operation,
            caller=caller,
            atime_ns=None,
            mtime_ns=None,
            atime_now=operation.atime_ns is not None,
            mtime_now=operation.mtime_ns is not None,
        )

    async def _create_or_none(self, operation: Create, flags: int, ctx: Ctx) -> BackendFile | None:
        """The new file, open; None when the name exists and the caller can do with that."""
        try:
            try:
                return await self._backend.create_file(operation)
            except Failure as failure:
                if not callers.groups_may_help(ctx, operation.caller, failure):
                    raise
            return await self._backend.create_file(
                replace(operation, caller=callers.full_caller_of(ctx))
            )
        except Failure as failure:
            exists = failure.code is Code.ERRNO and failure.errno == errno.EEXIST
            if not exists or flags & os.O_EXCL:
                raise
            return None

    async def _open_found(
        self, operation: Create, flags: int, ctx: Ctx
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes] | None:
        """Open what another mount created since the kernel looked; None when it is gone again.

        The kernel did not see this file and so did not check its mode: anyone but root is sent
        back (ESTALE makes the kernel look up and open it the ordinary way), as is whoever meets
        something else than a regular file.
        """
        try:
            found = await self._backend.lookup(operation.parent, operation.name)
            if not stat.S_ISREG(found.mode) or ctx.uid != 0:
                raise refusal(errno.ESTALE)
            file = await self._open(found.inode, flags, ctx)
        except Failure as failure:
            if failure.code is Code.ERRNO and failure.errno == errno.ENOENT:
                return None
            raise
        return self._opened(file, flags), entry_of(file.attributes)

    async def _open(self, inode: int, flags: int, ctx: Ctx) -> BackendFile:
        write = flags & os.O_ACCMODE != os.O_RDONLY
        caller = callers.caller_of(ctx)
        file = await self._backend.open_file(inode, caller, write=write)
        if flags & os.O_TRUNC:
            cut = SetAttributes(inode, caller, size_bytes=0, through_handle=True)
            try:
                await self._backend.set_attributes(cut)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await file.close()
                raise
        return file

    def _opened(self, file: BackendFile, flags: int) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(
            fh=FileHandleT(self._handles.add(file, flags)),
            direct_io=passes_page_cache(flags),
            keep_cache=file.unchanged and not flags & os.O_TRUNC,
        )

    def _directory(self, number: int) -> Directory:
        directory = self._directories.get(number)
        if directory is None:
            raise refusal(errno.EBADF)
        return directory


def _must_fit(name: bytes) -> None:
    if len(name) > NAME_MAX_BYTES:
        raise refusal(errno.ENAMETOOLONG)


def _raise_stale(failure: Failure) -> NoReturn:
    """Raise the failure of a request that named an inode by its number."""
    if failure.code is Code.ERRNO and failure.errno == errno.ENOENT:
        raise refusal(errno.ESTALE) from None
    raise failure
