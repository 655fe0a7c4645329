"""One writer: `python -m tests.crash.writer --directory DIR --manifest FILE --number N --seed S`.

Works in its own directory on a mount, one operation after the other, chosen from the seed, until
its standard input is closed; then it closes its files and ends. Every call is noted before and
after in the manifest, which lies outside of the mount. It also reads what it wrote, and notes what
is not as it should be. The first error ends it, noted with its operation.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from tests.crash import content
from tests.crash.content import BLOCK_BYTES
from tests.crash.model import BLOCKS, DIRECTORY, LOG, FileHistory, Operation, Tree

FILES_MAX = 12
BLOCKS_MAX = 96
LOG_MAX_BYTES = 6 << 20
NAMES = tuple(f"f{i}" for i in range(10))
DIRECTORIES = ("d0", "d1", "d2")


@dataclass(slots=True)
class File:
    """A file of this writer, linked or only open."""

    kind: str
    descriptor: int | None
    history: list[Operation] = field(default_factory=list)
    size: int = 0  # blocks, or bytes of a log


class Writer:
    """Chooses operations, carries them out, and notes them."""

    def __init__(self, directory: str, manifest: int, number: int, seed: int) -> None:
        self._directory, self._manifest, self._number = directory, manifest, number
        self._random = random.Random(seed)
        self._tree = Tree()
        self._files: dict[int, File] = {}
        self._count = 0

    # -- the loop

    def run(self, stopped: Callable[[], bool]) -> None:
        while not stopped():
            weights = self._weights()
            (name,) = self._random.choices(list(weights), list(weights.values()))
            operation = getattr(self, f"_choose_{name}")()
            if operation is not None:
                self._perform(operation)
        for number, file in list(self._files.items()):
            if file.descriptor is not None:
                self._perform(self._next("close", file=number))

    def _weights(self) -> dict[str, int]:
        return {
            "create": 4 if len(self._files) < FILES_MAX else 0,
            "append": 6,
            "overwrite": 8,
            "fsync": 5,
            "close": 2,
            "truncate": 1,
            "read": 4,
            "rename": 3,
            "link": 2,
            "unlink": 2,
            "mkdir": 1,
            "rmdir": 1,
            "fsyncdir": 1,
        }

    def _next(self, do: str, **fields: object) -> Operation:
        self._count += 1
        return Operation(self._count, do, **fields)  # type: ignore[arg-type]

    def _perform(self, operation: Operation) -> None:
        begun = {k: v for k, v in asdict(operation).items() if v or k == "number"}
        self._note(begun)
        file = self._files.get(operation.file)
        if file is not None:
            file.history.append(operation)
        try:
            getattr(self, f"_do_{operation.do}")(operation)
        except OSError as error:
            self._note({"number": operation.number, "problem": f"{error.strerror} ({error.errno})"})
            raise
        self._note({"number": operation.number})
        self._tree.apply(operation)
        if operation.do in ("rename", "unlink", "close"):
            self._forget_gone()

    def _note(self, note: dict[str, object]) -> None:
        os.write(self._manifest, json.dumps(note).encode() + b"\n")

    # -- choosing

    def _pick(self, kind: str = "") -> tuple[int, File] | None:
        """A file, open or with a name, of that kind."""
        files = [(n, f) for n, f in self._files.items() if kind in ("", f.kind)]
        return self._random.choice(files) if files else None

    def _any_path(self) -> str:
        directories = [p for p, file in self._tree.names.items() if file == DIRECTORY]
        parent = self._random.choice(["", "", *(f"{d}/" for d in directories)])
        return parent + self._random.choice(NAMES)

    def _named_files(self) -> list[str]:
        return [path for path, file in self._tree.names.items() if file != DIRECTORY]

    def _choose_create(self) -> Operation | None:
        path = self._any_path()
        if path in self._tree.names:
            return None
        return self._next("create", path=path, kind=self._random.choice((LOG, BLOCKS)))

    def _choose_append(self) -> Operation | None:
        found = self._pick(LOG)
        if found is None or found[1].size > LOG_MAX_BYTES:
            return None
        big = self._random.random() < 0.1
        length = self._random.randrange(1, 3 << 20 if big else 20_000)
        return self._next("append", file=found[0], length_bytes=length)

    def _choose_overwrite(self) -> Operation | None:
        """In place mostly, and beyond the end without leaving a gap."""
        found = self._pick(BLOCKS)
        if found is None:
            return None
        first = self._random.randint(0, min(found[1].size, BLOCKS_MAX))
        count = 1 if self._random.random() < 0.7 else self._random.randint(1, 24)
        return self._next("overwrite", file=found[0], first=first, count=count)

    def _choose_truncate(self) -> Operation | None:
        found = self._pick(BLOCKS)
        if found is None:
            return None
        count = self._random.randint(0, found[1].size)
        return self._next("truncate", file=found[0], count=count)

    def _choose_fsync(self) -> Operation | None:
        return self._on_open("fsync")

    def _choose_close(self) -> Operation | None:
        return self._on_open("close")

    def _on_open(self, do: str) -> Operation | None:
        found = self._pick()
        return (
            None if found is None or found[1].descriptor is None else self._next(do, file=found[0])
        )

    def _choose_read(self) -> Operation | None:
        found = self._pick()
        return self._next("read", file=found[0]) if found else None

    def _choose_rename(self) -> Operation | None:
        if self._random.random() < 0.15:
            return self._choose_rename_directory()
        paths = self._named_files()
        old, new = self._random.choice(paths) if paths else "", self._any_path()
        return self._next("rename", path=old, to=new) if old and old != new else None

    def _choose_rename_directory(self) -> Operation | None:
        old, new = self._random.sample(DIRECTORIES, 2)
        if old not in self._tree.names or new in self._tree.names:
            return None
        return self._next("rename", path=old, to=new)

    def _choose_link(self) -> Operation | None:
        paths, new = self._named_files(), self._any_path()
        if not paths or new in self._tree.names:
            return None
        return self._next("link", path=self._random.choice(paths), to=new)

    def _choose_unlink(self) -> Operation | None:
        paths = self._named_files()
        return self._next("unlink", path=self._random.choice(paths)) if len(paths) > 3 else None

    def _choose_mkdir(self) -> Operation | None:
        path = self._random.choice(DIRECTORIES)
        return None if path in self._tree.names else self._next("mkdir", path=path)

    def _choose_rmdir(self) -> Operation | None:
        path = self._random.choice(DIRECTORIES)
        inside = any(other.startswith(path + "/") for other in self._tree.names)
        if path not in self._tree.names or inside:
            return None
        return self._next("rmdir", path=path)

    def _choose_fsyncdir(self) -> Operation:
        return self._next("fsyncdir")

    # -- carrying out

    def _at(self, path: str) -> str:
        return os.path.join(self._directory, path)

    def _do_create(self, operation: Operation) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        flags |= os.O_APPEND if operation.kind == LOG else 0
        descriptor = os.open(self._at(operation.path), flags, 0o644)
        self._files[operation.number] = File(operation.kind, descriptor)

    def _opened(self, operation: Operation) -> tuple[File, int]:
        """The file, opened again by one of its names if it is closed."""
        file = self._files[operation.file]
        if file.descriptor is None:
            named = (p for p, number in self._tree.names.items() if number == operation.file)
            flags = os.O_RDWR | (os.O_APPEND if file.kind == LOG else 0)
            file.descriptor = os.open(self._at(next(named)), flags)
        return file, file.descriptor

    def _do_append(self, operation: Operation) -> None:
        file, descriptor = self._opened(operation)
        data = content.record(self._number, operation.number, operation.length_bytes)
        _write_all(descriptor, data, None)
        file.size += operation.length_bytes

    def _do_overwrite(self, operation: Operation) -> None:
        file, descriptor = self._opened(operation)
        data = content.blocks(self._number, operation.number, operation.first, operation.count)
        _write_all(descriptor, data, operation.first * BLOCK_BYTES)
        file.size = max(file.size, operation.first + operation.count)

    def _do_truncate(self, operation: Operation) -> None:
        file, descriptor = self._opened(operation)
        os.ftruncate(descriptor, operation.count * BLOCK_BYTES)
        file.size = operation.count

    def _do_fsync(self, operation: Operation) -> None:
        os.fsync(self._opened(operation)[1])

    def _do_close(self, operation: Operation) -> None:
        file, descriptor = self._opened(operation)
        file.descriptor = None
        os.close(descriptor)

    def _do_read(self, operation: Operation) -> None:
        """Read the file, past the kernel's pages, and compare with what was written."""
        file, descriptor = self._opened(operation)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        data = bytearray()
        while piece := os.pread(descriptor, 1 << 20, len(data)):
            data += piece
        wrong = FileHistory(self._number, file.kind, file.history).exact(bytes(data))
        if wrong:
            raise OSError(0, f"read back something else: {'; '.join(wrong[:4])}")

    def _do_rename(self, operation: Operation) -> None:
        os.rename(self._at(operation.path), self._at(operation.to))

    def _do_link(self, operation: Operation) -> None:
        os.link(self._at(operation.path), self._at(operation.to))

    def _do_unlink(self, operation: Operation) -> None:
        os.unlink(self._at(operation.path))

    def _do_mkdir(self, operation: Operation) -> None:
        os.mkdir(self._at(operation.path))

    def _do_rmdir(self, operation: Operation) -> None:
        os.rmdir(self._at(operation.path))

    def _do_fsyncdir(self, operation: Operation) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _forget_gone(self) -> None:
        """Files with neither a name nor a handle are no more."""
        for number, file in list(self._files.items()):
            if file.descriptor is None and not self._tree.links(number):
                del self._files[number]


def _write_all(descriptor: int, data: bytes, offset: int | None) -> None:
    view = memoryview(data)
    while view:
        done = os.write(descriptor, view) if offset is None else os.pwrite(descriptor, view, offset)
        view = view[done:]
        offset = None if offset is None else offset + done


def _input_closed() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", required=True)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    manifest = os.open(options.manifest, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    writer = Writer(options.directory, manifest, options.number, options.seed)
    with contextlib.suppress(OSError):  # noted in the manifest, which is what is judged
        writer.run(_input_closed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
