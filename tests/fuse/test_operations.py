"""The handlers, called directly: no kernel, a file system in memory behind them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pyfuse3
import pytest
import trio
from pyfuse3 import FileHandleT, FileNameT, FlagT, InodeT, ModeT, XAttrNameT

from dfs.errors import os_failure
from dfs.messages.common import Credentials
from dfs.messages.metadata import DirectoryPage
from dfs.messages.operations import Create, MakeDirectory, Operation
from dfs.runtime.real import RealClock
from fuse import callers
from fuse.operations import Operations
from tests.fuse.memory import MemoryClient, MemoryFile

ROOT = pyfuse3.ROOT_INODE
WRITE_ONLY = FlagT(os.O_WRONLY)
READ_WRITE = FlagT(os.O_RDWR)


@dataclass
class Context:
    """What pyfuse3 tells of a caller; its own class cannot be made from Python."""

    uid: int = 0
    gid: int = 0
    pid: int = 0
    umask: int = 0o022


@dataclass
class Fields:
    """Likewise of what a setattr is to change."""

    update_atime: bool = False
    update_mtime: bool = False
    update_ctime: bool = False
    update_mode: bool = False
    update_uid: bool = False
    update_gid: bool = False
    update_size: bool = False


@dataclass
class Mount:
    """Handlers, and the file system behind them."""

    client: MemoryClient = field(default_factory=lambda: MemoryClient(RealClock()))

    def __post_init__(self) -> None:
        self.operations = Operations(self.client, {"pid": 1})
        self.ctx = context()

    async def create(self, name: bytes, flags: int = os.O_RDWR) -> tuple[FileHandleT, InodeT]:
        info, entry = await self.operations.create(
            ROOT, FileNameT(name), ModeT(0o644), FlagT(flags), self.ctx
        )
        return info.fh, entry.st_ino

    async def mkdir(self, name: bytes) -> InodeT:
        made = await self.operations.mkdir(ROOT, FileNameT(name), ModeT(0o755), self.ctx)
        return made.st_ino


def context(uid: int = 0, gid: int = 0, pid: int = 0) -> pyfuse3.RequestContext:
    return cast(pyfuse3.RequestContext, Context(uid, gid, pid))


def run(body: Callable[[Mount], Awaitable[None]], client: MemoryClient | None = None) -> None:
    trio.run(body, Mount(client) if client else Mount())


async def refused(number: int, call: Awaitable[object]) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await call
    assert caught.value.errno == number


async def change(
    mount: Mount, inode: InodeT, ctx: pyfuse3.RequestContext, **wanted: int
) -> pyfuse3.EntryAttributes:
    """A setattr: `change(..., mode=0o600)`."""
    attr, fields = pyfuse3.EntryAttributes(), Fields()
    for name, value in wanted.items():
        setattr(attr, f"st_{name}", value)
        setattr(fields, "update_" + name.removesuffix("_ns"), True)
    return await mount.operations.setattr(
        inode, attr, cast(pyfuse3.SetattrFields, fields), None, ctx
    )


def test_an_entry_carries_all_attributes() -> None:
    async def body(mount: Mount) -> None:
        fh, inode = await mount.create(b"f")
        await mount.operations.write(fh, 10_000, b"abc")
        entry = await mount.operations.lookup(ROOT, FileNameT(b"f"), mount.ctx)
        assert entry.st_ino == inode
        assert entry.st_size == 10_003
        assert stat.S_ISREG(entry.st_mode)
        assert (entry.entry_timeout, entry.attr_timeout, entry.generation) == (0, 0, 0)
        assert entry.st_blocks * 512 == 4096
        assert entry.st_mtime_ns == mount.client.stat(inode).mtime_ns

    run(body)


def test_an_inode_that_is_gone_is_stale_and_a_name_is_not_found() -> None:
    async def body(mount: Mount) -> None:
        operations, ctx = mount.operations, mount.ctx
        gone = InodeT(4711)
        await refused(errno.ENOENT, operations.lookup(ROOT, FileNameT(b"x"), ctx))
        await refused(errno.ESTALE, operations.getattr(gone, ctx))
        await refused(errno.ESTALE, operations.open(gone, READ_WRITE, ctx))
        await refused(errno.ESTALE, operations.readlink(gone, ctx))
        await refused(errno.ESTALE, operations.listxattr(gone, ctx))
        await refused(errno.ESTALE, change(mount, gone, ctx, mode=0o600))

    run(body)


def test_long_names_are_refused_before_anything_is_asked() -> None:
    async def body(mount: Mount) -> None:
        name = FileNameT(b"n" * 256)
        await refused(errno.ENAMETOOLONG, mount.operations.lookup(ROOT, name, mount.ctx))
        await refused(
            errno.ENAMETOOLONG, mount.operations.symlink(ROOT, name, FileNameT(b"t"), mount.ctx)
        )
        assert mount.client.calls == []

    run(body)


def test_flush_is_for_writers_and_fsync_syncs() -> None:
    async def body(mount: Mount) -> None:
        fh, inode = await mount.create(b"f")
        reader = await mount.operations.open(inode, FlagT(os.O_RDONLY), mount.ctx)
        await mount.operations.write(fh, 0, b"x")
        await mount.operations.flush(reader.fh)
        assert mount.client.events == []
        await mount.operations.flush(fh)
        await mount.operations.fsync(fh, True)
        await mount.operations.release(fh)
        assert mount.client.events == [("flush", inode), ("sync", inode), ("close", inode)]
        await refused(errno.EBADF, mount.operations.read(fh, 0, 1))

    run(body)


def test_what_the_kernel_left_open_is_closed_at_the_end() -> None:
    async def body(mount: Mount) -> None:
        for name in (b"a", b"b", b"c"):
            await mount.create(name)
        await mount.operations.close()
        assert [what for what, _ in mount.client.events] == ["close"] * 3

    run(body)


@pytest.mark.parametrize(
    ("flags", "past_the_cache"),
    [
        (os.O_RDONLY, False),
        (os.O_RDWR, False),
        (os.O_WRONLY, True),
        (os.O_WRONLY | os.O_APPEND, True),
        (os.O_WRONLY | os.O_DIRECT, True),
        (os.O_WRONLY | os.O_SYNC, False),
        (os.O_WRONLY | os.O_DSYNC, False),
    ],
)
def test_writers_pass_the_page_cache(flags: int, past_the_cache: bool) -> None:
    async def body(mount: Mount) -> None:
        _, inode = await mount.create(b"f")
        info = await mount.operations.open(inode, FlagT(flags), mount.ctx)
        assert info.direct_io == past_the_cache

    run(body)


def test_pages_are_kept_only_while_nobody_changed_the_file() -> None:
    async def body(mount: Mount) -> None:
        fh, inode = await mount.create(b"f")
        await mount.operations.release(fh)

        async def kept(flags: int = os.O_RDONLY) -> bool:
            info = await mount.operations.open(inode, FlagT(flags), mount.ctx)
            await mount.operations.release(info.fh)
            return info.keep_cache

        assert await kept()
        mount.client.states[inode].known_version -= 1  # as if another client had written
        assert not await kept()
        assert await kept()
        assert not await kept(os.O_RDWR | os.O_TRUNC)

    run(body)


def test_an_open_that_cannot_truncate_leaves_nothing_open() -> None:
    class Refusing(MemoryClient):
        async def set_attributes(self, operation: Any) -> Any:
            raise os_failure(errno.EFBIG)

    async def body(mount: Mount) -> None:
        fh, inode = await mount.create(b"f")
        await mount.operations.release(fh)
        flags = FlagT(os.O_WRONLY | os.O_TRUNC)
        await refused(errno.EFBIG, mount.operations.open(inode, flags, mount.ctx))
        assert not mount.client.is_open(inode)

    run(body, Refusing(RealClock()))


# -- two clients that create one name


class Racing(MemoryClient):
    """Another client creates the name just before this one does."""

    def __init__(self, kind: type[Operation]) -> None:
        super().__init__(RealClock())
        self.kind = kind

    async def create_file(self, operation: Create) -> MemoryFile:
        other = Credentials(0, 0)
        if self.kind is Create:
            await self.perform(Create(operation.parent, operation.name, 0o600, True, other))
        else:
            await self.perform(MakeDirectory(operation.parent, operation.name, 0o700, other))
        return await super().create_file(operation)


def test_a_file_that_another_client_just_created_is_opened() -> None:
    async def body(mount: Mount) -> None:
        fh, inode = await mount.create(b"f", os.O_RDWR | os.O_CREAT)
        await mount.operations.write(fh, 0, b"x")
        assert mount.client.stat(inode).size_bytes == 1

    run(body, Racing(Create))


def test_exclusive_creation_of_it_fails() -> None:
    async def body(mount: Mount) -> None:
        await refused(errno.EEXIST, mount.create(b"f", os.O_RDWR | os.O_CREAT | os.O_EXCL))

    run(body, Racing(Create))


def test_what_the_kernel_must_look_at_itself_is_stale() -> None:
    """A directory in the file's place; and for others than root the file's mode, not yet seen."""

    async def directory(mount: Mount) -> None:
        await refused(errno.ESTALE, mount.create(b"f"))

    async def stranger(mount: Mount) -> None:
        await mount.operations.setattr(
            ROOT,
            _mode(0o777),
            cast(pyfuse3.SetattrFields, Fields(update_mode=True)),
            None,
            mount.ctx,
        )
        mount.ctx = context(1000, 1000)
        await refused(errno.ESTALE, mount.create(b"f"))

    run(directory, Racing(MakeDirectory))
    run(stranger, Racing(Create))


def _mode(mode: int) -> pyfuse3.EntryAttributes:
    attr = pyfuse3.EntryAttributes()
    attr.st_mode = ModeT(mode)
    return attr


# -- callers


@pytest.fixture
def groups_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pids whose groups were looked up; everyone is in group 500."""
    pids: list[int] = []

    def get_sup_groups(pid: int) -> set[int]:
        pids.append(pid)
        return {500}

    monkeypatch.setattr(pyfuse3, "get_sup_groups", get_sup_groups)
    return pids


