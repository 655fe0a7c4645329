"""`dfs scrub`: what is shown, and on a real cluster, a pass that finds a flipped bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dfs.cli.asking import Told
from dfs.cli.scrub import duration, last_pass, quarantine_report, status_report
from dfs.messages.scrubbing import DiskScrub, QuarantinedFile, ScrubPass, ScrubStatus
from tests.cli.conftest import Dfs, Json

NONE = ScrubPass()
DAY_NS = 86_400 * 10**9


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m 0s"),
        (3725, "1h 2m"),
        (90_000, "1d 1h"),
        (172_800, "2d 0h"),
    ],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_running_scrub_shows_progress_rate_and_what_is_left() -> None:
    disk = DiskScrub(
        "/disk",
        "running",
        ScrubPass(began_ns=5, bytes=100),
        ScrubPass(DAY_NS, 2 * DAY_NS, 10, 5 << 30, 3),
        fraction=0.25,
        eta_s=7300,
        bytes_per_s=20 << 20,
        damaged_blocks=2,
        quarantined_blocks=4,
        quarantined_bytes=4 << 16,
    )
    heads, line = status_report([Told(1, "s1", ScrubStatus(1, (disk,)))])
    assert heads.split()[:3] == ["server", "disk", "scrub"]
    for text in ("running", "25%", "20M/s", "2h 1m", "1d 0h, 10 replicas, 5.0G, 3 found damaged"):
        assert text in line
    assert line.endswith("2 blocks  4 files, 256K")


def test_a_waiting_scrub_shows_when_it_goes_on() -> None:
    disk = DiskScrub("/disk", "waiting", NONE, NONE, next_in_s=7200)
    line = status_report([Told(1, "s1", ScrubStatus(1, (disk,))), Told(2, "s2", None, "refused")])
    assert len(line) == 2
    assert "next in 2h 0m" in line[1]
    assert line[1].split()[-4:] == ["none", "yet", "0", "nothing"]
    assert last_pass(NONE) == "none yet"


def test_the_quarantine_names_files_and_reasons() -> None:
    block = QuarantinedFile("00ab.b7.0", 0xAB, 7, 65536, DAY_NS, "checksum mismatch")
    whole = QuarantinedFile("00ab.1", 0xAB, -1, 9, 0, "no valid\nheader")
    lines = quarantine_report([Told(1, "s1", [("/disk", block), ("/disk", whole)])])
    assert lines[1].split()[:4] == ["1", "ab", "7", "65536"]
    assert "/disk/quarantine/00ab.b7.0" in lines[1]
    assert lines[2].split()[:3] == ["1", "ab", "all"]
    assert lines[2].endswith("no valid\\x0aheader")


# -- on a cluster


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come about"


def disks(dfs: Dfs) -> list[Json]:
    return [disk for each in dfs.json("scrub", "status") for disk in each["answer"]]


@pytest.mark.mount
def test_a_pass_finds_a_flipped_bit(dfs: Dfs, cluster: Path) -> None:
    dfs.write(":/file", b"some data" * 30_000)
    (info,) = dfs.json("info", ":/file")
    handle = info["chunks"][0]["handle"]
    replica = next(cluster.glob(f"chunkserver-*/**/replicas/*/{handle:016x}"))
    content = bytearray(replica.read_bytes())
    content[65536 + 70_000] ^= 1
    replica.write_bytes(content)
    dfs.ok("scrub", "start")
    until(lambda: sum(disk["last"]["found"] for disk in disks(dfs)) == 1)
    until(lambda: all(disk["last"]["ended_ns"] for disk in disks(dfs)))
    assert len(dfs.ok("scrub", "status")) == 4
    dfs.ok("rm", ":/file")
    until(lambda: not any(disk["damaged_blocks"] for disk in disks(dfs)))


@pytest.mark.mount
def test_a_pause_is_shown_and_taken_back(dfs: Dfs) -> None:
    paused = dfs.json("scrub", "pause", "--server", 2)
    assert [(each["server"], each["answer"][0]["state"]) for each in paused] == [(2, "paused")]
    assert [disk["state"] == "paused" for disk in disks(dfs)] == [False, True, False]
    dfs.ok("scrub", "resume")
    assert not any(disk["state"] == "paused" for disk in disks(dfs))
    assert dfs("scrub", "status", "--server", 9) == 2
    assert "knows no chunkserver 9" in dfs.err


@pytest.mark.mount
def test_the_quarantine_is_listed_and_cleared(dfs: Dfs) -> None:
    before = [len(each["answer"]) for each in dfs.json("scrub", "quarantine")]
    assert dfs("scrub", "quarantine", "--clear") == 2  # nobody there to say yes
    assert "give --yes too" in dfs.err
    assert [len(each["answer"]) for each in dfs.json("scrub", "quarantine")] == before
    cleared = dfs.json("scrub", "quarantine", "--clear", "--yes")
    assert [each["answer"]["files"] for each in cleared] == before
    assert [each["answer"] for each in dfs.json("scrub", "quarantine")] == [[], [], []]
