"""What one writer did, and what may be there after a crash.

A writer works alone in its own directory, one operation after the other, and notes each in a
manifest outside of the file system: begun, then acknowledged. `Operation` is one such note, `Tree`
the names after some of them, `FileHistory` the contents of one file.

What must hold (`check`):

- **The mount lived.** Every operation was acknowledged, and everything is exactly there.
- **The mount died.** The names are those after the first k operations, where k takes in all that
  were acknowledged and perhaps the one under way (C4: what is lost is a suffix): this file system
  commits every change of names before it answers, so none that was acknowledged may be lost.
  A file's contents are those at its last safe point (fsync, close, truncate: what these
  acknowledged is on the replicas and part of the file), with later writes there or not: each block
  old or new, never zeros, never torn; a log cut short somewhere, without a gap.
- **The power went** (`power`): as before, but only fsync makes contents safe, and a block that was
  never synced may be zeros.

Each violation is a sentence; but for `Manifest.load` nothing here does I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash import content
from tests.crash.content import BLOCK_BYTES

DIRECTORY = 0  # in a tree, where a file has its id
LOG, BLOCKS = "log", "blocks"
SAFE_AFTER_KILL = frozenset({"fsync", "close", "truncate"})
SAFE_AFTER_POWER_LOSS = frozenset({"fsync"})
CHANGES_NAMES = frozenset({"create", "rename", "unlink", "link", "mkdir", "rmdir"})


@dataclass(slots=True)
class Operation:
    """One call of a writer. `file` is the number of the operation that created the file."""

    number: int
    do: str
    path: str = ""
    to: str = ""
    file: int = 0
    kind: str = ""
    first: int = 0  # block
    count: int = 0  # blocks
    length_bytes: int = 0
    acknowledged: bool = False
    problem: str = ""

    def __str__(self) -> str:
        details = [f"{self.path!r}"] if self.path else []
        details += [f"-> {self.to!r}"] if self.to else []
        details += [f"file {self.file}"] if self.file else []
        details += [f"blocks {self.first}+{self.count}"] if self.do == "overwrite" else []
        details += [f"to {self.count} blocks"] if self.do == "truncate" else []
        details += [f"{self.length_bytes} bytes"] if self.length_bytes else []
        end = "acknowledged" if self.acknowledged else self.problem or "NOT ACKNOWLEDGED"
        return f"{self.number:6} {self.do:9} {' '.join(details)}: {end}"


def operations_of(notes: Sequence[dict[str, Any]]) -> list[Operation]:
    """The operations of a manifest's notes, in order."""
    made: dict[int, Operation] = {}
    for note in notes:
        if "do" in note:
            made[note["number"]] = Operation(**note)
        elif "problem" in note:
            made[note["number"]].problem = note["problem"]
        else:
            made[note["number"]].acknowledged = True
    return list(made.values())


