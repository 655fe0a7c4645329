"""What the model of the namespace allows clients to be told, and what it must refuse."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.simulation import namespace_model as model
from tests.simulation.histories import Script
from tests.simulation.linearize import Verdict, check
from tests.simulation.namespace_model import DIRECTORY, FILE, SYMLINK, UNKNOWN, Names, Shown, step

A, B = 1, 2  # the shared directories


class Client(Script):
    """One client after the other, each operation within its own second."""

    def told(self, action: str, *arguments: Any, answer: Any = None, errno: int = 0) -> None:
        at_s = float(len(self.ops))
        self.did(at_s, at_s + 0.5, action, *arguments, answer=answer, errno=errno)

    def loses(self, action: str, *arguments: Any) -> None:
        self.lost(float(len(self.ops)), action, *arguments)

    def file(self, name: bytes, inode: int, directory: int = A) -> None:
        self.told("create", directory, name, 0o644, True, answer=file(inode))

    def directory(self, name: bytes, inode: int, parent: int = A) -> None:
        shown = Shown(inode, DIRECTORY, 2, 0o755)
        self.told("mkdir", parent, name, 0o755, answer=(shown,))

    @property
    def verdict(self) -> Verdict[Names]:
        return check(self.ops, Names((A, B)), step)

    @property
    def holds(self) -> bool:
        return self.verdict.holds


def file(inode: int, nlink: int = 1, mode: int = 0o644, name: bytes = b"") -> tuple[Shown, ...]:
    return (Shown(inode, FILE, nlink, mode, name),)


@pytest.fixture
def client() -> Client:
    return Client()


# Everything that may follow on: file a 10 and directory d 11 in A, file x 12 in d.
RIGHT: list[tuple[Any, ...]] = [
    ("create", A, b"a", 0o600, True, errno.EEXIST),
    ("create", A, b"a", 0o600, False, file(10)),
    ("create", A, b"d", 0o600, False, errno.EISDIR),
    ("create", 99, b"n", 0o600, True, errno.ENOENT),
    ("mkdir", A, b"a", 0o755, errno.EEXIST),
    ("symlink", A, b"s", (Shown(20, SYMLINK, 1, 0o777),)),
    ("link", 10, FILE, B, b"l", file(10, 2)),
    ("link", 10, FILE, A, b"a", errno.EEXIST),
    ("link", 11, DIRECTORY, B, b"l", errno.EPERM),
    ("link", 99, FILE, B, b"l", errno.ENOENT),
    ("unlink", A, b"a", None),
    ("unlink", A, b"d", errno.EISDIR),
    ("unlink", A, b"z", errno.ENOENT),
    ("rmdir", A, b"d", errno.ENOTEMPTY),
    ("rmdir", A, b"a", errno.ENOTDIR),
    ("rename", A, b"a", B, b"n", False, None),
    ("rename", A, b"a", 11, b"x", False, None),
    ("rename", A, b"a", 11, b"x", True, errno.EEXIST),
    ("rename", A, b"a", A, b"d", False, errno.EISDIR),
    ("rename", A, b"d", A, b"a", False, errno.ENOTDIR),
    ("rename", A, b"d", 11, b"n", False, errno.EINVAL),
    ("rename", 11, b"x", A, b"d", False, errno.ENOTEMPTY),
    ("rename", A, b"a", 99, b"n", False, errno.ENOENT),
    ("exchange", A, b"a", A, b"d", None),
    ("exchange", A, b"a", B, b"n", errno.ENOENT),
    ("exchange", A, b"d", 11, b"x", errno.EINVAL),
    ("lookup", A, b"a", file(10)),
    ("lookup", A, b"d", (Shown(11, DIRECTORY, 2, 0o755),)),
    ("lookup", A, b"z", errno.ENOENT),
    ("list", 11, file(12, name=b"x")),
    ("list", B, ()),
    ("list", 99, errno.ENOENT),
    ("stat", 10, file(10)),
    ("stat", 99, errno.ENOENT),
    ("stat", 99, file(99, 0)),
    ("chmod", 10, 0o600, file(10, mode=0o600)),
    ("setxattr", 10, b"v", 0, None),
    ("setxattr", 10, b"v", model.REPLACE, errno.ENODATA),
    ("removexattr", 10, errno.ENODATA),
    ("getxattr", 10, errno.ENODATA),
]
WRONG: list[tuple[Any, ...]] = [
    ("create", A, b"a", 0o600, True, file(20)),  # over what is there
    ("create", A, b"n", 0o600, True, errno.EEXIST),  # its own request, repeated
    ("create", A, b"n", 0o600, True, file(10)),  # an inode that is another file's
    ("create", A, b"a", 0o600, False, file(20)),
    ("mkdir", A, b"n", 0o755, (Shown(20, DIRECTORY, 3, 0o755),)),
    ("link", 10, FILE, B, b"l", file(10, 3)),  # counted twice
    ("link", 10, FILE, B, b"l", errno.ENOENT),
    ("unlink", A, b"a", errno.ENOENT),
    ("unlink", A, b"z", None),
    ("rmdir", A, b"d", None),  # not empty
    ("rename", A, b"a", B, b"n", False, errno.ENOENT),
    ("rename", A, b"d", 11, b"n", False, None),  # into itself
    ("rename", A, b"a", 11, b"x", True, None),
    ("exchange", A, b"a", B, b"n", None),
    ("lookup", A, b"a", errno.ENOENT),
    ("lookup", A, b"a", file(12)),
    ("lookup", A, b"a", file(10, 2)),
    ("lookup", A, b"a", file(10, mode=0o600)),
    ("lookup", A, b"d", file(11, 2, 0o755)),
    ("list", A, file(10, name=b"a")),  # d is missing
    ("list", 11, ()),
    ("list", 11, file(12, name=b"y")),
    ("stat", 10, errno.ENOENT),
    ("stat", 10, file(10, 0)),
    ("stat", 99, file(99, 1)),
    ("chmod", 10, 0o600, file(10)),
    ("setxattr", 10, b"v", 0, errno.EEXIST),
    ("getxattr", 10, b"v"),
]


def _follow_on(client: Client, case: tuple[Any, ...]) -> bool:
    client.file(b"a", 10)
    client.directory(b"d", 11)
    client.file(b"x", 12, directory=11)
    *call, told = case
    action, *arguments = call
    if isinstance(told, int):
        client.told(action, *arguments, errno=told)
    else:
        client.told(action, *arguments, answer=told)
    return client.holds


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: f"{case[0]} {case[-1]}"[:40])
def test_it_allows(client: Client, case: tuple[Any, ...]) -> None:
    assert _follow_on(client, case)


@pytest.mark.parametrize("case", WRONG, ids=lambda case: f"{case[0]} {case[-1]}"[:40])
def test_it_refuses(client: Client, case: tuple[Any, ...]) -> None:
    assert not _follow_on(client, case)


def test_every_action_is_shown_to_be_refused_something() -> None:
    unshown = set(model.RULES) - {case[0] for case in WRONG}
    assert unshown == {"symlink", "removexattr"}  # see below


def test_a_symlink_and_an_attribute_that_are_lost_are_missed(client: Client) -> None:
    client.told("symlink", A, b"s", answer=(Shown(10, SYMLINK, 1, 0o777),))
    client.told("symlink", A, b"s", answer=(Shown(11, SYMLINK, 1, 0o777),))
    assert not client.holds
    other = Client()
    other.file(b"a", 10)
    other.told("setxattr", 10, b"v", 0)
    other.told("removexattr", 10, errno=errno.ENODATA)
    assert not other.holds


def test_a_lost_creation_is_bound_when_it_is_seen(client: Client) -> None:
    client.loses("create", A, b"a", 0o644, True)
    client.told("lookup", A, b"a", answer=file(10))
    client.told("link", 10, FILE, B, b"l", answer=file(10, 2))
    client.told("lookup", B, b"l", answer=file(10, 2))
    assert client.holds
    client.told("lookup", A, b"a", answer=file(11, 2))
    assert not client.holds


def test_a_lost_creation_does_not_take_an_inode_that_is_there(client: Client) -> None:
    client.file(b"b", 10)
    client.loses("create", A, b"a", 0o644, True)
    client.told("list", A, answer=(*file(10, name=b"a"), *file(10, name=b"b")))
    assert not client.holds


def test_two_lost_creations_are_two_inodes(client: Client) -> None:
    client.loses("create", A, b"a", 0o644, True)
    client.loses("create", A, b"b", 0o644, True)
    client.told("list", A, answer=(*file(10, name=b"a"), *file(11, name=b"b")))
    assert client.holds
    client.told("list", A, answer=(*file(10, name=b"a"), *file(10, name=b"b")))
    assert not client.holds


def test_a_lost_directory_gets_what_is_put_into_it(client: Client) -> None:
    client.loses("mkdir", A, b"d", 0o755)
    client.told("lookup", A, b"d", answer=(Shown(10, DIRECTORY, 2, 0o755),))
    client.file(b"x", 11, directory=10)
    client.told("rename", A, b"d", B, b"d", False)
    client.told("list", 10, answer=file(11, name=b"x"))
    assert client.holds


def test_a_lost_unlink_happens_once(client: Client) -> None:
    client.file(b"a", 10)
    client.loses("unlink", A, b"a")
    client.told("lookup", A, b"a", errno=errno.ENOENT)
    client.file(b"a", 11)
    client.told("lookup", A, b"a", answer=file(11))
    assert client.holds
    client.told("lookup", A, b"a", errno=errno.ENOENT)
    assert not client.holds


def test_an_operation_lost_with_its_session_is_over_when_its_client_was_told(
    client: Client,
) -> None:
    client.file(b"a", 10)
    client.told("unlink", A, b"a", errno=UNKNOWN)
    client.told("lookup", A, b"a", answer=file(10))
    assert client.holds
    client.told("lookup", A, b"a", errno=errno.ENOENT)
    assert not client.holds


def test_a_directory_counts_its_directories(client: Client) -> None:
    client.directory(b"d", 10)
    client.directory(b"e", 11, parent=10)
    client.told("lookup", A, b"d", answer=(Shown(10, DIRECTORY, 3, 0o755),))
    client.told("rename", 10, b"e", B, b"e", False)
    client.told("lookup", A, b"d", answer=(Shown(10, DIRECTORY, 2, 0o755),))
    assert client.holds
    client.told("lookup", A, b"d", answer=(Shown(10, DIRECTORY, 3, 0o755),))
    assert not client.holds


def test_a_rename_between_two_names_of_one_inode_does_nothing(client: Client) -> None:
    client.file(b"a", 10)
    client.told("link", 10, FILE, A, b"b", answer=file(10, 2))
    client.told("rename", A, b"a", A, b"b", False)
    client.told("list", A, answer=(*file(10, 2, name=b"a"), *file(10, 2, name=b"b")))
    assert client.holds


def test_attributes_are_of_the_inode_not_of_the_name(client: Client) -> None:
    client.file(b"a", 10)
    client.told("setxattr", 10, b"v", model.CREATE)
    client.told("rename", A, b"a", B, b"b", False)
    client.told("getxattr", 10, answer=b"v")
    assert client.holds
    client.told("getxattr", 10, errno=errno.ENODATA)
    assert not client.holds


def test_the_operations_concerned_are_those_of_the_same_place(client: Client) -> None:
    client.file(b"other", 9, directory=B)
    client.file(b"a", 10)
    client.told("unlink", A, b"a", errno=errno.ENOENT)
    concerned = client.verdict.concerned(model.related)
    assert [op.action for op in concerned] == ["create", "unlink"]
