"""The one screen of `dfs status`: what is on it, and that it stays one screen."""

from __future__ import annotations

from dfs.cli.chunkservers import disk_table, joined
from dfs.cli.health import judge
from dfs.cli.masters import Answer
from dfs.cli.screen import FINDINGS_MAX, SERVERS_MAX, repair_lines, report
from dfs.messages.cluster import ClusterStatus, DiskReport, RepairClass, RepairStatus, ServerMode
from tests.cli.plain import DISK, IDLE, MASTERS, SERVERS, answers, but, queue, said, servers, status

GIB = 1 << 30
HOUR_NS = 3600 * 10**9
NOW_NS = 1_700_000_000 * 10**9


def screen(leader: ClusterStatus, repair: RepairStatus | None = IDLE) -> list[str]:
    given = answers(leader, repair)
    return report("c", given, judge(given), NOW_NS)


def test_a_cluster_that_is_well_is_told_in_few_lines() -> None:
    assert screen(status()) == [
        "cluster c: SAFE, every chunk has all its copies",
        "",
        "repair: nothing to do",
        "scrub: no disk has been read in full yet",
        "",
        "masters",
        "  id  address  role      term  applied",
        "  1   m1       leader    3     10",
        "  2   m2       follower  3     10",
        "  3   m3       follower  3     10",
        "",
        "chunkservers",
        "  id  address  zone  state       chunks  used  free  use  disks",
        "  1   s1       z     in service       8   50B   50B  50%  1/1",
        "  2   s2       z     in service       8   50B   50B  50%  1/1",
        "  3   s3       z     in service       8   50B   50B  50%  1/1",
        "",
        "1 inode, 8 chunks (0 with fewer copies than wanted), 0 sessions; "
        "150B of 300B free before replication",
    ]


def test_problems_come_before_notes() -> None:
    lines = screen(status(under_replicated=3, endangered=1), said(ServerMode.DRAINING, 5))
    assert lines[:6] == [
        "cluster c: ENDANGERED, data has its last copy left, or cannot be read",
        "",
        "  ! 1 chunk down to the last copy",
        "  ! 2 chunks with fewer copies than wanted",
        "  - chunkserver 1 at s1: draining, 5 chunks to go",
        "",
    ]
    assert any(line.split()[3:5] == ["draining", "8"] or "draining" in line for line in lines)


def test_the_state_is_coloured_on_a_terminal_only() -> None:
    given = answers(status())
    assert "\x1b" not in "".join(report("c", given, judge(given), NOW_NS))
    assert report("c", given, judge(given), NOW_NS, colour=True)[0].startswith(
        "cluster c: \x1b[32m"
    )


def test_what_others_named_cannot_drive_the_terminal() -> None:
    bad = but(DISK, healthy=False, problem="\x1b[31m")
    lines = screen(status(servers=servers(disks=(bad,), address="a\x1b", zone="\x1b")))
    assert "\x1b" not in "".join(lines)


def test_without_a_leader_only_masters_are_shown() -> None:
    lost = [Answer("m1", status(leader=0)), Answer("m2", None, "refused")]
    lines = report("c", lost, judge(lost), NOW_NS)
    assert lines[0] == "cluster c: UNAVAILABLE, nothing can be read or changed"
    assert "chunkservers" not in lines


def test_whom_a_new_leader_waits_for_is_not_shown_as_dead() -> None:
    lines = screen(status(servers=servers(alive=False, disks=()), gathering=True))
    assert any("awaited" in line for line in lines)
    assert not any("DEAD" in line for line in lines)


def test_disks_are_listed_with_what_is_wrong_with_them() -> None:
    bad = (but(DISK, healthy=False, problem="EIO"), but(DISK, path="/b", damaged_blocks=2))
    view = status(servers=servers(disks=bad))
    gone = said(ServerMode.DRAINING, 3, "/gone")
    lines = disk_table(joined(view, gone)[:1])
    assert lines == [
        "server  disk   state         chunks  used  free  use  problem",
        "1       /data  FAILED             8   50B   50B  50%  EIO",
        "1       /b     in service         8   50B   50B  50%  2 damaged blocks",
        "1       /gone  not reported       3     -     -    -",
    ]


# -- masters


def roles(given: list[Answer]) -> list[str]:
    lines = report("c", given, judge(given), NOW_NS)
    head = lines.index("masters") + 1
    at = lines[head].index("role")
    end = lines[head].index("term")
    return [line[at:end].strip() for line in lines[head + 1 : head + 1 + len(given)]]


