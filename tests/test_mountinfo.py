"""Reading the kernel's mount table."""

from __future__ import annotations

from pathlib import Path

from dfs.mountinfo import Mounted, mounted_at, parse

MOUNTINFO = r"""21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
36 21 0:52 / /mnt/with\040space\134and\011tab rw,nosuid - fuse.dfs dfs\043home rw,user_id=0
37 21 0:53 / /mnt/x rw shared:7 master:3 - tmpfs none rw
"""


def test_mountinfo_is_read_with_escapes_and_optional_fields() -> None:
    assert parse(MOUNTINFO) == [
        Mounted("254:0", "/", "ext4", "/dev/vda"),
        Mounted("0:52", "/mnt/with space\\and\ttab", "fuse.dfs", "dfs#home"),
        Mounted("0:53", "/mnt/x", "tmpfs", "none"),
    ]


def test_the_root_is_mounted_and_a_new_directory_is_not(tmp_path: Path) -> None:
    assert mounted_at("/") is not None
    assert mounted_at("/proc") is not None
    assert mounted_at("/proc/self") is None
    assert mounted_at(str(tmp_path)) is None
