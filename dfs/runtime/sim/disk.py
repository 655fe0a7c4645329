"""A node's storage: `Media` is the hardware, which survives crashes, `SimDisk` one life's view.

Contents are durable after `datasync`, names after `sync_directory`. Names change as in a journaling
file system: a power loss keeps a prefix of the changes (create, rename, unlink) that were made
since, so that a rename never overtakes an earlier one, while contents are lost independently.

Faults: errors per path, a full disk, slow reads and syncs, flipped bits, a crash at the n-th sync
or operation.
"""

from __future__ import annotations

import errno
import os
import posixpath
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dfs.errors import Code, Failure
from dfs.runtime.disk import DiskSpace
from dfs.runtime.network import Buffer
from dfs.runtime.sim.env import SimEnv
from dfs.runtime.sim.inode import PAGE_BYTES, Inode
from dfs.runtime.sim.key_value import SimKeyValue, Store

CAPACITY_BYTES = 1 << 40
_NOT_CACHED_PROBABILITY = 1 / 8
_REFUSED_HALFWAY = (errno.EIO, errno.ENOSPC)
_READS_MAX_S = 5.0  # what a slow disk costs one call, which may read a whole chunk in pieces


@dataclass(frozen=True, slots=True)
class _NameChange:
    """An undo record: what the paths meant before."""

    before: tuple[tuple[str, Inode | None], ...]


