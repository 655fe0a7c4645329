"""Configuration files are checked strictly; an error is one line naming file, key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfs import config
from dfs.config import Chunkserver, Client, Master
from dfs.errors import Code, Failure

CLIENT = 'cluster = "c"\nkey_file = "key"\nmasters = ["127.0.0.1:1"]\n'
MASTER = (
    'cluster = "c"\nid = 1\nlisten = "127.0.0.1:1"\ndata_dir = "d"\nkey_file = "key"\n'
    '[masters]\n1 = "127.0.0.1:1"\n'
)
CHUNKSERVER = (
    'cluster = "c"\nid = 1\nlisten = "127.0.0.1:1"\ndata_dirs = ["a", "/b"]\nkey_file = "key"\n'
    'masters = ["127.0.0.1:1"]\n'
)


def refused(cls: type, text: str, directory: Path) -> str:
    path = directory / "some.toml"
    path.write_text(text)
    with pytest.raises(Failure) as failure:
        config.load(cls, str(path))
    assert failure.value.code is Code.CONFIG
    assert failure.value.message.startswith(f"{path}: ")
    assert "\n" not in failure.value.message
    return failure.value.message


def load(cls: type[config.C], text: str, directory: Path) -> config.C:
    path = directory / "some.toml"
    path.write_text(text)
    return config.load(cls, str(path))


def test_defaults_stand_where_nothing_is_said(tmp_path: Path) -> None:
    loaded = load(Client, CLIENT, tmp_path)
    assert loaded.rpc == config.Rpc()
    assert loaded.limits == config.ClientLimits()


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    assert load(Client, CLIENT, tmp_path).key_file == str(tmp_path / "key")
    assert load(Master, MASTER, tmp_path).data_dir == str(tmp_path / "d")
    assert load(Chunkserver, CHUNKSERVER, tmp_path).data_dirs == (str(tmp_path / "a"), "/b")


def test_nested_tables_are_checked_like_the_top(tmp_path: Path) -> None:
    loaded = load(Client, CLIENT + "[limits]\nretry_for_s = 5\n", tmp_path)
    assert loaded.limits.retry_for_s == 5.0
    message = refused(Client, CLIENT + "[limits]\nnonsense = 1\n", tmp_path)
    assert "limits: unknown key 'nonsense'" in message


@pytest.mark.parametrize(
    ("text", "about"),
    [
        (CLIENT + "master = 1\n", "unknown key 'master'; known are cluster, key_file"),
        (CLIENT.replace("cluster", "#"), "'cluster' is missing"),
        (CLIENT.replace('"c"', "5"), "cluster: str is due, not int"),
        (CLIENT.replace('["127.0.0.1:1"]', '"127.0.0.1:1"'), "masters: list is due, not str"),
        (CLIENT.replace('["127.0.0.1:1"]', "[1]"), "masters: str is due, not int"),
        (CLIENT.replace('["127.0.0.1:1"]', "[]"), "masters: at least one is due"),
        (CLIENT.replace("127.0.0.1:1", "127.0.0.1"), "masters: '127.0.0.1' is not host:port"),
        (CLIENT.replace("127.0.0.1:1", "h:99999"), "masters: 'h:99999' is not host:port"),
        (CLIENT + "[limits]\nretry_for_s = -1\n", "retry_for_s: -1.0 is negative"),
        (CLIENT + "[limits]\nretry_for_s = nan\n", "retry_for_s: nan is not a finite number"),
        (CLIENT + "[limits]\nparallel_files = 0\n", "parallel_files: 0 is too small"),
        (CLIENT + "[limits]\nparallel_files = true\n", "parallel_files: int is due, not bool"),
        (CLIENT + "limits = 3\n", "limits: a table is due"),
        (CLIENT + 'metrics_listen = ":x"\n', "metrics_listen: ':x' is not host:port"),
        (CLIENT + 'log_format = "xml"\n', "log_format: 'xml' is none of text, json"),
        (CLIENT + "[log]\nsimilar_lines = 0\n", "similar_lines: 0 is too small"),
        ("= nonsense", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, about: str, tmp_path: Path) -> None:
    assert about in refused(Client, text, tmp_path)


@pytest.mark.parametrize(
    ("text", "about"),
    [
        (MASTER.replace("id = 1", "id = 0"), "id: 0 is too small"),
        (MASTER.replace("id = 1", "id = 2"), "masters: this master's id 2 is not among them"),
        (MASTER.replace('\n1 = "', '\none = "'), "masters: 'one' is not a master's id"),
        (MASTER.replace('listen = "127.0.0.1:1"', 'listen = "1"'), "listen: '1' is not host:port"),
    ],
)
def test_a_masters_file_must_make_sense(text: str, about: str, tmp_path: Path) -> None:
    assert about in refused(Master, text, tmp_path)


def test_a_file_that_is_not_there_or_not_text_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="No such file"):
        config.load(Client, str(tmp_path / "none"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Failure, match="not valid TOML"):
        config.load(Client, str(tmp_path / "binary"))


def test_a_key_must_be_long_enough_and_is_stripped(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef\n")
    assert config.load_key(str(path)) == b"0123456789abcdef"
    path.write_bytes(b"short\n")
    with pytest.raises(Failure, match="16 bytes at least are due"):
        config.load_key(str(path))
    with pytest.raises(Failure, match="No such file"):
        config.load_key(str(tmp_path / "none"))
