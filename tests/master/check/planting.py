"""A state with some of everything in it, and a hand that damages tables directly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from dfs.layout import CHUNK_BYTES, ROOT_INODE
from dfs.messages.common import ROOT, Attributes, Refused
from dfs.messages.operations import MakeLink, MakeSymlink, SetXattr
from master import tables as names
from master.check.findings import Discard, Found, Settle
from master.check.state import check_state
from master.commands import SetServer
from master.state.chunks import DROPS_AT_ONCE
from master.state.records import Chunk, Counters, Inode, key, key2
from tests.master.state.machine_driver import Driver


class Planted(Driver):
    """Root: file (two names, attributes), link, orphan (no name), trimmed, sub/deep/."""

    def __init__(self) -> None:
        super().__init__()
        self.sub = self.directory(b"sub")
        self.deep = self.directory(b"deep", self.sub)
        self.inode = self.file(b"file")
        self.perform(MakeLink(self.inode, self.sub, b"other", ROOT))
        self.done(SetXattr(self.inode, b"user.a", b"value", 0, ROOT))
        self.allocate(self.inode, 0, 3)
        link = self.perform(MakeSymlink(ROOT_INODE, b"link", b"target", ROOT))
        assert isinstance(link, Attributes)
        self.link = link.inode
        self.orphan = self.file(b"orphan")
        self.allocate(self.orphan, 0, 1)
        self.remove(b"orphan")
        self.trimmed = self.file(b"trimmed")
        self.set(self.trimmed, size_bytes=(DROPS_AT_ONCE + 5) * CHUNK_BYTES)
        self.allocate(self.trimmed, 0, DROPS_AT_ONCE + 2)
        self.set(self.trimmed, size_bytes=0)
        self.command(SetServer(1, "one:1", "a"))

    # -- damaging

    def edit(self, number: int, change: Callable[[Inode], None]) -> None:
        inode = self.read(number)
        change(inode)
        self.tables.put(names.INODES, key(number), inode.encode())

    def read(self, number: int) -> Inode:
        stored = self.tables.get(names.INODES, key(number))
        assert stored is not None
        return Inode.decode(number, stored)

    def edit_fields(self, number: int, **changes: int) -> None:
        """Add to fields of an inode's record."""

        def change(inode: Inode) -> None:
            for field, by in changes.items():
                setattr(inode, field, getattr(inode, field) + by)

        self.edit(number, change)

    def count(self, **changes: int) -> None:
        """Add to the state's counters."""
        counters = self.counters()
        changed = {f: getattr(counters, f) + by for f, by in changes.items()}
        encoded = dataclasses.replace(counters, **changed).encode()
        self.tables.put(names.COUNTERS, b"counters", encoded)

    def counters(self) -> Counters:
        stored = self.tables.get(names.COUNTERS, b"counters")
        assert stored is not None
        return Counters.decode(stored)

    def chunk(self, index: int = 0) -> Chunk:
        stored = self.tables.get(names.CHUNKS, key2(self.inode, index))
        assert stored is not None
        return Chunk.decode(stored)

    def put_chunk(self, index: int, **changes: Any) -> None:
        changed = dataclasses.replace(self.chunk(index), **changes)
        self.tables.put(names.CHUNKS, key2(self.inode, index), changed.encode())

    def first_key(self, table: str) -> bytes:
        """Of the table's first record."""
        return next(self.tables.scan(table))[0]

    # -- checking

    def findings(self, window: int = 1000) -> list[Found]:
        return [e for e in check_state(self.tables, window) if isinstance(e, Found)]

    def kinds(self) -> list[str]:
        return sorted(dict.fromkeys(str(f.kind) for f in self.findings()))

    def mend(self, rounds: int = 4) -> list[Found]:
        """As `dfs fsck --repair` does: check, mend, check again; what is left."""
        for _ in range(rounds):
            found = self.findings()
            mends = [f.mend for f in found if f.mend is not None]
            if not mends:
                return found
            for mend in mends:
                assert not isinstance(mend, Settle | Discard)
                answer = self.command(mend)
                # One may have seen to the other already, then the next round shows it.
                assert not isinstance(answer, Refused) or answer.code == 11, answer
        return self.findings()
