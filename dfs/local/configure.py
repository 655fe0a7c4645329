"""The configuration files that `dfs local up` writes: TOML for each process, and the key.

A file that exists is left alone, so that what a person changed in it stays; only `client.toml`
and the chunkservers' list of masters follow from the state and nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from dfs import config
from dfs.errors import Failure
from dfs.local.layout import CHUNKSERVER, MASTER, MOUNT, Member, Root
from dfs.local.state import State, write_file
from dfs.runtime import Env

KEY_BYTES = 32

TomlValue = str | int | list[str] | Mapping[str, str | int]


def write_all(env: Env, root: Root, state: State) -> None:
    """Write what is missing."""
    for directory in (root.path, root.logs, root.run):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    if not os.path.exists(root.key):
        write_file(root.key, env.random.token(KEY_BYTES).hex() + "\n", mode=0o600)
    _write_missing(root.client_config, _client(root, state), "How to reach this cluster.")
    for member in state.members():
        os.makedirs(root.data(member), mode=0o700, exist_ok=True)
        values = _master(root, state, member) if member.role == MASTER else None
        about = f"{member.name}, written by `dfs local up`; changes are kept."
        _write_missing(root.config(member), values or _chunkserver(root, state, member), about)


def _write_missing(path: str, values: dict[str, TomlValue], about: str) -> None:
    if not os.path.exists(path):
        write_file(path, f"# {about}\n{to_toml(values)}")


def _client(root: Root, state: State) -> dict[str, TomlValue]:
    masters = [state.address(m) for m in state.members() if m.role == MASTER]
    return {"cluster": state.name, "key_file": root.key, "masters": [*masters]}


def _master(root: Root, state: State, member: Member) -> dict[str, TomlValue]:
    masters = {str(m.id): state.address(m) for m in state.members() if m.role == MASTER}
    made: dict[str, TomlValue] = {
        "cluster": state.name,
        "id": member.id,
        "listen": state.address(member),
        "data_dir": root.data(member),
        "key_file": root.key,
        "metrics_listen": state.metrics_address(member),
        "masters": masters,
    }
    made["limits"] = _replicas(state.chunkservers)
    return {key: value for key, value in made.items() if value}


def _replicas(chunkservers: int) -> dict[str, int]:
    """Fewer than usual where there are fewer servers: else nothing could be written, or be safe."""
    usual = config.MasterLimits()
    limits = {"chunk_replicas": usual.chunk_replicas, "min_replicas": usual.min_replicas}
    return {key: chunkservers for key, value in limits.items() if chunkservers < value}


def _chunkserver(root: Root, state: State, member: Member) -> dict[str, TomlValue]:
    assert member.role == CHUNKSERVER
    made: dict[str, TomlValue] = {
        **_client(root, state),
        "id": member.id,
        "listen": state.address(member),
        "data_dirs": [root.data(member)],
        # Each its own zone: on one machine nothing else sets them apart.
        "zone": f"local-{member.id}",
        "metrics_listen": state.metrics_address(member),
    }
    return {key: value for key, value in made.items() if value}


def metrics_listen(root: Root, state: State, member: Member) -> str:
    """Where a process shows its metrics, as its own file says; "" for nowhere, or no good file."""
    if member.role == MOUNT:
        return state.metrics_address(member)
    try:
        if member.role == MASTER:
            return config.load(config.Master, root.config(member)).metrics_listen
        return config.load(config.Chunkserver, root.config(member)).metrics_listen
    except Failure:
        return ""  # the process itself says what is wrong with it


def to_toml(values: dict[str, TomlValue]) -> str:
    """A flat table with, at most, flat tables in it, which come last."""
    plain = {k: v for k, v in values.items() if not isinstance(v, Mapping)}
    lines = [f"{key} = {_value(value)}" for key, value in plain.items()]
    for key, table in values.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{key}]"]
            lines += [f"{_string(name)} = {_value(value)}" for name, value in table.items()]
    return "\n".join(lines) + "\n"


def _value(value: str | int | list[str]) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_string, value))}]"
    return str(value)


def _string(text: str) -> str:
    """A TOML basic string: JSON's escapes, and DEL, which JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
