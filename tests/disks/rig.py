"""A real cluster whose disks can be made to fail, and whose replica files can be damaged."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chunkserver import format as layout
from chunkserver.format import DATA_OFFSET, HEADER_BYTES, TABLE_BYTES, TABLE_OFFSET
from dfs.checksums import checksum
from dfs.layout import BLOCK_BYTES
from dfs.local.layout import CHUNKSERVER, MASTER, Member
from tests.crash.cluster import Cluster

SOURCE = Path(__file__).parent / "faulty.c"
NAME = "file"


def build(directory: Path) -> Path:
    """Compile `faulty.c`."""
    library = directory / "faulty.so"
    flags = ("-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl")
    subprocess.run(["cc", *flags], check=True)
    return library


@dataclass(frozen=True)
class Copy:
    """One replica of the chunk under test: who holds it, and in which file."""

    member: Member
    path: Path


class Rig:
    """One mount, four chunkservers; `path` is the file under test."""

    def __init__(self, base: Path, *, disks: bool = False) -> None:
        self._faults = base / "faults"
        environment = {"LD_PRELOAD": str(build(base)), "DFS_FAULTS": str(self._faults)}
        self.cluster = Cluster(base, mounts=1, environment=environment, disks=disks)
        self.path = self.cluster.mounts[0] / NAME

    def up(self, *, patience_s: float | None = None) -> None:
        """Start it; with `patience_s` the mount gives up what goes on failing after that time."""
        if patience_s is None:
            self.cluster.up()
            return
        self.cluster.dfs("local", "up", "--root", self.cluster.root.path, "--chunkservers", 4)
        with open(self.cluster.root.client_config, "a") as file:
            file.write(f"[limits]\nretry_for_s = {patience_s}\n")
        self.cluster.up()

    # -- the file

    def write(self, data: bytes, name: str = NAME) -> None:
        """Through the mount, synced."""
        with open(self.path.with_name(name), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def read(self, name: str = NAME) -> bytes:
        """As a client reads it that has never seen it, so that nothing comes from a cache."""
        command = [sys.executable, "-m", "dfs.cli.main", "cat", f"/{name}"]
        environment = {**os.environ, "DFS_CONFIG": self.cluster.root.client_config}
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout

    def chunk(self, name: str = NAME) -> dict[str, Any]:
        """What `dfs info` says of its first chunk."""
        (file,) = self.cluster.info([f"/{name}"])
        found: dict[str, Any] = file["chunks"][0]
        return found

    def copies(self, name: str = NAME) -> list[Copy]:
        chunk = self.chunk(name)
        return [self._copy(replica["server"], chunk["handle"]) for replica in chunk["replicas"]]

    def _copy(self, server: int, handle: int) -> Copy:
        member = Member(CHUNKSERVER, server)
        directory = Path(self.cluster.root.data(member)) / "replicas" / f"{handle >> 12:x}"
        return Copy(member, directory / f"{handle:016x}")

    def quarantined(self) -> list[str]:
        """Names in the quarantines of all servers."""
        found: list[str] = []
        for member in self.cluster.chunkservers():
            found += os.listdir(os.path.join(self.cluster.root.data(member), "quarantine"))
        return found

    def sound(self, replicas: int, name: str = NAME) -> bool:
        """Whether that many replicas are there, alike, and their files without damage."""
        if self.chunk(name)["problems"]:
            return False
        copies = self.copies(name)
        return len(copies) == replicas and all(is_sound(copy.path) for copy in copies)

    # -- trouble

    def fail(self, copies: Sequence[Copy], call: str, errno: int) -> None:
        """From now on that call ends with that error on the disks of these replicas."""
        self.fail_disks([copy.member for copy in copies], call, errno)

    def fail_disks(self, members: Sequence[Member], call: str, errno: int) -> None:
        """The same for the disks of these servers."""
        directories = [self.cluster.root.data(member) for member in members]
        lines = [f"{call} {errno} {directory}/" for directory in directories]
        before = self._faults.read_text() if self._faults.exists() else ""
        made = self._faults.with_suffix(".new")
        made.write_text(before + "".join(f"{line}\n" for line in lines))
        made.rename(self._faults)

    def mend(self) -> None:
        """All disks work again; a server that gave its disk up has to be started anew."""
        self._faults.unlink()

    def restart(self, members: Sequence[Member], meanwhile: Callable[[], None]) -> None:
        """Kill these servers, do that while they are down, and start them again."""
        for member in members:
            self.cluster.signal(member, signal.SIGKILL)
        meanwhile()
        self.cluster.up()

    def log(self, member: Member) -> str:
        """What that process has logged."""
        return Path(self.cluster.root.log(member)).read_text()

    def master_file(self, number: int) -> Path:
        """The state file of that master."""
        return Path(self.cluster.root.data(Member(MASTER, number))) / "state.mdb"


def is_sound(path: Path) -> bool:
    """Whether the file is a replica and every block matches its checksum."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    headers = layout.valid_headers(data[: layout.HEADER_BYTES])
    if not headers:
        return False
    length = layout.settled_length(headers[0][0], len(data))
    entries = struct.unpack_from(f">{layout.block_count(length)}Q", data, layout.TABLE_OFFSET)
    for number, entry in enumerate(entries):
        extent = layout.extent(number, length)
        start = layout.DATA_OFFSET + number * BLOCK_BYTES
        if checksum(data[start : start + extent]) != (entry or layout.zeros_checksum(extent)):
            return False
    return True


# -- damage of a replica's file


def flip_data(path: Path) -> None:
    flip(path, DATA_OFFSET + 70_000)


def flip_checksums(path: Path) -> None:
    flip(path, TABLE_OFFSET + 8)


def flip_headers(path: Path) -> None:
    for offset in range(16, HEADER_BYTES, 512):
        flip(path, offset)


def zero_data(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(DATA_OFFSET + 65_536)
        file.write(bytes(65_536))


def zero_checksums(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(TABLE_OFFSET)
        file.write(bytes(TABLE_BYTES))


def truncate(path: Path) -> None:
    os.truncate(path, DATA_OFFSET + 100_000)


def truncate_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def vanish(path: Path) -> None:
    path.unlink()


def flip(path: Path, offset: int) -> None:
    """Turn one bit over."""
    with open(path, "r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


DAMAGES = {
    "flipped data": flip_data,
    "flipped checksum": flip_checksums,
    "flipped headers": flip_headers,
    "zeroed data": zero_data,
    "zeroed checksums": zero_checksums,
    "truncated": truncate,
    "truncated to nothing": truncate_to_nothing,
    "vanished": vanish,
}
