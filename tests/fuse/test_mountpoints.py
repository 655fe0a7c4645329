"""Reading mountinfo, and paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fuse.mounting import Place
from fuse.mountpoints import Mounted, mounted_at, parse_mountinfo, resolved

MOUNTINFO = r"""21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
36 21 0:52 / /mnt/with\040space\134and\011tab rw,nosuid - fuse.dfs dfs\043home rw,user_id=0
37 21 0:53 / /mnt/x rw shared:7 master:3 - tmpfs none rw
"""


def test_mountinfo_is_read_with_escapes_and_optional_fields() -> None:
    assert parse_mountinfo(MOUNTINFO) == [
        Mounted("254:0", "/", "ext4", "/dev/vda"),
        Mounted("0:52", "/mnt/with space\\and\ttab", "fuse.dfs", "dfs#home"),
        Mounted("0:53", "/mnt/x", "tmpfs", "none"),
    ]


def test_the_root_is_mounted_and_a_new_directory_is_not(tmp_path: Path) -> None:
    assert mounted_at("/") is not None
    assert mounted_at(str(tmp_path)) is None


def test_a_path_is_resolved_but_for_its_last_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    (real / "mount").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    assert resolved(str(tmp_path / "link" / "mount")) == os.path.realpath(real / "mount")
    monkeypatch.chdir(real)
    assert resolved("mount/") == os.path.realpath(real / "mount")
    assert resolved("/") == "/"


def test_a_cluster_name_cannot_smuggle_mount_options() -> None:
    options = Place("/m", "a,suid,dev b", True).options
    assert options == {
        "default_permissions",
        "fsname=dfs#a_suid_dev_b",
        "subtype=dfs",
        "allow_other",
    }
    assert "allow_other" not in Place("/m", "a", False).options
