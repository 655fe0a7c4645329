"""Strangers at every port of a running cluster: refused, one line each, nothing else disturbed."""

from __future__ import annotations

import itertools
import os
import socket
import struct
from pathlib import Path

import pytest

from tests.local.driver import Local

pytestmark = [pytest.mark.mount, pytest.mark.timeout(300)]

GREETINGS = {
    "random bytes": os.urandom(4096),
    "a length of 4 GiB": b"dF\x01\x01" + struct.pack(">QII", 1, 0xFFFFFFFF, 0xFFFFFFFF),
    "another protocol": b"GET / HTTP/1.1\r\nHost: dfs\r\n\r\n",
}


def talk(address: str, greeting: bytes) -> None:
    """Say it, and read until the other side hangs up."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as stream:
        stream.sendall(greeting)
        while True:
            try:
                if not stream.recv(65536):
                    return
            except ConnectionResetError:
                return


def refusals(log: Path) -> int:
    return log.read_text().count("refused")


def test_a_stranger_is_refused_with_one_line(local: Local) -> None:
    local.ok("up", "--mount", local.mount)
    (local.mount / "before").write_text("kept")
    servers = [p for p in local.status()["processes"] if p["role"] != "mount"]
    for server, greeting in itertools.product(servers, GREETINGS.values()):
        log = local.root / "logs" / f"{server['role']}-{server['id']}.log"
        lines = refusals(log)
        talk(server["address"], greeting)
        local.until(lambda log=log, lines=lines: refusals(log) == lines + 1)  # type: ignore[misc]
    (local.mount / "after").write_text("kept")
    assert (local.mount / "before").read_text() == (local.mount / "after").read_text() == "kept"
    assert {p["pid"] for p in servers} <= frozenset(local.pids().values())


def test_a_wrong_key_is_refused(local: Local) -> None:
    local.ok("up")
    (local.root / "wrong").write_bytes(b"quite another key than the cluster's")
    config = local.root / "client.toml"
    wrong = local.root / "wrong.toml"
    key_file = f'key_file = "{local.root}/wrong"'
    lines = [key_file if x.startswith("key_file") else x for x in config.read_text().splitlines()]
    wrong.write_text("\n".join(lines))
    done = local.dfs("--config", wrong, "ls", "/")
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    assert "key" in done.stderr
    assert local.dfs("--config", config, "ls", "/").returncode == 0
