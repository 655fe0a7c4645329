"""A server remembers where the masters are, over restarts and broken files."""

from __future__ import annotations

import pytest

from chunkserver.members import MembersFile
from dfs.runtime.sim import World
from tests.conftest import ExpectedLogs

ADDRESSES = ("master-4:7000", "master-5:7000")


def test_what_was_told_is_read_again_from_whichever_disk_has_it() -> None:
    world = World(1)
    env = world.env("server")
    for directory in ("/a", "/b"):
        env.disk.make_directory(directory)
    MembersFile(env, ("/a", "/b")).write(ADDRESSES)
    world.crash("server")
    disk = world.env("server").disk
    assert disk.read_file("/a/masters") == b"dfsmasters 1\nmaster-4:7000\nmaster-5:7000\n"
    disk.unlink("/a/masters")
    assert MembersFile(world.env("server"), ("/a", "/b")).read() == ADDRESSES


@pytest.mark.parametrize("content", [b"", b"dfsmasters 2\nx:1\n", b"garbage"])
def test_a_file_of_another_kind_is_as_none(content: bytes) -> None:
    env = World(1).env("server")
    env.disk.make_directory("/a")
    env.disk.write_file("/a/masters", content)
    assert MembersFile(env, ("/a",)).read() == ()


def test_a_file_that_cannot_be_read_is_reported_and_as_none(expected_logs: ExpectedLogs) -> None:
    expected_logs("/a/masters cannot be read")
    env = World(1).env("server")
    env.disk.make_directory("/a")
    env.disk.write_file("/a/masters", b"\xff\xff")
    assert MembersFile(env, ("/a",)).read() == ()