def test_groups_are_looked_up_only_where_they_matter(groups_read: list[int]) -> None:
    async def body(mount: Mount) -> None:
        directory = await mount.mkdir(b"shared")
        await change(mount, directory, mount.ctx, gid=500, mode=0o770)
        await mount.operations.lookup(ROOT, FileNameT(b"shared"), context(1000, 1000, 77))
        assert groups_read == []
        made = await mount.operations.mkdir(
            directory, FileNameT(b"d"), ModeT(0o755), context(1000, 1000, 77)
        )
        assert groups_read == [77]  # the master refused without them
        await change(mount, made.st_ino, context(1000, 1000, 78), mode=0o700)
        assert groups_read == [77]
        await change(mount, made.st_ino, context(1000, 1000, 79), gid=500)
        await change(mount, made.st_ino, context(1000, 1000, 80), mode=0o2755)
        assert groups_read == [77, 79, 80]
        assert stat.S_IMODE(mount.client.stat(made.st_ino).mode) == 0o2755

    run(body)


def test_a_refusal_that_groups_cannot_lift_stays(groups_read: list[int]) -> None:
    async def body(mount: Mount) -> None:
        directory = await mount.mkdir(b"private")
        await refused(
            errno.EACCES,
            mount.operations.mkdir(directory, FileNameT(b"d"), ModeT(0o755), context(1000, 1000)),
        )
        await refused(errno.EPERM, change(mount, directory, context(1000, 1000), mode=0o777))

    run(body)


