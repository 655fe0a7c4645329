"""Extended attributes as the kernel asks for them.

Three peculiarities live here. POSIX ACLs are not supported and say so. `security.capability` is
asked before every write through the page cache, so its absence is remembered for as long as this
mount has the file open for writing (its only purpose then is to be removed by the write). And
pyfuse3 turns XATTR_CREATE and XATTR_REPLACE into a `getxattr` before a `setxattr` without flags,
which two mounts could both pass: since both calls carry the same request context, the flag is
recovered from the first call and enforced by the master.

`system.dfs.mount` is answered by the mount itself: what `dfs umount` needs to know of its process.
Setting `system.dfs.sync`, to whatever and on whichever file, makes everything durable that was
written through the mount; that is `dfs sync`, since sync(2) does not reach a FUSE file system.
"""

from __future__ import annotations

import contextvars
import errno
import json
from dataclasses import dataclass

import pyfuse3

from dfs.errors import Code, Failure
from dfs.messages.operations import XattrFlags
from fuse.backend import Backend
from fuse.callers import caller_of
from fuse.errors import refusal

ACL_PREFIX = b"system.posix_acl_"
CAPABILITY = b"security.capability"
# In `system.` because the kernel then asks for nothing else first: the answer comes even while no
# master can be reached.
MOUNT_NAME = b"system.dfs.mount"
SYNC_NAME = b"system.dfs.sync"


@dataclass(frozen=True, slots=True)
class _Probe:
    """A `getxattr` that may be the first half of a `setxattr` with a flag."""

    ctx: pyfuse3.RequestContext  # held, so that no other request's context can be this object
    found: bool


# One per worker task: the two halves of a request run in the same one.
_last_probe: contextvars.ContextVar[_Probe | None] = contextvars.ContextVar("probe", default=None)


class Xattrs:
    """Reads, and what may be remembered of them. `about` is what `system.dfs.mount` answers."""

    def __init__(self, backend: Backend, about: dict[str, str | int]) -> None:
        self._backend = backend
        self._about = json.dumps(about).encode()
        self._without_capability: dict[int, None] = {}

    async def get(
        self, inode: int, name: bytes, ctx: pyfuse3.RequestContext, *, written: bool
    ) -> bytes:
        """The value. `written`: this mount has the inode open for writing."""
        if name == CAPABILITY and inode in self._without_capability:
            raise refusal(errno.ENODATA)
        if name.startswith(ACL_PREFIX):
            raise refusal(errno.EOPNOTSUPP)
        if name == MOUNT_NAME:
            return self._about
        try:
            value = await self._backend.get_xattr(inode, name, caller_of(ctx))
        except Failure as failure:
            if failure.code is Code.ERRNO and failure.errno == errno.ENODATA:
                _last_probe.set(_Probe(ctx, found=False))
                if name == CAPABILITY and written:
                    self._without_capability[inode] = None
            raise
        _last_probe.set(_Probe(ctx, found=True))
        return value

    def flags_of(self, ctx: pyfuse3.RequestContext) -> XattrFlags:
        """The flags of the `setxattr` request that has this context."""
        probe = _last_probe.get()
        if probe is None or probe.ctx is not ctx:
            return XattrFlags.NONE
        return XattrFlags.REPLACE if probe.found else XattrFlags.CREATE

    def has_no_capability(self, inode: int) -> None:
        """This inode was just created here, and is open for writing."""
        self._without_capability[inode] = None

    def forget_capability(self, inode: int) -> None:
        """It may have one from now on."""
        self._without_capability.pop(inode, None)
