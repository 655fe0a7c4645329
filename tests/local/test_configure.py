"""The files that `dfs local up` writes are what processes read, and stay as people leave them."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dfs import config
from dfs.local import configure
from dfs.local.layout import CHUNKSERVER, MASTER, Member, Root
from dfs.local.state import State
from dfs.runtime.real import RealEnv

STATE = State("local", 20_000, 3, 2, metrics_port=20_050)


def written(directory: Path) -> Root:
    root = Root(str(directory / "a root"))
    configure.write_all(RealEnv("test"), root, STATE)
    return root


def test_each_process_reads_its_file(tmp_path: Path) -> None:
    root = written(tmp_path)
    client = config.load(config.Client, root.client_config)
    master = config.load(config.Master, root.config(Member(MASTER, 2)))
    server = config.load(config.Chunkserver, root.config(Member(CHUNKSERVER, 1)))
    assert client.masters == tuple(master.masters.values()) == server.masters
    assert master.masters["2"] == master.listen
    assert master.data_dir == root.data(Member(MASTER, 2))
    assert os.path.isdir(server.data_dirs[0])
    assert client.cluster == master.cluster == server.cluster
    assert master.metrics_listen == "127.0.0.1:20051"
    assert server.metrics_listen == configure.metrics_listen(root, STATE, Member(CHUNKSERVER, 1))
    assert server.metrics_listen == "127.0.0.1:20060"
    assert len(config.load_key(client.key_file)) >= config.KEY_MIN_BYTES


def test_the_key_is_the_users_alone_and_random(tmp_path: Path) -> None:
    one, other = written(tmp_path / "1"), written(tmp_path / "2")
    assert os.stat(one.key).st_mode & 0o777 == 0o600
    assert config.load_key(one.key) != config.load_key(other.key)


def test_what_a_person_changed_stays(tmp_path: Path) -> None:
    root = written(tmp_path)
    path, key = root.config(Member(MASTER, 1)), config.load_key(root.key)
    with open(path, "a") as file:
        file.write("[raft]\nheartbeat_s = 0.2\n")
    configure.write_all(RealEnv("test"), root, STATE)
    assert config.load(config.Master, path).raft.heartbeat_s == 0.2
    assert config.load_key(root.key) == key


@given(
    st.text(st.characters(codec="utf-8")),
    st.lists(st.text(st.characters(codec="utf-8"))),
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))),
    st.integers(-(2**63), 2**63 - 1),
)
def test_any_text_survives_toml(
    text: str, texts: list[str], table: dict[str, str], number: int
) -> None:
    values: dict[str, configure.TomlValue] = {"table": table, "text": text, "texts": texts}
    values["number"] = number
    assert tomllib.loads(configure.to_toml(values)) == values