def test_a_removed_master_is_no_follower() -> None:
    assert roles(answers(status())) == ["leader", "follower", "follower"]
    assert roles(answers(status(masters=MASTERS[:2]))) == ["leader", "follower", "no member"]


def test_without_a_leader_a_removed_master_is_no_follower_either() -> None:
    removed = Answer("m3", status(3, leader=0, applied_index=6))
    left = Answer("m2", status(2, leader=0, applied_index=15, masters=MASTERS[:2]))
    assert roles([left, removed]) == ["follower", "no member"]


def test_without_a_leader_a_master_is_what_it_says_itself() -> None:
    seeking = tuple(but(m, state="candidate" if m.id == 2 else "unknown") for m in MASTERS)
    given = [
        Answer("m2", status(2, leader=0, masters=seeking)),
        Answer("m3", status(3, leader=0, masters=seeking)),
        Answer("m4", None, "refused"),
    ]
    assert roles(given) == ["candidate", "unknown", "not reachable"]


# -- repair


def test_repair_tells_classes_rate_and_time_left() -> None:
    classes = (
        RepairClass("endangered", 12, 2, GIB),
        RepairClass("under-replicated", 77, 1, 4 * GIB),
        RepairClass("rebalancing", 0, 0, 0),
        RepairClass("deletions", 5, 5, 0),
    )
    repair = but(IDLE, classes=classes, bytes_per_s=48.0 * 2**20, eta_s=108.4)
    assert repair_lines(repair) == [
        "repair: 5.0G to copy at 48M/s, about 1 min 48 s left",
        "  class             chunks  running  to copy",
        "  endangered            12        2     1.0G",
        "  under-replicated      77        1     4.0G",
        "  deletions              5        5        -",
    ]


def test_the_time_left_is_never_made_up() -> None:
    waiting = but(IDLE, classes=(RepairClass("endangered", 1, 0, GIB),), eta_s=-1.0)
    assert repair_lines(waiting)[0] == "repair: 1.0G to copy, nothing copied lately"
    begun = but(waiting, bytes_per_s=2.0**20, cap_bytes_per_s=2**21)
    assert repair_lines(begun)[0] == (
        "repair: 1.0G to copy at 1.0M/s of at most 2.0M/s, time left unknown"
    )
    assert repair_lines(but(IDLE, classes=queue(deletions=3)))[0] == "repair: no data to copy"


# -- scrub


def scrub(*disks: DiskReport) -> str:
    (line,) = [li for li in screen(status(servers=servers(disks=disks)[:1])) if "scrub" in li]
    return line


def test_scrub_tells_how_old_the_oldest_pass_is_and_what_is_being_read() -> None:
    fresh = but(DISK, path="/a", scrubbed_ns=NOW_NS - HOUR_NS)
    old = but(DISK, path="/b", scrubbed_ns=NOW_NS - 50 * HOUR_NS, scrub_fraction=0.25)
    assert scrub(fresh) == "scrub: every disk read in full in the last 1 h"
    assert scrub(fresh, old) == (
        "scrub: every disk read in full in the last 2 d 2 h; 1 of 2 disks being read, 25% done"
    )
    assert scrub(old, DISK) == (
        "scrub: every disk read in full in the last 2 d 2 h except 1 of 2, never yet; "
        "1 of 2 disks being read, 25% done"
    )
    assert scrub(but(DISK, healthy=False)) == "scrub: no disk is known"


# -- large clusters


def test_a_large_cluster_fits_on_the_screen_too() -> None:
    many = tuple(but(SERVERS[0], id=i, alive=i % 2 == 0) for i in range(1, 101))
    lines = screen(status(servers=many))
    assert len(lines) < FINDINGS_MAX + SERVERS_MAX + 20
    assert f"    and {50 - FINDINGS_MAX} more: --json tells all" in lines
    head = (
        "  100, 50 of them alive; `dfs node list` shows all, here those with something about them"
    )
    assert head in lines
    assert f"  and {50 - SERVERS_MAX} more" in lines


def test_a_large_cluster_that_is_well_lists_no_server() -> None:
    many = tuple(but(SERVERS[0], id=i) for i in range(1, 101))
    lines = screen(status(servers=many))
    assert "  100, 100 of them alive; `dfs node list` shows all" in lines
    assert not any("in service" in line for line in lines)
