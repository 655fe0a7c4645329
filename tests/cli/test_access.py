"""The user acted for: refused by name where the kernel would refuse, umask left as it is."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from dfs.cli.access import acting_user, current_umask, require
from dfs.errors import Failure
from dfs.messages.common import Attributes, Credentials
from dfs.permissions import READ

FILE = Attributes(7, stat.S_IFREG | 0o640, 1, 1, 10, 0, 0, 0, 0, 0, 0, 1)


def test_a_refusal_names_the_path() -> None:
    require(FILE, Credentials(2, 3, (10,)), READ, b"/secret")
    with pytest.raises(Failure, match="/secret") as refused:
        require(FILE, Credentials(2, 3), READ, b"/secret")
    assert refused.value.errno == errno.EACCES


def test_the_acting_user_is_the_process() -> None:
    assert (acting_user().uid, acting_user().gid) == (os.getuid(), os.getgid())


def test_the_umask_is_read_and_left_as_it_is() -> None:
    before = os.umask(0o027)
    try:
        assert current_umask() == 0o027
        assert current_umask() == 0o027
    finally:
        os.umask(before)