class Tree:
    """Names in a writer's directory: path -> id of the file, or DIRECTORY."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def apply(self, operation: Operation) -> None:
        names, do = self.names, operation.do
        if do == "create":
            names[operation.path] = operation.number
        elif do == "mkdir":
            names[operation.path] = DIRECTORY
        elif do in ("unlink", "rmdir"):
            del names[operation.path]
        elif do == "link":
            names[operation.to] = names[operation.path]
        elif do == "rename":
            self._rename(operation.path, operation.to)

    def _rename(self, old: str, new: str) -> None:
        if self.names[old] and self.names[old] == self.names.get(new):
            return  # two names of one file: POSIX leaves both
        self.names[new] = self.names.pop(old)
        for path in [path for path in self.names if path.startswith(old + "/")]:
            self.names[new + path[len(old) :]] = self.names.pop(path)

    def links(self, file: int) -> int:
        return sum(found == file for found in self.names.values())


@dataclass(slots=True)
class Found:
    """A file as it is read after the crash."""

    inode: int
    links: int
    data: bytes
    problem: str = ""  # why it could not be read


Seen = dict[str, Found | None]  # path -> file, None for a directory


@dataclass(slots=True)
class Blocks:
    """What a file of blocks may be: its sizes in blocks, and for each block what it may hold."""

    sizes: list[int] = field(default_factory=lambda: [0])
    versions: dict[int, list[str]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.sizes[-1]

    def certain(self, writer: int, operation: Operation) -> None:
        """The operation is there for sure."""
        if operation.do == "overwrite":
            for number in range(operation.first, operation.first + operation.count):
                self.versions[number] = [_text(writer, operation, number)]
            self.sizes = [max(self.size, operation.first + operation.count)]
        elif operation.do == "truncate":
            self.sizes = [operation.count]
            self.versions = {b: v for b, v in self.versions.items() if b < operation.count}

    def possible(self, writer: int, operation: Operation) -> None:
        """The operation may be there, or in part, or not."""
        if operation.do == "overwrite":
            for number in range(operation.first, operation.first + operation.count):
                self.versions.setdefault(number, []).append(_text(writer, operation, number))
            self.sizes += range(self.size + 1, operation.first + operation.count + 1)
        elif operation.do == "truncate":
            self.sizes.append(operation.count)


def _text(writer: int, operation: Operation, number: int) -> str:
    return content.describe(content.block(writer, operation.number, number))


class FileHistory:
    """All that happened to the contents of one file."""

    def __init__(self, writer: int, kind: str, operations: Sequence[Operation]) -> None:
        self._writer, self._kind, self._operations = writer, kind, operations

    def exact(self, data: bytes) -> list[str]:
        """What is wrong if every operation must be there."""
        return self._wrong(data, len(self._operations), power=False)

    def after_crash(self, data: bytes, *, power: bool = False) -> list[str]:
        """What is wrong if operations after the last safe one may be lost."""
        return self._wrong(data, self._safe(power=power), power=power)

    def unreadable(self, problem: str, *, power: bool) -> list[str]:
        """What is wrong if it cannot be read, which must never be."""
        was = "was synced" if self._safe(power=power) else "holds nothing that was safe"
        return [f"{problem}; the file {was}"]

    def _safe(self, *, power: bool) -> int:
        """How many operations, from the first on, are safe."""
        safe = SAFE_AFTER_POWER_LOSS if power else SAFE_AFTER_KILL
        points = [i for i, o in enumerate(self._operations) if o.do in safe and o.acknowledged]
        return points[-1] + 1 if points else 0

    def _wrong(self, data: bytes, certain: int, *, power: bool) -> list[str]:
        if self._kind == LOG:
            return list(self._wrong_log(data, certain, power=power))
        return list(self._wrong_blocks(data, certain, power=power))

    def _wrong_log(self, data: bytes, certain: int, *, power: bool) -> Iterator[str]:
        appends = [(i, o) for i, o in enumerate(self._operations) if o.do == "append"]
        due = b"".join(content.record(self._writer, o.number, o.length_bytes) for _, o in appends)
        least = sum(o.length_bytes for i, o in appends if i < certain)
        if len(data) < least:
            yield f"{len(data)} bytes are there, {least} are safe"
        if len(data) > len(due):
            yield f"{len(data)} bytes are there, only {len(due)} were ever appended"
        seen, due = data[: len(due)], due[: len(data)]
        if power:
            seen, due = seen[:least], due[:least]
        if seen != due:
            yield content.difference(seen, due)

    def _wrong_blocks(self, data: bytes, certain: int, *, power: bool) -> Iterator[str]:
        may = Blocks()
        for operation in self._operations[:certain]:
            may.certain(self._writer, operation)
        synced = may.size
        for operation in self._operations[certain:]:
            may.possible(self._writer, operation)
        size, rest = divmod(len(data), BLOCK_BYTES)
        if rest or size not in may.sizes:
            sizes = sorted(dict.fromkeys(may.sizes))
            yield f"{len(data)} bytes are there, due are blocks: {_shown(sizes)}"
        for number in range(-(-len(data) // BLOCK_BYTES)):
            found = content.describe(data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])
            due = may.versions.get(number, [])
            lost = power and number >= synced and found == content.ZEROS
            if found not in due and not lost:
                yield f"block {number} is {found}, due is {' or '.join(due) or content.MISSING}"


def _shown(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers[:8])) + (" or ..." if len(numbers) > 8 else "")


@dataclass(slots=True)
class Violation:
    """A fact that does not hold, and the file or name concerned."""

    text: str
    path: str = ""
    file: int = DIRECTORY


class Manifest:
    """All that one writer noted."""

    def __init__(self, writer: int, operations: Sequence[Operation]) -> None:
        self.writer, self.operations = writer, operations
        self._files = {o.number: o.kind for o in operations if o.do == "create"}

    @classmethod
    def load(cls, writer: int, path: Path) -> Manifest:
        """What is in the file; nothing when the writer did not come to begin."""
        lines = path.read_text().splitlines() if path.exists() else []
        return cls(writer, operations_of([json.loads(line) for line in lines]))

    @property
    def in_doubt(self) -> list[Operation]:
        """What was begun and never acknowledged: the last one, if any."""
        return [o for o in self.operations if not o.acknowledged]

    def history(self, violation: Violation) -> list[Operation]:
        """Every operation on the file or one of its names; on the name, where it is no file's."""
        tree, found = Tree(), []
        for operation in self.operations:
            paths = (operation.path, operation.to)
            if violation.file == DIRECTORY:
                touched = any(violation.path and path == violation.path for path in paths)
            else:
                files = [operation.file, operation.number, *map(tree.names.get, paths)]
                touched = violation.file in files
            if touched:
                found.append(operation)
            if operation.acknowledged:
                tree.apply(operation)
        return found

    def contents(self, file: int) -> FileHistory:
        mine = [o for o in self.operations if o.file == file]
        return FileHistory(self.writer, self._files[file], mine)

    def check(self, seen: Seen, *, survived: bool, power: bool = False) -> list[Violation]:
        """What does not hold; `survived`: the mount lived, so everything must be there."""
        if survived and self.in_doubt:
            return [Violation(f"an error on a mount that lived: {o}") for o in self.in_doubt]
        attempts = [
            _names_wrong(tree, seen) or self._contents_wrong(tree, seen, survived, power)
            for tree in self._trees()
        ]
        return min(attempts, key=len)

    def _trees(self) -> list[Tree]:
        """The names after all that was acknowledged, and with what was under way."""
        made = []
        for also in (False, True):
            tree = Tree()
            for operation in self.operations:
                if operation.acknowledged or also:
                    tree.apply(operation)
            made.append(tree)
        return made if any(o.do in CHANGES_NAMES for o in self.in_doubt) else made[:1]

    def _contents_wrong(
        self, tree: Tree, seen: Seen, survived: bool, power: bool
    ) -> list[Violation]:
        wrong: dict[int, list[Violation]] = {}
        for path, file in tree.names.items():
            found = seen[path]
            if found is None or file in wrong:
                continue
            history = self.contents(file)
            if found.problem:
                texts = history.unreadable(found.problem, power=power)
            elif survived:
                texts = history.exact(found.data)
            else:
                texts = history.after_crash(found.data, power=power)
            wrong[file] = [Violation(f"{path}: {text}", path, file) for text in texts]
        return [violation for found_wrong in wrong.values() for violation in found_wrong]


def _names_wrong(tree: Tree, seen: Seen) -> list[Violation]:
    wrong = [Violation(f"{p} is lost", p, tree.names[p]) for p in tree.names if p not in seen]
    wrong += [Violation(f"{p} is there and should not be", p) for p in seen if p not in tree.names]
    inodes: dict[int, int] = {}  # inode -> file
    files: dict[int, int] = {}
    for path, file in tree.names.items():
        if path not in seen:
            continue
        found = seen[path]
        if (found is None) != (file == DIRECTORY):
            wrong.append(Violation(f"{path} is of another kind", path, file))
        elif found is not None:
            known = (inodes.setdefault(found.inode, file), files.setdefault(file, found.inode))
            if known != (file, found.inode):
                wrong.append(Violation(f"{path} is not the file it should be", path, file))
            if not wrong and found.links != tree.links(file):
                text = f"{path} has {found.links} links, due are {tree.links(file)}"
                wrong.append(Violation(text, path, file))
    return wrong