def test_a_process_that_is_gone_has_no_groups() -> None:
    assert callers.full_caller_of(context(1, 2, 0)) == Credentials(1, 2)
    mine = callers.full_caller_of(context(1, 2, os.getpid()))
    assert mine == Credentials(1, 2, tuple(sorted(os.getgroups())))


def test_who_may_write_may_set_the_times_to_now(groups_read: list[int]) -> None:
    async def body(mount: Mount) -> None:
        _, inode = await mount.create(b"f")
        await change(mount, inode, mount.ctx, mode=0o666)
        before = mount.client.stat(inode)
        found = await change(mount, inode, context(1000, 1000), atime_ns=5, mtime_ns=5)
        assert found.st_mtime_ns >= before.mtime_ns  # not 5: that was the kernel's idea of now

    run(body)


# -- extended attributes


def test_the_flags_of_a_setxattr_reach_the_master() -> None:
    """As pyfuse3 calls: a getxattr first, with the same context, when there is a flag."""

    async def body(mount: Mount) -> None:
        operations = mount.operations
        _, inode = await mount.create(b"f")
        name = XAttrNameT(b"user.a")
        create, replace, plain = context(), context(), context()
        await refused(errno.ENODATA, operations.getxattr(inode, name, create))
        await operations.setxattr(inode, name, b"other client's", plain)
        await refused(errno.ENODATA, operations.getxattr(inode, XAttrNameT(b"user.b"), create))
        await operations.setxattr(inode, XAttrNameT(b"user.b"), b"1", create)
        await refused(errno.EEXIST, operations.setxattr(inode, name, b"mine", create))
        assert await operations.getxattr(inode, name, replace) == b"other client's"
        await operations.removexattr(inode, name, plain)
        await refused(errno.ENODATA, operations.setxattr(inode, name, b"mine", replace))

    run(body)


def test_a_writer_asks_for_the_capability_once() -> None:
    async def body(mount: Mount) -> None:
        operations, name = mount.operations, XAttrNameT(b"security.capability")

        async def asked(inode: InodeT) -> int:
            before = mount.client.calls.count("get_xattr")
            await refused(errno.ENODATA, operations.getxattr(inode, name, mount.ctx))
            return mount.client.calls.count("get_xattr") - before

        fh, inode = await mount.create(b"f")
        assert await asked(inode) == 0  # just created: it has none
        await operations.release(fh)
        assert [await asked(inode), await asked(inode)] == [1, 1]  # nobody writes
        first = await operations.open(inode, READ_WRITE, mount.ctx)
        second = await operations.open(inode, WRITE_ONLY, mount.ctx)
        assert [await asked(inode), await asked(inode)] == [1, 0]
        await operations.release(first.fh)
        assert await asked(inode) == 0
        await operations.setxattr(inode, name, b"\0" * 20, mount.ctx)
        assert await operations.getxattr(inode, name, mount.ctx) == b"\0" * 20
        await operations.removexattr(inode, name, mount.ctx)
        assert [await asked(inode), await asked(inode)] == [1, 0]
        await operations.release(second.fh)
        assert await asked(inode) == 1

    run(body)


