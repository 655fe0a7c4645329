"""A file system of nested dictionaries, written from the man pages and as naive as possible.

Independent of the state machine: link counts are counted by walking the tree, parents found by
searching it, emptiness by looking. Methods return an errno's name, or "" for success.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dfs.messages.common import Credentials

READ, WRITE, SEARCH = 4, 2, 1
SUID, SGID, STICKY, GROUP_EXECUTE = 0o4000, 0o2000, 0o1000, 0o010


@dataclass(eq=False)
class Node:
    """An inode: a directory has `children`, a symlink a `target`, a file neither."""

    mode: int
    uid: int
    gid: int
    children: dict[bytes, Node] | None = None
    target: bytes | None = None
    fifo: bool = False
    size: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return self.children is not None

    @property
    def is_file(self) -> bool:
        return self.children is None and self.target is None and not self.fifo

    @property
    def below(self) -> dict[bytes, Node]:
        assert self.children is not None
        return self.children

    def allows(self, who: Credentials, want: int) -> bool:
        if who.uid == 0:
            return True  # asked only for READ, WRITE and SEARCH of directories
        if who.uid == self.uid:
            return (self.mode >> 6) & want == want
        if self.gid in (who.gid, *who.groups):
            return (self.mode >> 3) & want == want
        return self.mode & want == want

    def owned_by(self, who: Credentials) -> bool:
        return who.uid in (0, self.uid)


class Model:
    """The tree and the rules."""

    def __init__(self) -> None:
        self.root = Node(0o777, 0, 0, {})

    def walk(self, at: Node | None = None) -> Iterator[tuple[Node, bytes, Node]]:
        """(directory, name, node) of every name in the tree."""
        directory = at or self.root
        for name, node in directory.below.items():
            yield directory, name, node
            if node.is_directory:
                yield from self.walk(node)

    def nlink(self, node: Node) -> int:
        if node is self.root:
            links = 2
        else:
            links = sum(found is node for _, _, found in self.walk())
            if node.is_directory:
                links *= 2
        if node.is_directory:
            links += sum(child.is_directory for child in node.below.values())
        return links

    def parent_of(self, node: Node) -> Node:
        for directory, _, found in self.walk():
            if found is node:
                return directory
        return self.root

    def is_within(self, node: Node, tree: Node) -> bool:
        while node is not tree and node is not self.root:
            node = self.parent_of(node)
        return node is tree

    # -- path lookup

    def enter(self, parent: Node, who: Credentials) -> str:
        if not parent.is_directory:
            return "ENOTDIR"
        return "" if parent.allows(who, SEARCH) else "EACCES"

    def vacant(self, parent: Node, name: bytes, who: Credentials) -> str:
        """Whether a new name may be made: path_resolution(7), then the directory's own bits."""
        failed = self.enter(parent, who)
        if failed:
            return failed
        if name in (b".", b".."):
            return "EEXIST"
        if len(name) > 255:
            return "ENAMETOOLONG"
        if name in parent.below:
            return "EEXIST"
        if self.nlink(parent) == 0:
            return "ENOENT"
        return "" if parent.allows(who, WRITE | SEARCH) else "EACCES"

    def removable(self, parent: Node, victim: Node, who: Credentials) -> str:
        if not parent.allows(who, WRITE | SEARCH):
            return "EACCES"
        if parent.mode & STICKY and not (victim.owned_by(who) or parent.owned_by(who)):
            return "EPERM"
        return ""

    # -- operations

    def make(self, parent: Node, name: bytes, node: Node, who: Credentials) -> str:
        failed = self.vacant(parent, name, who)
        if failed:
            return failed
        if parent.mode & SGID:
            node.gid = parent.gid
            if node.is_directory:
                node.mode |= SGID
            elif node.mode & (SGID | GROUP_EXECUTE) == SGID | GROUP_EXECUTE and who.uid != 0:
                member = parent.gid in (who.gid, *who.groups)
                node.mode = node.mode if member else node.mode & ~SGID
        parent.below[name] = node
        return ""

    def create(self, parent: Node, name: bytes, mode: int, who: Credentials) -> str:
        """Without O_EXCL."""
        failed = self.vacant(parent, name, who)
        if failed == "EEXIST":
            present = None if name in (b".", b"..") else parent.below[name]
            return "EISDIR" if present is None or present.is_directory else ""
        return failed or self.make(parent, name, Node(mode, who.uid, who.gid), who)

    def link(self, node: Node, parent: Node, name: bytes, who: Credentials) -> str:
        failed = self.vacant(parent, name, who)
        if failed:
            return failed
        if node.is_directory:
            return "EPERM"
        if self.nlink(node) == 0:
            return "ENOENT"
        parent.below[name] = node
        return ""

    def unlink(self, parent: Node, name: bytes, who: Credentials) -> str:
        failed = self.enter(parent, who)
        if failed:
            return failed
        if name in (b".", b".."):
            return "EISDIR"
        if len(name) > 255:
            return "ENAMETOOLONG"
        if name not in parent.below:
            return "ENOENT"
        victim = parent.below[name]
        failed = self.removable(parent, victim, who)
        if failed:
            return failed
        if victim.is_directory:
            return "EISDIR"
        del parent.below[name]
        return ""

    def rmdir(self, parent: Node, name: bytes, who: Credentials) -> str:
        failed = self.enter(parent, who)
        if failed:
            return failed
        if name in (b".", b".."):
            return "EINVAL" if name == b"." else "ENOTEMPTY"
        if len(name) > 255:
            return "ENAMETOOLONG"
        if name not in parent.below:
            return "ENOENT"
        victim = parent.below[name]
        failed = self.removable(parent, victim, who)
        if failed:
            return failed
        if not victim.is_directory:
            return "ENOTDIR"
        if victim.below:
            return "ENOTEMPTY"
        del parent.below[name]
        return ""

    def rename(
        self,
        old: tuple[Node, bytes],
        new: tuple[Node, bytes],
        how: str,
        who: Credentials,
    ) -> str:
        """`how`: "", "NOREPLACE" or "EXCHANGE"."""
        (parent, name), (new_parent, new_name) = old, new
        failed = self.enter(parent, who) or self.enter(new_parent, who)
        if failed:
            return failed
        if name in (b".", b".."):
            return "EBUSY"
        if new_name in (b".", b".."):
            return "EEXIST" if how == "NOREPLACE" else "EBUSY"
        if len(name) > 255:
            return "ENAMETOOLONG"
        if name not in parent.below:
            return "ENOENT"
        if new_parent is not self.root and self.nlink(new_parent) == 0:
            return "ENOENT"
        if len(new_name) > 255:
            return "ENAMETOOLONG"
        node, target = parent.below[name], new_parent.below.get(new_name)
        if target is None and how == "EXCHANGE":
            return "ENOENT"
        if target is not None and how == "NOREPLACE":
            return "EEXIST"
        failed = self._rename_refusal(parent, node, new_parent, target, how == "EXCHANGE", who)
        if failed or node is target:
            return failed
        if how == "EXCHANGE":
            assert target is not None
            parent.below[name] = target
        else:
            del parent.below[name]
        new_parent.below[new_name] = node
        return ""

    def _rename_refusal(
        self,
        parent: Node,
        node: Node,
        new_parent: Node,
        target: Node | None,
        exchange: bool,
        who: Credentials,
    ) -> str:
        if parent is not new_parent:
            if node.is_directory and self.is_within(new_parent, node):
                return "EINVAL"
            if target and target.is_directory and self.is_within(parent, target):
                return "EINVAL" if exchange else "ENOTEMPTY"
        if node is target:
            return ""
        failed = self.removable(parent, node, who)
        if failed:
            return failed
        if target is None:
            if not new_parent.allows(who, WRITE | SEARCH):
                return "EACCES"
        else:
            failed = self.removable(new_parent, target, who)
            if failed:
                return failed
            if not exchange and node.is_directory != target.is_directory:
                return "ENOTDIR" if node.is_directory else "EISDIR"
        moving = [node, target] if exchange else [node]
        for tree in moving:
            needs = parent is not new_parent and tree and tree.is_directory
            if needs and tree and not tree.allows(who, WRITE):
                return "EACCES"
        if not exchange and target and target.is_directory and target.below:
            return "ENOTEMPTY"
        return ""

    def chmod(self, node: Node, mode: int, who: Credentials) -> str:
        if node.target is not None:
            return "EOPNOTSUPP"
        if not node.owned_by(who):
            return "EPERM"
        if who.uid != 0 and node.gid not in (who.gid, *who.groups):
            mode &= ~SGID
        node.mode = mode
        return ""

    def chown(self, node: Node, uid: int | None, gid: int | None, who: Credentials) -> str:
        if who.uid != 0:
            if who.uid != node.uid or uid not in (None, node.uid):
                return "EPERM"
            if gid not in (None, node.gid, who.gid, *who.groups):
                return "EPERM"
        if not node.is_directory:
            self._drop_privileges(node, who)
        node.uid = node.uid if uid is None else uid
        node.gid = node.gid if gid is None else gid
        return ""

    def _drop_privileges(self, node: Node, who: Credentials) -> None:
        node.mode &= ~SUID
        stranger = who.uid != 0 and node.gid not in (who.gid, *who.groups)
        if node.mode & GROUP_EXECUTE or stranger:
            node.mode &= ~SGID

    def truncate(self, node: Node, size: int, who: Credentials) -> str:
        if size < 0:
            return "EINVAL"
        if node.is_directory:
            return "EISDIR"
        if not node.is_file:
            return "EINVAL"
        if not node.allows(who, WRITE):
            return "EACCES"
        if size > 2**63 - 1:
            return "EFBIG"
        node.size = size
        if who.uid != 0:
            self._drop_privileges(node, who)
        return ""

    def grow(self, node: Node, size: int, who: Credentials) -> str:
        mode, before = node.mode, node.size
        refused = self.truncate(node, size, who)
        if not refused and size <= before:
            node.mode, node.size = mode, before
        return refused

    def utimens(self, node: Node, now: bool, who: Credentials) -> str:
        if node.owned_by(who):
            return ""
        if not now:
            return "EPERM"
        return "" if node.allows(who, WRITE) else "EACCES"

    def set_xattr(
        self, node: Node, name: bytes, value: bytes | None, how: str, who: Credentials
    ) -> str:
        """`value` None removes; `how`: "", "CREATE" or "REPLACE"."""
        if name.startswith(b"trusted.") and who.uid != 0:
            return "EPERM"
        if name.startswith(b"user."):
            if not (node.is_file or node.is_directory):
                return "EPERM"
            if node.is_directory and node.mode & STICKY and not node.owned_by(who):
                return "EPERM"
            if not node.allows(who, WRITE):
                return "EACCES"
        elif not name.startswith(b"trusted."):
            return "EOPNOTSUPP"
        if how == "CREATE" and name in node.xattrs:
            return "EEXIST"
        if (how == "REPLACE" or value is None) and name not in node.xattrs:
            return "ENODATA"
        if value is None:
            del node.xattrs[name]
        else:
            node.xattrs[name] = value
        return ""
