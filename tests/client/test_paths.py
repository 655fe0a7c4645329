"""Walking path names."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest

from dfs.client import Client
from dfs.client.paths import parent_of, resolve
from dfs.errors import Failure
from dfs.messages.common import ROOT, Attributes, Credentials
from dfs.messages.operations import MakeDirectory, MakeSymlink
from tests.client.fake_cluster import Scene, create, play

SOMEBODY = Credentials(1000, 1000)


def walk(key_file: str, check: Callable[[Client], Awaitable[None]]) -> None:
    """A tree to walk: /d (0755), /d/private (0700), /d/file, and links."""

    async def scene(s: Scene) -> None:
        async with s.client() as client:
            root = client.root_inode
            directory = await client.perform(MakeDirectory(root, b"d", 0o755, ROOT))
            assert isinstance(directory, Attributes)
            private = await client.perform(MakeDirectory(directory.inode, b"private", 0o700, ROOT))
            assert isinstance(private, Attributes)
            await (await create(client, b"file")).close()
            for name, target in (
                (b"to-d", b"d"),
                (b"absolute", b"/d/private"),
                (b"dangling", b"nowhere"),
                (b"loop", b"loop"),
                (b"up", b"../d/../file"),
            ):
                await client.perform(MakeSymlink(root, name, target, ROOT))
            await check(client)

    play(key_file, scene)


def test_paths_name_what_they_should(key_file: str) -> None:
    async def check(client: Client) -> None:
        file = await resolve(client, b"/file", ROOT)
        for path in (b"file", b"//file", b"/./d/../file", b"/to-d/../file", b"up"):
            assert (await resolve(client, path, ROOT)).inode == file.inode
        private = await resolve(client, b"/d/private", ROOT)
        for path in (b"absolute", b"/to-d/private/", b"d/private/."):
            assert (await resolve(client, path, ROOT)).inode == private.inode
        assert (await resolve(client, b"/", ROOT)).inode == client.root_inode
        link = await resolve(client, b"to-d", ROOT, follow=False)
        assert link.inode != (await resolve(client, b"to-d", ROOT)).inode

    walk(key_file, check)


@pytest.mark.parametrize(
    ("path", "caller", "expected"),
    [
        (b"", ROOT, errno.ENOENT),
        (b"/absent", ROOT, errno.ENOENT),
        (b"/absent/deeper", ROOT, errno.ENOENT),
        (b"dangling", ROOT, errno.ENOENT),
        (b"/file/x", ROOT, errno.ENOTDIR),
        (b"/file/", ROOT, errno.ENOTDIR),
        (b"loop", ROOT, errno.ELOOP),
        (b"/d/private/x", SOMEBODY, errno.EACCES),
        (b"/" + b"n" * 256, ROOT, errno.ENAMETOOLONG),
        (b"/d" * 2048, ROOT, errno.ENAMETOOLONG),
    ],
)
def test_paths_that_lead_nowhere(
    key_file: str, path: bytes, caller: Credentials, expected: int
) -> None:
    async def check(client: Client) -> None:
        with pytest.raises(Failure) as caught:
            await resolve(client, path, caller)
        assert caught.value.errno == expected

    walk(key_file, check)


def test_the_parent_of_a_new_name(key_file: str) -> None:
    async def check(client: Client) -> None:
        entry = await parent_of(client, b"/to-d/new/", ROOT)
        assert entry.parent.inode == (await resolve(client, b"/d", ROOT)).inode
        assert (entry.name, entry.attributes) == (b"new", None)
        entry = await parent_of(client, b"to-d", ROOT)
        assert entry.attributes is not None
        for path in (b"/", b"/d/.", b"/d/.."):
            with pytest.raises(Failure) as caught:
                await parent_of(client, path, ROOT)
            assert caught.value.errno == errno.EINVAL

    walk(key_file, check)