class Media:
    """One node's hardware."""

    def __init__(self, chance: random.Random, trace: Callable[..., None]) -> None:
        self.sync_delay_s = 0.0
        self.capacity_bytes = CAPACITY_BYTES
        self.chance = chance
        self.trace = trace
        self.locks: dict[str, SimEnv] = {}
        self.boot = 1
        self._names: dict[str, Inode] = {}
        self._directories: dict[str, None] = {"/": None}
        self._unsynced_names: list[_NameChange] = []
        self._errors: dict[tuple[str, str], int] = {}
        self._syncs_to_crash = 0
        self._crash_after_sync = False
        self._operations_to_crash = 0
        self._crash_loses_power = True
        self.read_delay_s = 0.0

    # -- faults

    def fail(self, prefix: str, code: int, operation: str = "any") -> None:
        """Refuse `read`, `write`, `sync` or `any` on paths that begin so, with that errno."""
        self._errors[prefix, operation] = code

    def repair(self) -> None:
        """End all errors set by `fail` and `spoil`."""
        self._errors.clear()
        for inode in self._names.values():
            inode.unspoil()

    def mend(self, prefix: str) -> None:
        """End the errors set by `fail` for exactly this prefix."""
        for key in [key for key in self._errors if key[0] == prefix]:
            del self._errors[key]

    @property
    def is_failing(self) -> bool:
        return bool(self._errors)

    def files(self, prefix: str) -> list[str]:
        """The paths of all files whose paths begin so, in order."""
        return sorted(path for path in self._names if path.startswith(prefix))

    def flip_bit(self, path: str, offset: int, *, cached: bool = True) -> None:
        """Damage a byte on the platter, and, unless not `cached`, in the page cache as well."""
        self.inode(path).flip_bit(offset, cached=cached)

    def spoil(self, path: str, offset: int, length_bytes: int) -> None:
        """Have reads that touch the range answer EIO until it is written over: bad sectors."""
        self.inode(path).spoil(offset, length_bytes)

    def damage_store(self, path: str) -> None:
        """Make the next opening of that key-value store fail."""
        store = self.inode(path).store
        if store is None:
            raise ValueError(f"{path} is no key-value store")
        store.damaged = True

    def crash_at_sync(self, nth: int, *, after: bool = False) -> None:
        """Lose power at the nth sync from now, before or after it took effect; 0 disarms."""
        self._syncs_to_crash = nth
        self._crash_after_sync = after

    def crash_at_operation(self, nth: int, *, power_loss: bool = True) -> None:
        """End the node before the nth operation from now on; 0 disarms.

        Of a write the first pages may have been written: a deadly signal ends it between two.
        """
        self._operations_to_crash = nth
        self._crash_loses_power = power_loss

    def count(self, env: SimEnv, what: str, partly: Callable[[], None] | None = None) -> None:
        """Every operation of a file or a directory begins with this; `partly` does some of it."""
        if self._operations_to_crash:
            self._operations_to_crash -= 1
            if not self._operations_to_crash:
                if partly is not None:
                    partly()
                env.crash(f"before {what}", power_loss=self._crash_loses_power)

    def wipe(self, prefix: str = "/") -> None:
        """A new, empty disk where paths begin so. Part of it: only after a power loss."""
        for kept in (self._names, self._directories):
            for path in [path for path in kept if path.startswith(prefix) and path != "/"]:
                del kept[path]
        if prefix == "/":
            self._unsynced_names.clear()
        assert not self._unsynced_names, "names that would come back"

    def lose_power(self) -> None:
        """Forget what was not durable."""
        self.boot += 1
        kept = self.chance.randrange(len(self._unsynced_names) + 1)
        # Those named now and those whose names are about to come back.
        inodes = dict.fromkeys(self._names.values())
        while len(self._unsynced_names) > kept:
            for path, inode in self._unsynced_names.pop().before:
                self._set(path, inode)
        inodes.update(dict.fromkeys(self._names.values()))
        self._unsynced_names.clear()
        for inode in inodes:
            inode.lose_power(self.chance)

    # -- what the disk asks

    def check(self, path: str, operation: str) -> None:
        for (prefix, refused), code in self._errors.items():
            if path.startswith(prefix) and refused in (operation, "any"):
                raise OSError(code, os.strerror(code), path)

    def sync(self, env: SimEnv, path: str, effect: Callable[[], None]) -> None:
        """The one point where anything becomes durable."""
        self.check(path, "sync")
        env.charge(self.sync_delay_s)
        crash = self._syncs_to_crash == 1
        self._syncs_to_crash = max(0, self._syncs_to_crash - 1)
        if crash and not self._crash_after_sync:
            env.crash(f"before syncing {path}")
        effect()
        self.trace("sync", env.name, path)
        if crash:
            env.crash(f"after syncing {path}")

    def inode(self, path: str) -> Inode:
        if path not in self._names:
            self.check_directory(posixpath.dirname(path))
            code = errno.EISDIR if path in self._directories else errno.ENOENT
            raise OSError(code, os.strerror(code), path)
        return self._names[path]

    def exists(self, path: str) -> bool:
        return path in self._names or path in self._directories

    def create(self, path: str) -> Inode:
        self.check_directory(posixpath.dirname(path))
        if path in self._directories:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        made = Inode()
        self._change((path, made))
        return made

    def rename(self, old: str, new: str) -> None:
        inode = self.inode(old)
        self.check_directory(posixpath.dirname(new))
        if new in self._directories:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), new)
        if old != new:
            self._change((new, inode), (old, None))

    def unlink(self, path: str) -> None:
        self.inode(path)
        self._change((path, None))

    def _change(self, *changes: tuple[str, Inode | None]) -> None:
        before = tuple((path, self._names.get(path)) for path, _ in changes)
        self._unsynced_names.append(_NameChange(before))
        for path, inode in changes:
            self._set(path, inode)

    def _set(self, path: str, inode: Inode | None) -> None:
        if inode is None:
            self._names.pop(path, None)
        else:
            self._names[path] = inode

    def sync_names(self, directory: str) -> None:
        """Make durable every change up to the last one in that directory."""
        for i in reversed(range(len(self._unsynced_names))):
            paths = [path for path, _ in self._unsynced_names[i].before]
            if directory in map(posixpath.dirname, paths):
                del self._unsynced_names[: i + 1]
                return

    def check_directory(self, path: str) -> None:
        if path not in self._directories:
            code = errno.ENOTDIR if path in self._names else errno.ENOENT
            raise OSError(code, os.strerror(code), path)

    def make_directory(self, path: str) -> None:
        if path in self._names:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if path not in self._directories:
            self.make_directory(posixpath.dirname(path))
            self._directories[path] = None

    def list_directory(self, path: str) -> list[str]:
        self.check_directory(path)
        paths = [*self._names, *self._directories]
        return sorted(posixpath.basename(p) for p in paths if posixpath.dirname(p) == path != p)

    def free_bytes(self) -> int:
        return max(0, self.capacity_bytes - sum(i.used_bytes for i in self._names.values()))

    def reserve(self, path: str, wanted_bytes: int) -> None:
        """Raise ENOSPC unless that much space is free."""
        if (
            wanted_bytes
            and self.capacity_bytes < CAPACITY_BYTES
            and wanted_bytes > self.free_bytes()
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class SimFile:
    """One open file of one incarnation."""

    def __init__(self, media: Media, env: SimEnv, path: str, inode: Inode, write: bool) -> None:
        self._media = media
        self._env = env
        self._path = path
        self._inode = inode
        self._write = write
        self._open = True

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        self._check_read(offset, len(buffer))
        if self._media.read_delay_s:
            self._env.charge(self._media.read_delay_s, _READS_MAX_S)
        return self._inode.read_into(buffer, offset)

    def pread_cached(self, buffer: memoryview, offset: int) -> int | None:
        self._check_read(offset, len(buffer))
        if self._media.chance.random() < _NOT_CACHED_PROBABILITY:
            return None
        return self._inode.read_into(buffer, offset)

    def pwrite(self, buffers: Sequence[Buffer], offset: int) -> None:
        data = b"".join(buffers)
        try:
            self._check("write", lambda: self._write_pages(data, offset))
            self._media.reserve(self._path, self._inode.new_bytes(offset, len(data)))
        except OSError as error:
            if error.errno in _REFUSED_HALFWAY and self._media.chance.random() < 0.5:
                self._write_pages(data, offset)
            raise
        self._inode.write(data, offset)

    def _write_pages(self, data: bytes, offset: int) -> None:
        """The first few pages of a write that does not come to its end."""
        pages = self._media.chance.randrange(1 + len(data) // PAGE_BYTES)
        if pages:
            self._inode.write(data[: pages * PAGE_BYTES - offset % PAGE_BYTES], offset)

    def datasync(self) -> None:
        try:
            self._check("sync")
        except OSError:
            self._inode.fail_sync(self._media.chance)
            raise
        self._media.sync(self._env, self._path, self._inode.datasync)

    def truncate(self, length_bytes: int) -> None:
        self._check("write")
        self._inode.truncate(length_bytes)

    def punch(self, offset: int, length_bytes: int) -> None:
        self._check("write")
        self._inode.punch(offset, length_bytes)

    def forget(self, offset: int, length_bytes: int) -> None:
        self._env.check_alive()
        if not self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._path)
        self._inode.forget(offset, length_bytes)

    def size(self) -> int:
        self._check("stat")
        return self._inode.size

    def close(self) -> None:
        self._open = False

    def _check_read(self, offset: int, length_bytes: int) -> None:
        self._check("read")
        if self._inode.is_spoilt(offset, length_bytes):
            raise OSError(errno.EIO, os.strerror(errno.EIO), self._path)

    def _check(self, operation: str, partly: Callable[[], None] | None = None) -> None:
        self._env.check_alive()
        if not self._open or (operation == "write" and not self._write):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._path)
        self._media.count(self._env, f"{operation} of {self._path}", partly)
        self._media.check(self._path, operation)


