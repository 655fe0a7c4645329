"""What `dfs local` remembers of a cluster between its calls: ROOT/cluster.json.

A JSON object, replaced atomically:

    {"magic": "dfs-local", "version": 1, "name": text, "base_port": int, "masters": int,
     "chunkservers": int, "mounts": {"1": directory, ...}, "metrics_port": int}

`metrics_port` is missing in files of older programs: 0, for processes that show no metrics.

Mounts keep their number for life, so that logs and pid files do too. ROOT is not durable storage
of the cluster: losing this file loses no data, only the memory of how it was started.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dfs.errors import Code, Failure
from dfs.local.layout import CHUNKSERVER, MASTER, MOUNT, Member, Root

MAGIC, VERSION = "dfs-local", 1
MASTERS_MAX = 9  # one port each before the chunkservers' ports begin
CHUNKSERVERS_MAX = 40
MOUNTS_MAX = 50  # that show metrics
HOST = "127.0.0.1"
_SERVERS_MAX = MASTERS_MAX + 1 + CHUNKSERVERS_MAX
PORTS = 2 * _SERVERS_MAX + MOUNTS_MAX  # that a cluster takes, from its base port on


@dataclass
class State:
    """How the cluster was asked to be.

    Ports: masters from `base_port`, chunkservers from +10; from `metrics_port` on, in the same
    places, the servers' metrics, and from +50 the mounts'.
    """

    name: str
    base_port: int
    masters: int
    chunkservers: int
    mounts: dict[int, str] = field(default_factory=dict)
    metrics_port: int = 0  # 0: no metrics

    def members(self) -> list[Member]:
        """All servers, in the order in which they are started."""
        masters = [Member(MASTER, i) for i in range(1, self.masters + 1)]
        return masters + [Member(CHUNKSERVER, i) for i in range(1, self.chunkservers + 1)]

    def mount_members(self) -> list[Member]:
        return [Member(MOUNT, i) for i in sorted(self.mounts)]

    def address(self, member: Member) -> str:
        """Where a master or chunkserver listens."""
        return f"{HOST}:{self.base_port + _offset(member)}"

    def metrics_address(self, member: Member) -> str:
        """Where a process shows its metrics; "" for nowhere."""
        if not self.metrics_port or (member.role == MOUNT and member.id > MOUNTS_MAX):
            return ""
        return f"{HOST}:{self.metrics_port + _offset(member)}"

    def ports(self) -> list[int]:
        """All that the servers and their metrics need."""
        addresses = [self.address(member) for member in self.members()]
        addresses += [self.metrics_address(member) for member in self.members()]
        return [int(address.rpartition(":")[2]) for address in addresses if address]

    def take_ports(self, base_port: int) -> None:
        """Use the ports from there on."""
        self.base_port, self.metrics_port = base_port, base_port + _SERVERS_MAX

    def mount_at(self, directory: str) -> Member:
        """The mount at the directory, remembered from now on."""
        for number, known in self.mounts.items():
            if known == directory:
                return Member(MOUNT, number)
        number = max(self.mounts, default=0) + 1
        self.mounts[number] = directory
        return Member(MOUNT, number)


def _offset(member: Member) -> int:
    """The place of a process's port among those of its kind."""
    before = {MASTER: 0, CHUNKSERVER: MASTERS_MAX + 1, MOUNT: _SERVERS_MAX}
    return before[member.role] + member.id - 1


def load(root: Root) -> State | None:
    """The state of the cluster in ROOT, None when there is none. Raises Failure(CONFIG)."""
    try:
        with open(root.state, encoding="utf-8") as file:
            return _parse(json.load(file))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        text = f"{root.state} is damaged ({error}); `dfs local down --purge` starts anew"
        raise Failure(Code.CONFIG, text) from None


def must_load(root: Root) -> State:
    """Like `load`, Failure(CONFIG) when there is no cluster."""
    found = load(root)
    if found is None:
        raise _no_cluster(root)
    return found


def _no_cluster(root: Root) -> Failure:
    return Failure(Code.CONFIG, f"no cluster in {root.path}: `dfs local up` makes one")


def _parse(value: dict[str, object]) -> State:
    if value["magic"] != MAGIC:
        raise ValueError("not a cluster's state")
    if value["version"] != VERSION:
        raise ValueError(f"version {value['version']}, known is {VERSION}")
    mounts = value["mounts"]
    if not isinstance(mounts, dict):
        raise TypeError("mounts")
    return State(
        name=str(value["name"]),
        base_port=int(str(value["base_port"])),
        masters=int(str(value["masters"])),
        chunkservers=int(str(value["chunkservers"])),
        mounts={int(number): str(directory) for number, directory in mounts.items()},
        metrics_port=int(str(value.get("metrics_port", 0))),
    )


def save(root: Root, state: State) -> None:
    """Remember the state."""
    value = {
        "magic": MAGIC,
        "version": VERSION,
        "name": state.name,
        "base_port": state.base_port,
        "masters": state.masters,
        "chunkservers": state.chunkservers,
        "mounts": {str(number): directory for number, directory in state.mounts.items()},
        "metrics_port": state.metrics_port,
    }
    write_file(root.state, json.dumps(value, indent=2) + "\n")


def write_file(path: str, text: str, mode: int = 0o644) -> None:
    """Replace a file at once; its permissions hold from its first moment."""
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


@contextmanager
def locked(root: Root) -> Iterator[None]:
    """Hold ROOT against other `up` and `down`. Raises Failure(CONFIG) when another has it."""
    try:
        descriptor = os.open(root.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise _no_cluster(root) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        text = f"another `dfs local` is at work in {root.path}; wait for it to end"
        raise Failure(Code.OVERLOADED, text) from None
    try:
        yield
    finally:
        os.close(descriptor)
