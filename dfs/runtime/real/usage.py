"""What this process uses of its machine, as /proc tells."""

from __future__ import annotations

import os
import resource
import time

from dfs.runtime.env import Usage

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STARTED_FIELD = 19  # proc(5): field 22 of /proc/PID/stat; the first after the name is field 3


def usage_of_this_process() -> Usage:
    """Memory, files, processor time and the time of the start."""
    cpu = os.times()
    return Usage(
        resident_bytes=_resident_pages() * _PAGE_BYTES,
        open_files=len(os.listdir("/proc/self/fd")) - 1,  # but for the listing's own
        max_open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        cpu_s=cpu.user + cpu.system,
        started_s=time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + _started_after_boot_s(),
    )


def _resident_pages() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1])


def _started_after_boot_s() -> float:
    with open("/proc/self/stat", "rb") as file:
        after_name = file.read().rpartition(b") ")[2]
    return int(after_name.split()[_STARTED_FIELD]) / _TICKS_PER_S
