"""The paths and options of mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fuse.mounting import Place
from fuse.mountpoints import resolved


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
