"""What stands where under ROOT.

ROOT/lock                   held while `up` or `down` works
ROOT/cluster.json           what was asked for: ports, counts, mounts (`state`)
ROOT/cluster.key            the cluster's key, mode 0600
ROOT/client.toml            for --config and DFS_CONFIG
ROOT/master-1.toml          configuration of one process; also chunkserver-1.toml
ROOT/master-1/              its data; also chunkserver-1/
ROOT/logs/master-1.log      what it wrote to standard output and error
ROOT/run/master-1.json      its pid and start time (`processes`)
"""

from __future__ import annotations

import os
from dataclasses import dataclass

MASTER, CHUNKSERVER, MOUNT = "master", "chunkserver", "mount"


def default_root() -> str:
    """Where the cluster of `dfs local up` lives unless told otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(base, "dfs")


@dataclass(frozen=True)
class Member:
    """One process of the cluster: its role and its number within the role, from 1."""

    role: str
    id: int

    @property
    def name(self) -> str:
        return f"{self.role}-{self.id}"


@dataclass(frozen=True)
class Root:
    """The paths under one root directory, which is absolute."""

    path: str

    @property
    def lock(self) -> str:
        return os.path.join(self.path, "lock")

    @property
    def state(self) -> str:
        return os.path.join(self.path, "cluster.json")

    @property
    def key(self) -> str:
        return os.path.join(self.path, "cluster.key")

    @property
    def client_config(self) -> str:
        return os.path.join(self.path, "client.toml")

    @property
    def logs(self) -> str:
        return os.path.join(self.path, "logs")

    @property
    def run(self) -> str:
        return os.path.join(self.path, "run")

    def config(self, member: Member) -> str:
        return os.path.join(self.path, f"{member.name}.toml")

    def data(self, member: Member) -> str:
        return os.path.join(self.path, member.name)

    def log(self, member: Member) -> str:
        return os.path.join(self.logs, f"{member.name}.log")

    def pid_file(self, member: Member) -> str:
        return os.path.join(self.run, f"{member.name}.json")
