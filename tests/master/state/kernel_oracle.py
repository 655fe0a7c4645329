"""The state machine next to a real file system of the kernel: the same operations, both answers.

    python -m tests.master.state.kernel_oracle DIRECTORY SEED STEPS

replays a random sequence in an empty directory, as several users, and ends with an error at the
first difference in an errno, in a stat (mode, nlink, owner, rdev, size), in a listing, in an
extended attribute, or in which times changed. Needs root. Objects are held by O_PATH descriptors,
so that removed directories and files stay reachable, as they do for open handles.

Left out, because the kernel decides it above any file system: protected_regular (O_CREAT without
O_EXCL of existing files), protected_hardlinks (links by others than the owner).
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import random
import stat
import sys
from collections.abc import Callable

from dfs.errors import Failure
from dfs.layout import ROOT_INODE
from dfs.messages.common import ROOT, Attributes, Credentials, Refused
from dfs.messages.operations import (
    Create,
    MakeDirectory,
    MakeLink,
    MakeNode,
    MakeSymlink,
    Operation,
    RemoveDirectory,
    RemoveXattr,
    Rename,
    SetAttributes,
    SetXattr,
    Unlink,
)
from master.state import queries
from tests.master.state import invariants
from tests.master.state.machine_driver import ALICE, BOB, Driver

CAROL = Credentials(1002, 2000, (1000,))
CALLERS = (ROOT, ALICE, BOB, CAROL)
NAMES = (b"a", b"b", b"c", b"d", b"e", b"f", b"g" * 255)
ODD_NAMES = (b".", b"..", b"h" * 256)
XATTRS = (
    b"user.a",
    b"user.b",
    b"trusted.a",
    b"security.a",
    b"system.a",
    b"bogus.a",
    b"user.",
    b"x",
)
MODES = (0o777, 0o755, 0o700, 0o770, 0o1777, 0o2775, 0o2777, 0o6755, 0o644, 0o2744, 0o3777, 0o0)
_CREATING = (Create, MakeNode, MakeDirectory, MakeSymlink)
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
AT_FDCWD = -100

Step = tuple[Operation, Callable[[], object]]  # an operation of ours, and the system call

libc = ctypes.CDLL(None, use_errno=True)


class Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


@dataclasses.dataclass
class Node:
    """One inode on both sides."""

    inode: int
    fd: int
    kind: int

    @property
    def path(self) -> bytes:
        return b"/proc/self/fd/%d" % self.fd


def checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "")


def as_caller(caller: Credentials, call: Callable[[], object]) -> int:
    """Run a system call as that user; its errno, 0 for success."""
    os.setgroups(caller.groups)
    os.setegid(caller.gid)
    os.seteuid(caller.uid)
    try:
        call()
    except OSError as error:
        return error.errno or 0
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])
    return 0


class Comparison:
    """Both sides, and what is known of them."""

    def __init__(self, directory: str, seed: int) -> None:
        self.choose = random.Random(seed)
        self.machine = Driver()
        self.machine.set(ROOT_INODE, mode=0o777)
        os.umask(0)
        os.chmod(directory, 0o777)
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        self.nodes = [Node(ROOT_INODE, fd, stat.S_IFDIR)]
        self.by_kernel = {os.stat(fd).st_ino: self.nodes[0]}
        self.times: dict[int, tuple[int, int, int, int]] = {}
        self.fine_times = has_fine_times(directory)
        self.history: list[str] = []
        self.outcomes: dict[str, int] = {}

    # -- one step

    def step(self) -> None:
        caller = self.choose.choice(CALLERS)
        kinds: tuple[tuple[Callable[[Credentials], Step | None], int], ...] = (
            (self.create, 5),
            (self.make_node, 2),
            (self.make_directory, 6),
            (self.make_symlink, 2),
            (self.make_link, 3),
            (self.unlink, 4),
            (self.remove_directory, 3),
            (self.rename, 10),
            (self.change_mode, 4),
            (self.change_owner, 4),
            (self.truncate, 3),
            (self.set_times, 3),
            (self.set_xattr, 3),
            (self.remove_xattr, 1),
        )
        (make,) = self.choose.choices([k for k, _ in kinds], [w for _, w in kinds])
        made = make(caller)
        if made is None:
            return
        operation, call = made
        self.history.append(repr(operation))
        theirs = as_caller(caller, call)
        answer = self.machine.perform(operation)
        ours = answer.errno if isinstance(answer, Refused) else 0
        kind = type(operation).__name__
        outcome = f"{kind} {errno.errorcode.get(ours, 'ok')}"
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if ours != theirs:
            name = errno.errorcode.get
            self.differ(f"ours {name(ours, 'ok')}, the kernel's {name(theirs, 'ok')}")
        if isinstance(operation, _CREATING) and isinstance(answer, Attributes):
            self.adopt(operation.parent, operation.name, answer)
        self.compare()

    def adopt(self, parent: int, name: bytes, answer: Attributes) -> None:
        (directory,) = (n for n in self.nodes if n.inode == parent)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory.fd)
        number = os.stat(fd).st_ino
        if number in self.by_kernel:
            os.close(fd)
            if self.by_kernel[number].inode != answer.inode:
                self.differ("another inode was answered")
            return
        node = Node(answer.inode, fd, stat.S_IFMT(answer.mode))
        self.nodes.append(node)
        self.by_kernel[number] = node

    # -- comparing

    def differ(self, text: str) -> None:
        shown = "\n".join(self.history[-30:])
        raise AssertionError(f"{shown}\nthe last one: {text}")

    def compare(self) -> None:
        for node in self.nodes:
            self.compare_stat(node)
        if len(self.history) % 10 == 0:
            for node in self.nodes:
                self.compare_xattrs(node)
                if node.kind == stat.S_IFDIR:
                    self.compare_listing(node)
            invariants.check(self.machine.tables)

    def compare_stat(self, node: Node) -> None:
        theirs, ours = os.stat(node.fd), self.machine.attributes(node.inode)
        their_nlink = theirs.st_nlink
        pairs = {
            "mode": (ours.mode, theirs.st_mode),
            "nlink": (ours.nlink, their_nlink),
            "uid": (ours.uid, theirs.st_uid),
            "gid": (ours.gid, theirs.st_gid),
            "rdev": (ours.rdev, theirs.st_rdev),
        }
        if node.kind != stat.S_IFDIR:
            pairs["size"] = (ours.size_bytes, theirs.st_size)
        for field, (our, their) in pairs.items():
            if our != their:
                self.differ(f"inode {node.inode} {field}: ours {our:#o}, the kernel's {their:#o}")
        self.compare_times(node, ours, theirs)

    def compare_times(self, node: Node, ours: Attributes, theirs: os.stat_result) -> None:
        now = (ours.mtime_ns, ours.ctime_ns, theirs.st_mtime_ns, theirs.st_ctime_ns)
        before = self.times.get(node.inode, now)
        self.times[node.inode] = now
        for field, our, their in (("mtime", 0, 2), ("ctime", 1, 3)):
            our_changed, their_changed = now[our] != before[our], now[their] != before[their]
            if their_changed > our_changed or (self.fine_times and our_changed != their_changed):
                self.differ(f"inode {node.inode} {field} changed: {our_changed}, {their_changed}")

    def compare_listing(self, node: Node) -> None:
        fd = os.open(node.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            theirs = {os.fsencode(e.name): self.by_kernel[e.inode()].inode for e in os.scandir(fd)}
        finally:
            os.close(fd)
        page = queries.read_directory(self.machine.tables, node.inode, 2, 1000)
        ours = {e.name: e.attributes.inode for e in page.entries}
        if ours != theirs:
            self.differ(f"directory {node.inode}: ours {ours}, the kernel's {theirs}")

    def compare_xattrs(self, node: Node) -> None:
        for caller in CALLERS:
            theirs = self.their_xattrs(node, caller)
            ours = self.our_xattrs(node, caller)
            if ours != theirs:
                self.differ(f"xattrs of {node.inode} for {caller}: {ours}, the kernel's {theirs}")

    def their_xattrs(self, node: Node, caller: Credentials) -> dict[bytes, object]:
        found: dict[bytes, object] = {}

        def read() -> None:
            found[b"list"] = sorted(os.fsencode(n) for n in os.listxattr(node.path))
            for name in XATTRS:
                try:
                    found[name] = os.getxattr(node.path, name)
                except OSError as error:
                    found[name] = error.errno

        assert as_caller(caller, read) == 0
        return found

    def our_xattrs(self, node: Node, caller: Credentials) -> dict[bytes, object]:
        tables = self.machine.tables
        found: dict[bytes, object] = {
            b"list": list(queries.list_xattrs(tables, node.inode, caller))
        }
        for name in XATTRS:
            try:
                found[name] = queries.get_xattr(tables, node.inode, name, caller)
            except Failure as error:
                found[name] = error.errno
        return found

    # -- what to do: an operation of ours and the system call that is the same

    def parent(self) -> Node:
        directories = [n for n in self.nodes if n.kind == stat.S_IFDIR]
        if self.choose.random() < 0.05:
            return self.choose.choice(self.nodes)
        living = [n for n in directories if self.machine.attributes(n.inode).nlink]
        pool = living if self.choose.random() < 0.95 else directories
        return self.choose.choice(pool[-8:] + pool[:1])

    def name(self) -> bytes:
        return self.choose.choice(NAMES if self.choose.random() < 0.97 else ODD_NAMES)

    def existing(self) -> tuple[Node, bytes]:
        """Mostly a name that is there."""
        parent = self.parent()
        if parent.kind == stat.S_IFDIR and self.choose.random() < 0.85:
            names = self.machine.names(parent.inode)
            if names:
                return parent, self.choose.choice(names)
        return parent, self.name()

    def node(self) -> Node:
        return self.choose.choice(self.nodes[-15:] + self.nodes[:2])

    def mode(self) -> int:
        return self.choose.choice(MODES)

    def create(self, caller: Credentials) -> Step:
        parent, name, mode = self.parent(), self.name(), self.mode()
        operation = Create(parent.inode, name, mode, True, caller)
        flags = os.O_CREAT | os.O_EXCL | os.O_RDONLY
        return operation, lambda: os.close(os.open(name, flags, mode, dir_fd=parent.fd))

    def make_node(self, caller: Credentials) -> Step:
        parent, name, mode = self.parent(), self.name(), self.mode()
        kinds = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFREG, 0)
        mode |= self.choose.choice((*kinds, stat.S_IFDIR, stat.S_IFLNK))
        rdev = os.makedev(1, 3)
        operation = MakeNode(parent.inode, name, mode, rdev, caller)
        return operation, lambda: os.mknod(name, mode, rdev, dir_fd=parent.fd)

    def make_directory(self, caller: Credentials) -> Step:
        parent, name, mode = self.parent(), self.name(), self.mode()
        operation = MakeDirectory(parent.inode, name, mode, caller)
        return operation, lambda: os.mkdir(name, mode, dir_fd=parent.fd)

    def make_symlink(self, caller: Credentials) -> Step:
        parent, name = self.parent(), self.name()
        target = self.choose.choice((b"t", b"t" * 300, b"", b"t" * 4096))
        operation = MakeSymlink(parent.inode, name, target, caller)
        return operation, lambda: os.symlink(target, name, dir_fd=parent.fd)

    def make_link(self, caller: Credentials) -> Step | None:
        node, parent, name = self.node(), self.parent(), self.name()
        if caller.uid not in (0, self.machine.attributes(node.inode).uid):
            return None
        operation = MakeLink(node.inode, parent.inode, name, caller)
        follow = 0x400
        return operation, lambda: checked(libc.linkat(AT_FDCWD, node.path, parent.fd, name, follow))

    def unlink(self, caller: Credentials) -> Step:
        parent, name = self.existing()
        operation = Unlink(parent.inode, name, caller)
        return operation, lambda: os.unlink(name, dir_fd=parent.fd)

    def remove_directory(self, caller: Credentials) -> Step:
        parent, name = self.existing()
        operation = RemoveDirectory(parent.inode, name, caller)
        return operation, lambda: os.rmdir(name, dir_fd=parent.fd)

    def rename(self, caller: Credentials) -> Step:
        (old, name), (new, new_name) = self.existing(), self.existing()
        if self.choose.random() < 0.3:
            new_name = self.name()
        flags = self.choose.choice((0, 0, 0, 1, 2, 2, 3))
        operation = Rename(old.inode, name, new.inode, new_name, flags, caller)
        return operation, lambda: checked(libc.renameat2(old.fd, name, new.fd, new_name, flags))

    def change_mode(self, caller: Credentials) -> Step:
        node, mode = self.node(), self.mode()
        operation = SetAttributes(node.inode, caller, mode=mode)
        return operation, lambda: os.chmod(node.path, mode)

    def change_owner(self, caller: Credentials) -> Step | None:
        node = self.node()
        uid = self.choose.choice((None, 0, 1000, 1001, 1002))
        gid = self.choose.choice((None, 0, 1000, 1001, 2000))
        if uid is None and gid is None:
            return None
        operation = SetAttributes(node.inode, caller, uid=uid, gid=gid)
        there = (-1 if uid is None else uid, -1 if gid is None else gid)
        return operation, lambda: os.chown(node.path, *there)

    def truncate(self, caller: Credentials) -> Step:
        node, size = self.node(), self.choose.choice((0, 1, 1000, 2**30, -1))
        operation = SetAttributes(node.inode, caller, size_bytes=size)
        return operation, lambda: os.truncate(node.path, size)

    def set_times(self, caller: Credentials) -> Step:
        node = self.node()
        atime, mtime = (self.choose.choice(("omit", "now", 10**18 + 5)) for _ in range(2))
        operation = SetAttributes(
            node.inode,
            caller,
            atime_ns=atime if isinstance(atime, int) else None,
            mtime_ns=mtime if isinstance(mtime, int) else None,
            atime_now=atime == "now",
            mtime_now=mtime == "now",
        )
        times = (Timespec * 2)(timespec(atime), timespec(mtime))
        return operation, lambda: checked(libc.utimensat(AT_FDCWD, node.path, times, 0))

    def set_xattr(self, caller: Credentials) -> Step:
        node, name = self.node(), self.choose.choice(XATTRS)
        value = self.choose.choice((b"", b"1", b"2" * 20))
        flags = self.choose.choice((0, 0, 1, 2, 3, 4))
        operation = SetXattr(node.inode, name, value, flags, caller)
        return operation, lambda: os.setxattr(node.path, name, value, flags)

    def remove_xattr(self, caller: Credentials) -> Step:
        node, name = self.node(), self.choose.choice(XATTRS)
        operation = RemoveXattr(node.inode, name, caller)
        return operation, lambda: os.removexattr(node.path, name)


def timespec(time: str | int) -> Timespec:
    if isinstance(time, int):
        return Timespec(*divmod(time, 10**9))
    return Timespec(0, UTIME_NOW if time == "now" else UTIME_OMIT)


def has_fine_times(directory: str) -> bool:
    """Whether any two changes with a stat between them have different times (Linux 6.13)."""
    path = os.path.join(directory, "probe")
    os.close(os.open(path, os.O_CREAT))
    seen = []
    for _ in range(50):
        os.chmod(path, 0o600)
        seen.append(os.stat(path).st_ctime_ns)
    os.unlink(path)
    return len(seen) == len(set(seen))


def main() -> None:
    directory, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    comparison = Comparison(directory, seed)
    for _ in range(steps):
        comparison.step()
    for outcome, count in sorted(comparison.outcomes.items()):
        print(f"{count:6} {outcome}")
    print("times compared both ways:", comparison.fine_times)


if __name__ == "__main__":
    main()
