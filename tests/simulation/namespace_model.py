"""The namespace as clients may see it, as a model for `linearize`: directories, what is in them,
and each inode's identity, kind, link count, mode and one extended attribute.

A state holds the names (`Entry`) and what is known of the inodes that have one (`Trait`); link
counts follow from the names. The inode of a creation is a negative number until somebody is told
the real one, so a lost creation is bound when it is first seen. An inode without names is gone or
an orphan, as the master's reaping goes; both are answers that it may give.

The order of the checks is that of Linux, as in `master.state`: it decides which error wins.

An answer is a tuple of `Shown`, one per inode; where there is nothing to show it is None. `UNKNOWN`
is the errno of an operation that was lost with its session: it took effect before it ended, or
never will.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.simulation.history import Op

FILE, DIRECTORY, SYMLINK = "file", "directory", "symlink"
UNKNOWN = -1  # no errno: the file system never says so
SYMLINK_MODE = 0o777
CREATE, REPLACE = 1, 2  # as in setxattr(2)


class Shown(NamedTuple):
    """An inode as an answer shows it; `name` in listings only."""

    inode: int
    kind: str
    nlink: int
    mode: int
    name: bytes = b""


class Entry(NamedTuple):
    directory: int
    name: bytes
    inode: int
    kind: str


class Trait(NamedTuple):
    inode: int
    mode: int
    value: bytes | None = None  # of the extended attribute


class Names(NamedTuple):
    """A state. Both tuples are sorted; entries in `roots` directories or below."""

    roots: tuple[int, ...]
    entries: tuple[Entry, ...] = ()
    traits: tuple[Trait, ...] = ()

    def find(self, directory: int, name: bytes) -> Entry | None:
        for entry in self.entries:
            if entry.directory == directory and entry.name == name:
                return entry
        return None

    def of_inode(self, inode: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.inode == inode]

    def has_directory(self, inode: int) -> bool:
        return inode in self.roots or bool(self.of_inode(inode))

    def within(self, directory: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.directory == directory]

    def trait(self, inode: int) -> Trait:
        return next(trait for trait in self.traits if trait.inode == inode)

    def shown(self, entry: Entry, name: bytes = b"") -> Shown:
        if entry.kind == DIRECTORY:
            nlink = 2 + sum(e.kind == DIRECTORY for e in self.within(entry.inode))
        else:
            nlink = len(self.of_inode(entry.inode))
        return Shown(entry.inode, entry.kind, nlink, self.trait(entry.inode).mode, name)

    def contains(self, tree: Entry, directory: int) -> bool:
        """Whether the directory is `tree` or lies below it."""
        while tree.kind == DIRECTORY and directory not in self.roots:
            if directory == tree.inode:
                return True
            above = self.of_inode(directory)
            if not above:
                return False
            directory = above[0].directory
        return False

    def with_entries(self, gone: tuple[Entry, ...], added: tuple[Entry, ...]) -> Names:
        """Names changed; what has lost its last name is forgotten."""
        entries = tuple(sorted([e for e in self.entries if e not in gone] + list(added)))
        named = {entry.inode for entry in entries}
        traits = tuple(trait for trait in self.traits if trait.inode in named)
        return Names(self.roots, entries, traits)

    def with_trait(self, trait: Trait) -> Names:
        others = [other for other in self.traits if other.inode != trait.inode]
        return self._replace(traits=tuple(sorted([*others, trait])))


class Outcome(NamedTuple):
    """One way in which an operation may end."""

    code: int
    after: Names
    shown: tuple[Shown, ...] | None = None


def step(state: Names, op: Op) -> Iterator[Names]:
    """The states after the operation, given its answer; none when it cannot have that answer."""
    for code, after, shown in RULES[op.action](state, op):
        if op.is_open:
            yield after
        elif op.errno == UNKNOWN:
            yield after
            yield state
        elif op.errno == code and (code or shown is None):
            yield after
        elif op.errno == code:
            yield from _bound(after, shown or (), op.answer)


def _bound(state: Names, mine: tuple[Shown, ...], told: tuple[Shown, ...]) -> Iterator[Names]:
    """The state in which what it shows is what was told; none if it cannot be."""
    inodes: dict[int, int] = {}
    if len(mine) != len(told):
        return
    for expected, seen in zip(mine, told, strict=True):
        if expected[1:] != seen[1:] or inodes.setdefault(expected.inode, seen.inode) != seen.inode:
            return
    new = {here: there for here, there in inodes.items() if here != there}
    known = {trait.inode for trait in state.traits}
    if not new:
        yield state
    elif max(new) < 0 and known.isdisjoint(new.values()) and len({*new.values()}) == len(new):
        yield _renumbered(state, new)


def _renumbered(state: Names, new: dict[int, int]) -> Names:
    entries = sorted(
        Entry(new.get(e.directory, e.directory), e.name, new.get(e.inode, e.inode), e.kind)
        for e in state.entries
    )
    traits = sorted(t._replace(inode=new.get(t.inode, t.inode)) for t in state.traits)
    return Names(state.roots, tuple(entries), tuple(traits))


# -- names


def _create(state: Names, op: Op) -> Iterator[Outcome]:
    """create(directory, name, mode, exclusive)"""
    directory, name, mode, exclusive = op.arguments
    there = state.find(directory, name)
    if there is None:
        yield _made(state, op, Entry(directory, name, -1 - op.number, FILE), mode)
    elif exclusive:
        yield Outcome(errno.EEXIST, state)
    elif there.kind == DIRECTORY:
        yield Outcome(errno.EISDIR, state)
    else:
        yield Outcome(0, state, (state.shown(there),))


def _mkdir(state: Names, op: Op) -> Iterator[Outcome]:
    """mkdir(directory, name, mode)"""
    directory, name, mode = op.arguments
    if state.find(directory, name) is not None:
        yield Outcome(errno.EEXIST, state)
    else:
        yield _made(state, op, Entry(directory, name, -1 - op.number, DIRECTORY), mode)


def _symlink(state: Names, op: Op) -> Iterator[Outcome]:
    """symlink(directory, name)"""
    directory, name = op.arguments
    if state.find(directory, name) is not None:
        yield Outcome(errno.EEXIST, state)
    else:
        yield _made(state, op, Entry(directory, name, -1 - op.number, SYMLINK), SYMLINK_MODE)


def _made(state: Names, op: Op, entry: Entry, mode: int) -> Outcome:
    if not state.has_directory(entry.directory):
        return Outcome(errno.ENOENT, state)
    after = state.with_trait(Trait(entry.inode, mode)).with_entries((), (entry,))
    return Outcome(0, after, (after.shown(entry),))


def _link(state: Names, op: Op) -> Iterator[Outcome]:
    """link(inode, its kind, directory, name)"""
    inode, kind, directory, name = op.arguments
    is_named = bool(state.of_inode(inode))
    if not is_named:
        yield Outcome(errno.ENOENT, state)
    if state.find(directory, name) is not None:
        yield Outcome(errno.EEXIST, state)
    elif not state.has_directory(directory):
        yield Outcome(errno.ENOENT, state)
    elif kind == DIRECTORY:
        yield Outcome(errno.EPERM, state)
    elif is_named:
        entry = Entry(directory, name, inode, kind)
        after = state.with_entries((), (entry,))
        yield Outcome(0, after, (after.shown(entry),))


def _unlink(state: Names, op: Op) -> Iterator[Outcome]:
    """unlink(directory, name)"""
    there = state.find(*op.arguments)
    if there is None:
        yield Outcome(errno.ENOENT, state)
    elif there.kind == DIRECTORY:
        yield Outcome(errno.EISDIR, state)
    else:
        yield Outcome(0, state.with_entries((there,), ()))


def _rmdir(state: Names, op: Op) -> Iterator[Outcome]:
    """rmdir(directory, name)"""
    there = state.find(*op.arguments)
    if there is None:
        yield Outcome(errno.ENOENT, state)
    elif there.kind != DIRECTORY:
        yield Outcome(errno.ENOTDIR, state)
    elif state.within(there.inode):
        yield Outcome(errno.ENOTEMPTY, state)
    else:
        yield Outcome(0, state.with_entries((there,), ()))


def _rename(state: Names, op: Op) -> Iterator[Outcome]:
    """rename(directory, name, new directory, new name, no replace)"""
    directory, name, to, new_name, no_replace = op.arguments
    old, there = state.find(directory, name), state.find(to, new_name)
    if old is None or not state.has_directory(to):
        yield Outcome(errno.ENOENT, state)
    elif there is not None and no_replace:
        yield Outcome(errno.EEXIST, state)
    elif code := _rename_error(state, old, there, to):
        yield Outcome(code, state)
    elif there is not None and there.inode == old.inode:
        yield Outcome(0, state)  # two names of one inode: nothing happens
    else:
        gone = (old,) if there is None else (old, there)
        moved = Entry(to, new_name, old.inode, old.kind)
        yield Outcome(0, state.with_entries(gone, (moved,)))


def _rename_error(state: Names, old: Entry, there: Entry | None, to: int) -> int:
    crosses = old.directory != to
    if crosses and state.contains(old, to):
        return errno.EINVAL
    if there is None:
        return 0
    if crosses and state.contains(there, old.directory):
        return errno.ENOTEMPTY
    if old.inode == there.inode:
        return 0
    if (old.kind == DIRECTORY) != (there.kind == DIRECTORY):
        return errno.ENOTDIR if old.kind == DIRECTORY else errno.EISDIR
    return errno.ENOTEMPTY if state.within(there.inode) else 0


def _exchange(state: Names, op: Op) -> Iterator[Outcome]:
    """exchange(directory, name, other directory, other name)"""
    directory, name, to, new_name = op.arguments
    old, there = state.find(directory, name), state.find(to, new_name)
    if old is None or there is None:
        yield Outcome(errno.ENOENT, state)
    elif directory != to and (state.contains(old, to) or state.contains(there, directory)):
        yield Outcome(errno.EINVAL, state)
    else:
        swapped = old._replace(inode=there.inode, kind=there.kind)
        other = there._replace(inode=old.inode, kind=old.kind)
        same = old.inode == there.inode
        yield Outcome(0, state if same else state.with_entries((old, there), (swapped, other)))


def _lookup(state: Names, op: Op) -> Iterator[Outcome]:
    """lookup(directory, name)"""
    there = state.find(*op.arguments)
    if there is None:
        yield Outcome(errno.ENOENT, state)
    else:
        yield Outcome(0, state, (state.shown(there),))


def _list(state: Names, op: Op) -> Iterator[Outcome]:
    """list(directory); the answer sorted by name"""
    (directory,) = op.arguments
    if not state.has_directory(directory):
        yield Outcome(errno.ENOENT, state)
    found = state.within(directory)
    yield Outcome(0, state, tuple(state.shown(entry, entry.name) for entry in found))


# -- inodes


def _stat(state: Names, op: Op) -> Iterator[Outcome]:
    """stat(inode)"""
    (inode,) = op.arguments
    if found := state.of_inode(inode):
        yield Outcome(0, state, (state.shown(found[0]),))
    else:
        yield from _orphan(state, op)


def _chmod(state: Names, op: Op) -> Iterator[Outcome]:
    """chmod(inode, mode), of a file or a directory"""
    inode, mode = op.arguments
    if found := state.of_inode(inode):
        after = state.with_trait(state.trait(inode)._replace(mode=mode))
        yield Outcome(0, after, (after.shown(found[0]),))
    else:
        yield from _orphan(state, op)


def _setxattr(state: Names, op: Op) -> Iterator[Outcome]:
    """setxattr(inode, value, flags), of a file or a directory"""
    inode, value, flags = op.arguments
    if not state.of_inode(inode):
        yield from _orphan(state, op, errno.EEXIST, errno.ENODATA)
        return
    trait = state.trait(inode)
    if trait.value is None and flags & REPLACE:
        yield Outcome(errno.ENODATA, state)
    elif trait.value is not None and flags & CREATE:
        yield Outcome(errno.EEXIST, state)
    else:
        yield Outcome(0, state.with_trait(trait._replace(value=value)))


def _removexattr(state: Names, op: Op) -> Iterator[Outcome]:
    """removexattr(inode)"""
    (inode,) = op.arguments
    if not state.of_inode(inode):
        yield from _orphan(state, op, errno.ENODATA)
    elif state.trait(inode).value is None:
        yield Outcome(errno.ENODATA, state)
    else:
        yield Outcome(0, state.with_trait(state.trait(inode)._replace(value=None)))


def _getxattr(state: Names, op: Op) -> Iterator[Outcome]:
    """getxattr(inode); the answer is the value"""
    (inode,) = op.arguments
    if not state.of_inode(inode):
        yield from _orphan(state, op, errno.ENODATA)
    elif (value := state.trait(inode).value) is None:
        yield Outcome(errno.ENODATA, state)
    elif op.is_open or op.errno or op.answer == value:
        yield Outcome(0, state)


def _orphan(state: Names, op: Op, *errors: int) -> Iterator[Outcome]:
    """Of an inode without names: it is gone, or what happens to it concerns nobody."""
    for code in (errno.ENOENT, *errors):
        yield Outcome(code, state)
    links = [shown.nlink for shown in op.answer or () if isinstance(shown, Shown)]
    if not any(links):
        yield Outcome(0, state)


def related(op: Op, other: Op) -> bool:
    """Whether the operations name one place or inode, for those who read what went wrong."""
    return not _subjects(op).isdisjoint(_subjects(other))


def _subjects(op: Op) -> set[Any]:
    arguments = op.arguments
    if op.action in ("stat", "chmod", "setxattr", "removexattr", "getxattr", "list"):
        found: set[Any] = {arguments[0]}
    elif op.action == "link":
        found = {arguments[0], arguments[2:4]}
    elif op.action in ("rename", "exchange"):
        found = {arguments[:2], arguments[2:4]}
    else:
        found = {arguments[:2]}
    shown = op.answer if isinstance(op.answer, tuple) and op.action != "list" else ()
    return found | {s.inode for s in shown if isinstance(s, Shown)}


RULES: dict[str, Callable[[Names, Op], Iterator[Outcome]]] = {
    "create": _create,
    "mkdir": _mkdir,
    "symlink": _symlink,
    "link": _link,
    "unlink": _unlink,
    "rmdir": _rmdir,
    "rename": _rename,
    "exchange": _exchange,
    "lookup": _lookup,
    "list": _list,
    "stat": _stat,
    "chmod": _chmod,
    "setxattr": _setxattr,
    "removexattr": _removexattr,
    "getxattr": _getxattr,
}
READS = frozenset({"lookup", "list", "stat", "getxattr"})