class SimDisk:
    """One incarnation's view of its media. Paths are normalized, and absolute from `/`."""

    def __init__(self, media: Media, env: SimEnv) -> None:
        self._media = media
        self._env = env

    def boot(self) -> int:
        return self._media.boot

    def _at(self, path: str, operation: str = "") -> str:
        self._env.check_alive()
        path = posixpath.normpath(posixpath.join("/", path))
        if operation:
            self._media.count(self._env, f"{operation} of {path}")
            self._media.check(path, operation)
        return path

    def open(self, path: str, *, write: bool = False, create: bool = False) -> SimFile:
        path = self._at(path, "write" if write else "read")
        if create and not self._media.exists(path):
            inode = self._media.create(path)
        else:
            inode = self._media.inode(path)
        return SimFile(self._media, self._env, path, inode, write)

    def read_file(self, path: str) -> bytes:
        return self._media.inode(self._at(path, "read")).read_all()

    def write_file(self, path: str, data: bytes) -> None:
        path = self._at(path, "write")
        temporary = path + ".tmp"
        file = self.open(temporary, write=True, create=True)
        file.truncate(0)
        file.pwrite([data], 0)
        file.datasync()
        self._media.count(self._env, f"rename of {temporary}")
        self._media.rename(temporary, path)
        self.sync_directory(posixpath.dirname(path))

    def rename(self, old: str, new: str) -> None:
        self._media.rename(self._at(old, "write"), self._at(new, "write"))

    def unlink(self, path: str) -> None:
        self._media.unlink(self._at(path, "write"))

    def make_directory(self, path: str) -> None:
        self._media.make_directory(self._at(path))

    def list_directory(self, path: str) -> list[str]:
        return self._media.list_directory(self._at(path, "read"))

    def exists(self, path: str) -> bool:
        return self._media.exists(self._at(path))

    def sync_directory(self, path: str) -> None:
        path = self._at(path)
        self._media.check_directory(path)
        self._media.count(self._env, f"sync of {path}")
        self._media.sync(self._env, path, lambda: self._media.sync_names(path))

    def space(self, path: str) -> DiskSpace:
        path = self._at(path, "read")
        if not self._media.exists(path):
            self._media.inode(path)
        return DiskSpace(self._media.capacity_bytes, self._media.free_bytes())

    def lock(self, path: str) -> None:
        path = self._at(path)
        holder = self._media.locks.get(path)
        if holder is not None and not holder.dead:
            raise OSError(errno.EAGAIN, "another process holds this lock", path)
        if not self._media.exists(path):
            self._media.create(path)
        self._media.locks[path] = self._env

    def open_key_value(self, path: str, tables: Sequence[str], map_size_bytes: int) -> SimKeyValue:
        path = self._at(path, "read")
        if not self._media.exists(path):
            made = self._media.create(path)
            made.store = Store()
            self._media.sync(
                self._env, path, lambda: self._media.sync_names(posixpath.dirname(path))
            )
        inode = self._media.inode(path)
        if inode.store is None:  # a copy that was renamed into place
            inode.store = Store.from_bytes(inode.read_all(), path)
            inode.truncate(0)
        if inode.store.damaged:
            raise Failure(Code.DISK, f"the store {path} is damaged")
        inode.store.make_tables(tables)
        return SimKeyValue(self._media, self._env, path, inode.store, map_size_bytes)

    def verify_key_value(self, path: str) -> None:
        path = self._at(path, "read")
        inode = self._media.inode(path)
        if inode.store is None:
            Store.from_bytes(inode.read_all(), path)
        elif inode.store.damaged:
            raise Failure(Code.DISK, f"the store {path} is damaged")
