"""The namespace against a dictionary tree: results, errnos and the whole tree alike."""

from __future__ import annotations

import stat
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

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
from tests.master.state.machine_driver import ALICE, BOB, Driver, error_name
from tests.master.state.model import Model, Node

PICKS = st.integers(0, 1000)
CALLERS = st.sampled_from((ROOT, ROOT, ALICE, ALICE, BOB))
NAMES = st.sampled_from((b"a", b"b", b"c", b"a", b"b", b"c", b"d", b".", b"..", b"x" * 256))
MODES = st.sampled_from((0o777, 0o777, 0o755, 0o1777, 0o2777, 0o700, 0o644, 0o6755, 0o2745))
HOWS = {"": 0, "NOREPLACE": 1, "EXCHANGE": 2}
XATTRS = st.sampled_from((b"user.a", b"user.b", b"trusted.a", b"system.a", b"odd.a"))
IDS = st.sampled_from((None, 0, 1000, 1001, 2000))


class Namespace(RuleBasedStateMachine):
    """Every rule does the same to both and compares the outcome."""

    @initialize()
    def start(self) -> None:
        self.machine, self.model = Driver(), Model()
        self.machine.set(ROOT_INODE, mode=0o777)
        self.nodes: list[tuple[int, Node]] = [(ROOT_INODE, self.model.root)]

    def pick(self, number: int) -> tuple[int, Node]:
        return self.nodes[number % len(self.nodes)]

    def pick_parent(self, number: int) -> tuple[int, Node]:
        """A directory, mostly."""
        if number % 20 == 0:
            return self.pick(number)
        directories = [n for n in self.nodes if n[1].is_directory]
        return directories[number % len(directories)]

    def agree(self, operation: Operation, expected: str) -> Any:
        answer = self.machine.perform(operation)
        found = error_name(answer.errno) if isinstance(answer, Refused) else ""
        assert found == expected, f"{operation}: {found or 'ok'}, the model {expected or 'ok'}"
        return answer

    def make(self, operation: Operation, parent: Node, name: bytes, node: Node) -> None:
        caller: Credentials = operation.caller  # type: ignore[union-attr]
        answer = self.agree(operation, self.model.make(parent, name, node, caller))
        if isinstance(answer, Attributes):
            self.nodes.append((answer.inode, node))

    @rule(at=PICKS, name=NAMES, mode=MODES, who=CALLERS)
    def create_exclusively(self, at: int, name: bytes, mode: int, who: Credentials) -> None:
        inode, parent = self.pick_parent(at)
        node = Node(mode, who.uid, who.gid)
        self.make(Create(inode, name, mode, True, who), parent, name, node)

    @rule(at=PICKS, name=NAMES, mode=MODES, who=CALLERS)
    def create(self, at: int, name: bytes, mode: int, who: Credentials) -> None:
        inode, parent = self.pick_parent(at)
        expected = self.model.create(parent, name, mode, who)
        answer = self.agree(Create(inode, name, mode, False, who), expected)
        if isinstance(answer, Attributes) and answer.inode not in dict(self.nodes):
            self.nodes.append((answer.inode, parent.below[name]))

    @rule(at=PICKS, name=NAMES, mode=MODES, who=CALLERS)
    def make_directory(self, at: int, name: bytes, mode: int, who: Credentials) -> None:
        inode, parent = self.pick_parent(at)
        node = Node(mode & 0o1777, who.uid, who.gid, {})
        self.make(MakeDirectory(inode, name, mode, who), parent, name, node)

    @rule(at=PICKS, name=NAMES, mode=MODES, who=CALLERS)
    def make_fifo(self, at: int, name: bytes, mode: int, who: Credentials) -> None:
        inode, parent = self.pick_parent(at)
        node = Node(mode, who.uid, who.gid, fifo=True)
        self.make(MakeNode(inode, name, stat.S_IFIFO | mode, 0, who), parent, name, node)

    @rule(at=PICKS, name=NAMES, who=CALLERS)
    def make_symlink(self, at: int, name: bytes, who: Credentials) -> None:
        inode, parent = self.pick_parent(at)
        node = Node(0o777, who.uid, who.gid, target=b"somewhere", size=9)
        self.make(MakeSymlink(inode, name, b"somewhere", who), parent, name, node)

    @rule(which=PICKS, at=PICKS, name=NAMES, who=CALLERS)
    def link(self, which: int, at: int, name: bytes, who: Credentials) -> None:
        (inode, node), (parent_inode, parent) = self.pick(which), self.pick_parent(at)
        expected = self.model.link(node, parent, name, who)
        self.agree(MakeLink(inode, parent_inode, name, who), expected)

    @rule(at=PICKS, name=NAMES, who=CALLERS)
    def unlink(self, at: int, name: bytes, who: Credentials) -> None:
        inode, parent = self.pick_parent(at)
        self.agree(Unlink(inode, name, who), self.model.unlink(parent, name, who))

    @rule(at=PICKS, name=NAMES, who=CALLERS)
    def remove_directory(self, at: int, name: bytes, who: Credentials) -> None:
        inode, parent = self.pick_parent(at)
        self.agree(RemoveDirectory(inode, name, who), self.model.rmdir(parent, name, who))

    @rule(
        at=PICKS,
        name=NAMES,
        to=PICKS,
        new_name=NAMES,
        how=st.sampled_from(sorted(HOWS)),
        who=CALLERS,
    )
    def rename(
        self, at: int, name: bytes, to: int, new_name: bytes, how: str, who: Credentials
    ) -> None:
        (inode, parent), (new_inode, new_parent) = self.pick_parent(at), self.pick_parent(to)
        expected = self.model.rename((parent, name), (new_parent, new_name), how, who)
        self.agree(Rename(inode, name, new_inode, new_name, HOWS[how], who), expected)

    @rule(which=PICKS, mode=MODES, who=CALLERS)
    def change_mode(self, which: int, mode: int, who: Credentials) -> None:
        inode, node = self.pick(which)
        expected = self.model.chmod(node, mode, who)
        self.agree(SetAttributes(inode, who, mode=mode), expected)

    @rule(which=PICKS, uid=IDS, gid=IDS, who=CALLERS)
    def change_owner(self, which: int, uid: int | None, gid: int | None, who: Credentials) -> None:
        if uid is None and gid is None:
            return
        inode, node = self.pick(which)
        expected = self.model.chown(node, uid, gid, who)
        self.agree(SetAttributes(inode, who, uid=uid, gid=gid), expected)

    @rule(which=PICKS, size=st.sampled_from((0, 5, 2**40, 2**63, -1)), who=CALLERS)
    def truncate(self, which: int, size: int, who: Credentials) -> None:
        inode, node = self.pick(which)
        expected = self.model.truncate(node, size, who)
        self.agree(SetAttributes(inode, who, size_bytes=size), expected)

    @rule(which=PICKS, size=st.sampled_from((0, 5, 7, 2**40, 2**63)), who=CALLERS)
    def grow(self, which: int, size: int, who: Credentials) -> None:
        inode, node = self.pick(which)
        expected = self.model.grow(node, size, who)
        self.agree(SetAttributes(inode, who, size_bytes=size, grow_only=True), expected)

    @rule(which=PICKS, now=st.booleans(), who=CALLERS)
    def set_times(self, which: int, now: bool, who: Credentials) -> None:
        inode, node = self.pick(which)
        chosen = None if now else 5
        operation = SetAttributes(
            inode, who, atime_ns=chosen, mtime_ns=chosen, atime_now=now, mtime_now=now
        )
        self.agree(operation, self.model.utimens(node, now, who))

    @rule(which=PICKS, name=XATTRS, how=st.sampled_from(("", "CREATE", "REPLACE")), who=CALLERS)
    def set_xattr(self, which: int, name: bytes, how: str, who: Credentials) -> None:
        inode, node = self.pick(which)
        if name == b"odd.a" and not node.allows(who, 2):
            return  # whether EACCES or EOPNOTSUPP wins is the kernel's business, see kernel_oracle
        flags = {"": 0, "CREATE": 1, "REPLACE": 2}[how]
        value = b"%d" % which
        expected = self.model.set_xattr(node, name, value, how, who)
        self.agree(SetXattr(inode, name, value, flags, who), expected)

    @rule(which=PICKS, name=st.sampled_from((b"user.a", b"trusted.a")), who=CALLERS)
    def remove_xattr(self, which: int, name: bytes, who: Credentials) -> None:
        inode, node = self.pick(which)
        expected = self.model.set_xattr(node, name, None, "", who)
        self.agree(RemoveXattr(inode, name, who), expected)

    @rule(forget=st.booleans())
    def reap(self, forget: bool) -> None:
        """What has no name goes for good, if nothing has it open."""
        if not forget:
            return
        self.machine.reap()
        tables = self.machine.tables
        gone = [n for n in self.nodes if queries.find_inode(tables, n[0]) is None]
        assert gone == [
            n for n in self.nodes if n[1] is not self.model.root and not self.model.nlink(n[1])
        ]
        self.nodes = [n for n in self.nodes if n not in gone]

    @invariant()
    def the_state_is_sound(self) -> None:
        invariants.check(self.machine.tables)

    @invariant()
    def everything_is_as_in_the_model(self) -> None:
        inode_of = {id(node): inode for inode, node in self.nodes}
        for inode, node in self.nodes:
            found = self.machine.attributes(inode)
            assert stat.S_IMODE(found.mode) == node.mode
            assert (found.uid, found.gid) == (node.uid, node.gid)
            assert found.nlink == self.model.nlink(node)
            tables = self.machine.tables
            assert set(queries.list_xattrs(tables, inode, ROOT)) == set(node.xattrs)
            for name, value in node.xattrs.items():
                assert queries.get_xattr(tables, inode, name, ROOT) == value
            if node.is_directory:
                page = queries.read_directory(tables, inode, 2, 1000)
                listed = {e.name: e.attributes.inode for e in page.entries}
                assert listed == {name: inode_of[id(n)] for name, n in node.below.items()}
            else:
                assert found.size_bytes == node.size


TestNamespace = Namespace.TestCase
TestNamespace.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