def test_acls_are_not_supported_and_nobody_is_asked() -> None:
    async def body(mount: Mount) -> None:
        name = XAttrNameT(b"system.posix_acl_access")
        await refused(errno.EOPNOTSUPP, mount.operations.getxattr(ROOT, name, mount.ctx))
        assert mount.client.calls == []

    run(body)


# -- directories


class Numbers(MemoryClient):
    """A directory of `count` entries that nobody had to make; the costs of listing it."""

    def __init__(self, count: int) -> None:
        super().__init__(RealClock())
        self.count = count
        self.fetched = 0

    async def read_directory(self, inode: int, after_cookie: int, limit: int) -> DirectoryPage:
        from dfs.messages.metadata import DirectoryEntry

        self.calls.append("read_directory")
        last = min(after_cookie + limit, self.count)
        attributes = self.stat(1)
        entries = tuple(
            DirectoryEntry(b"%d" % n, n, attributes) for n in range(after_cookie + 1, last + 1)
        )
        self.fetched += len(entries)
        return DirectoryPage(entries, last == self.count)


class KernelBuffer:
    """Stands for pyfuse3.readdir_reply: takes as many entries as a buffer of the kernel holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capacity: int) -> None:
        self.capacity = capacity
        self.taken: list[tuple[bytes, int]] = []
        self.room = 0
        monkeypatch.setattr(pyfuse3, "readdir_reply", self._reply)

    def _reply(self, token: object, name: bytes, attr: object, next_id: int) -> bool:
        if self.room == 0:
            return False
        self.room -= 1
        self.taken.append((name, next_id))
        return True

    async def list_all(self, mount: Mount) -> list[bytes]:
        """As getdents until the end."""
        fh = await mount.operations.opendir(ROOT, mount.ctx)
        self.taken = []
        position, count = 0, -1
        while count != len(self.taken):
            count, self.room = len(self.taken), self.capacity
            await mount.operations.readdir(fh, position, cast(pyfuse3.ReaddirToken, None))
            position = self.taken[-1][1] if self.taken else 0
        await mount.operations.releasedir(fh)
        return [name for name, _ in self.taken]


@pytest.mark.parametrize("capacity", [23, 186, 5000])
def test_listing_costs_what_is_listed(monkeypatch: pytest.MonkeyPatch, capacity: int) -> None:
    count = 100_000
    client = Numbers(count)

    async def body(mount: Mount) -> None:
        names = await KernelBuffer(monkeypatch, capacity).list_all(mount)
        assert names == [b"%d" % number for number in range(1, count + 1)]

    run(body, client)
    assert client.fetched < 1.5 * count + 500
    assert len(client.calls) < 1.5 * count / min(capacity, 2048) + 10


def test_a_small_directory_takes_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(mount: Mount) -> None:
        await mount.mkdir(b"d")
        mount.client.calls.clear()
        buffer = KernelBuffer(monkeypatch, 100)
        assert await buffer.list_all(mount) == [b".", b"..", b"d"]
        assert mount.client.calls == ["read_directory"]

    run(body)


def test_the_end_of_a_directory_may_move(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(mount: Mount) -> None:
        await mount.mkdir(b"d")
        buffer = KernelBuffer(monkeypatch, 100)
        fh = await mount.operations.opendir(ROOT, mount.ctx)
        token = cast(pyfuse3.ReaddirToken, None)
        buffer.room = 100
        await mount.operations.readdir(fh, 0, token)
        end = buffer.taken[-1][1]
        await mount.operations.readdir(fh, end, token)
        assert len(buffer.taken) == 3
        await mount.mkdir(b"e")
        await mount.operations.readdir(fh, end, token)
        assert buffer.taken[-1][0] == b"e"
        await mount.operations.readdir(fh, 0, token)
        assert [name for name, _ in buffer.taken[-4:]] == [b".", b"..", b"d", b"e"]

    run(body)


def test_statfs() -> None:
    async def body(mount: Mount) -> None:
        figures = await mount.operations.statfs(mount.ctx)
        assert figures.f_blocks * figures.f_frsize == 1 << 40
        assert figures.f_bavail * figures.f_frsize == 1 << 39
        assert figures.f_namemax == 255

    run(body)
