"""Scrub and quarantine: what operators ask of the chunkservers. Wire ids 155-159, 185-189."""

from __future__ import annotations

import enum

from dfs.rpc.codec import message


@message(155)
class ListQuarantine:
    """What is set aside on a disk: names above `after`, at most `limit`. Answers QuarantinePage."""

    disk: str
    after: str
    limit: int


@message(156)
class QuarantinedFile:
    """`block` is -1 for a whole replica file."""

    name: str
    handle: int
    block: int
    bytes: int
    when_ns: int
    why: str


@message(157)
class QuarantinePage:
    files: tuple[QuarantinedFile, ...]
    complete: bool  # none follows


@message(158)
class ClearQuarantine:
    """Delete all that is set aside on a disk, "" for every disk. Answers QuarantineCleared."""

    disk: str


@message(159)
class QuarantineCleared:
    files: int
    bytes: int


class ScrubAction(enum.IntEnum):
    START = 0  # begin a pass now where none is under way; takes back a pause
    PAUSE = 1  # hold where it is, also over restarts
    RESUME = 2  # take back a pause


@message(185)
class ControlScrub:
    """To a chunkserver, for all its disks. Answers ScrubStatus."""

    action: int  # a ScrubAction


@message(186)
class GetScrubStatus:
    """To a chunkserver. Answers ScrubStatus."""


@message(187)
class ScrubPass:
    """One reading of a whole disk; all zeros where there was none."""

    began_ns: int = 0
    ended_ns: int = 0  # 0: it is under way
    replicas: int = 0
    bytes: int = 0
    found: int = 0  # blocks that were damaged, and replicas that could not be read


@message(188)
class DiskScrub:
    """One disk's scrub. `state`: running, waiting (for the next pass), paused, off, or failed."""

    path: str
    state: str
    current: ScrubPass
    last: ScrubPass
    position: int = 0  # the handle of the replica that was verified last
    fraction: float = 0.0
    eta_s: float = -1.0  # until the present pass ends; -1: unknown
    bytes_per_s: float = 0.0  # lately
    next_in_s: float = 0.0  # until the next pass begins
    damaged_blocks: int = 0
    read_errors: int = 0
    quarantined_blocks: int = 0
    quarantined_replicas: int = 0
    quarantined_bytes: int = 0


@message(189)
class ScrubStatus:
    server: int
    disks: tuple[DiskScrub, ...]
