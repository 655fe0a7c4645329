"""The judgement over a cluster: what counts as safe, degraded, endangered, unavailable, and why."""

from __future__ import annotations

import itertools

import pytest

from dfs.cli.health import Health, State, judge
from dfs.cli.masters import Answer, leader_among
from dfs.messages.cluster import RepairStatus, ServerMode
from tests.cli.plain import DISK, IDLE, MASTERS, SERVERS, answers, but, queue, said, servers, status

SAFE, DEGRADED, ENDANGERED = State.SAFE, State.DEGRADED, State.ENDANGERED
DEAD = status(servers=servers(alive=False, disks=(), replicas=0))


def found(health: Health) -> list[tuple[State, str]]:
    return [(finding.state, finding.code) for finding in health.findings]


def texts(health: Health) -> str:
    return "\n".join(finding.text for finding in health.findings)


def test_all_well_is_safe_and_nothing_is_said() -> None:
    assert judge(answers(status())) == Health(SAFE, ())


# -- masters


def test_a_silent_master_degrades_and_is_named_once() -> None:
    masters = (*MASTERS[:2], but(MASTERS[2], reachable=False))
    silent = [*answers(status(masters=masters))[:2], Answer("m3", None, "refused")]
    health = judge(silent)
    assert health.state is DEGRADED
    assert [f.text for f in health.problems if "m3" in f.text] == ["master at m3: refused"]


def test_that_the_next_master_must_not_fail_is_told() -> None:
    masters = (*MASTERS[:2], but(MASTERS[2], reachable=False))
    health = judge(answers(status(masters=masters)))
    assert found(health) == [(DEGRADED, "MASTER_UNREACHABLE"), (DEGRADED, "BARE_MAJORITY")]
    assert "2 of 3 masters are up: one more loss stops all" in texts(health)
    five = (*masters, but(MASTERS[1], id=4, address="m4"), but(MASTERS[1], id=5, address="m5"))
    assert found(judge(answers(status(masters=five)))) == [(DEGRADED, "MASTER_UNREACHABLE")]


def test_without_a_leader_nothing_works_and_it_is_told_how_many_masters_lack() -> None:
    lost = [Answer("m1", status(1, leader=0)), Answer("m2", None, "timeout")]
    health = judge(lost)
    assert found(health) == [(State.UNAVAILABLE, "NO_LEADER"), (DEGRADED, "MASTER_SILENT")]
    assert health.findings[0].text == "no master leads: 1 of 3 masters answer, 2 are needed"
    electing = judge([Answer(f"m{i}", status(i, leader=0)) for i in (1, 2, 3)])
    assert [finding.text for finding in electing.findings] == ["no master leads"]


def test_a_master_that_was_removed_and_still_runs_is_noted_and_does_no_harm() -> None:
    health = judge(answers(status(masters=MASTERS[:2])))
    assert found(health) == [(SAFE, "NO_MEMBER")]
    assert "master 3 at m3 runs but is no member" in texts(health)


def test_a_removed_master_that_was_stopped_is_noted_and_does_no_harm() -> None:
    health = judge([*answers(status(masters=MASTERS[:2]))[:2], Answer("m3", None, "refused")])
    assert found(health) == [(SAFE, "NO_MEMBER")]


def test_without_a_leader_who_has_applied_the_most_knows_the_members() -> None:
    """A removed master may not have heard that it was, and would count itself."""
    removed = Answer("m3", status(3, leader=0, applied_index=6))
    left = Answer("m2", status(2, leader=0, applied_index=15, masters=MASTERS[:2]))
    health = judge([Answer("m1", None, "refused"), left, removed])
    assert health.findings[0].text == "no master leads: 1 of 2 masters answer, 2 are needed"
    assert (SAFE, "NO_MEMBER") in found(health)


def test_of_two_who_say_they_lead_the_higher_term_does() -> None:
    deposed, new = Answer("m1", status(1, term=3)), Answer("m2", status(2, leader=2, term=4))
    assert leader_among([deposed, new]) is new
    assert leader_among([]) is None


# -- chunks


@pytest.mark.parametrize(
    ("name", "state", "code"),
    [
        ("endangered", ENDANGERED, "LAST_COPY"),
        ("under_replicated", DEGRADED, "LACKS_COPIES"),
        ("settling", DEGRADED, "SETTLING"),
        ("misplaced", DEGRADED, "MISPLACED"),
    ],
)
def test_what_waits_for_repair_has_its_state(name: str, state: State, code: str) -> None:
    health = judge(answers(status(), but(IDLE, classes=queue(**{name: 3}))))
    assert found(health) == [(state, code)]
    assert health.findings[0].text.startswith("3 chunks")


@pytest.mark.parametrize("name", ["draining", "rebalancing", "surplus", "deletions", "new-class"])
def test_work_that_no_copy_depends_on_is_safe(name: str) -> None:
    assert judge(answers(status(), but(IDLE, classes=queue(**{name: 3})))).findings == ()


def test_a_chunk_without_a_complete_copy_endangers() -> None:
    assert found(judge(answers(status(), but(IDLE, unreadable=1)))) == [(ENDANGERED, "UNREADABLE")]
    by_liveness = status(under_replicated=1, unreadable=1)
    assert found(judge(answers(by_liveness))) == [(ENDANGERED, "UNREADABLE")]


def test_last_copies_are_seen_before_repair_begins() -> None:
    """Within a dead server's grace nothing is queued, and the danger is there all the same."""
    health = judge(answers(status(under_replicated=10, endangered=4, unreadable=1)))
    assert found(health) == [
        (ENDANGERED, "UNREADABLE"),
        (ENDANGERED, "LAST_COPY"),
        (DEGRADED, "LACKS_COPIES"),
    ]
    assert [finding.text.split()[0] for finding in health.findings] == ["1", "4", "5"]


def test_of_two_counts_the_worse_holds() -> None:
    queued = but(IDLE, classes=queue(endangered=7, under_replicated=1))
    health = judge(answers(status(under_replicated=5, endangered=2), queued))
    assert [finding.text.split()[0] for finding in health.findings] == ["7", "3"]


def test_a_leader_that_does_not_count_last_copies_says_degraded() -> None:
    assert found(judge(answers(status(under_replicated=5), None))) == [(DEGRADED, "LACKS_COPIES")]


def test_repair_that_cannot_go_on_says_why() -> None:
    health = judge(answers(status(), but(IDLE, stuck="no server has room")))
    assert found(health) == [(DEGRADED, "STUCK")]
    assert "no server has room" in texts(health)


def test_who_has_not_registered_with_a_new_leader_is_not_dead() -> None:
    new = but(DEAD, gathering=True, under_replicated=8, endangered=8, unreadable=2)
    health = judge(answers(new, said(dead_for_s=1)))
    assert found(health) == [(DEGRADED, "GATHERING")]
    assert "2 of 3" in texts(health)


def test_an_old_leader_is_judged_by_what_it_says() -> None:
    old = [Answer("m1", status(), repair_problem="it is of an older version")]
    assert found(judge(old)) == [(SAFE, "REPAIR_UNKNOWN")]
    dead = [Answer("m1", DEAD, repair_problem="it is of an older version")]
    assert found(judge(dead))[0] == (DEGRADED, "SERVER_DEAD")


# -- chunkservers


@pytest.mark.parametrize(
    ("repair", "state", "code", "text"),
    [
        (
            said(dead_for_s=42, repaired_in_s=258),
            DEGRADED,
            "SERVER_DEAD",
            "dead for 42 s; repair of its 8 chunks starts in 4 min 18 s, unless it returns",
        ),
        (
            said(dead_for_s=600, replicas=1),
            DEGRADED,
            "SERVER_DEAD",
            "dead for 10 min; repair of its 1 chunk is under way",
        ),
        (
            said(ServerMode.DRAINING, dead_for_s=600),
            DEGRADED,
            "SERVER_DEAD",
            "dead for 10 min; repair of its 8 chunks is under way",
        ),
        (
            said(ServerMode.MAINTENANCE, dead_for_s=60, until_s=1500),
            DEGRADED,
            "SERVER_DOWN_FOR_MAINTENANCE",
            "down for maintenance with 8 chunks; repair waits for 25 min more",
        ),
        (
            said(ServerMode.MAINTENANCE, dead_for_s=60),
            DEGRADED,
            "SERVER_DOWN_FOR_MAINTENANCE",
            "repair waits for it to be back",
        ),
        (
            said(dead_for_s=90_000, replicas=0),
            SAFE,
            "EMPTY_SERVER_DEAD",
            "dead, holds nothing any more: `dfs node remove 1` strikes it",
        ),
        (IDLE, DEGRADED, "SERVER_DEAD", "chunkserver 1 at s1: not alive"),
    ],
)
def test_a_dead_server_is_told_with_what_comes_of_it(
    repair: RepairStatus, state: State, code: str, text: str
) -> None:
    health = judge(answers(DEAD, repair))
    assert found(health) == [(state, code)]
    assert text in texts(health)


@pytest.mark.parametrize(
    ("repair", "code", "text"),
    [
        (said(ServerMode.DRAINING, 5), "DRAINING", "draining, 5 chunks to go"),
        (said(ServerMode.DRAINING, 0), "DRAINED", "stop it, `dfs node remove 1`"),
        (said(ServerMode.MAINTENANCE, until_s=90), "MAINTENANCE", "1 min 30 s left"),
        (said(ServerMode.MAINTENANCE), "MAINTENANCE", "until it is taken back"),
        (said(ServerMode.DRAINING, 5, "/data"), "DRAINING", "disk /data: draining, 5 chunks"),
        (said(ServerMode.DRAINING, 0, "/data"), "DRAINED", "it may be taken out"),
    ],
)
def test_what_an_operator_said_is_noted_and_does_no_harm(
    repair: RepairStatus, code: str, text: str
) -> None:
    health = judge(answers(status(), repair))
    assert found(health) == [(SAFE, code)]
    assert text in texts(health)


def test_a_mode_that_a_newer_leader_knows_is_no_trouble() -> None:
    later = but(IDLE, servers=(but(said().servers[0], mode=9),))
    assert judge(answers(status(), later)).state is SAFE


# -- disks


def test_a_failed_disk_degrades_while_data_is_on_it() -> None:
    failed = but(DISK, healthy=False, problem="EIO")
    health = judge(answers(status(servers=servers(disks=(failed,)))))
    assert found(health) == [(DEGRADED, "DISK_FAILED")]
    assert "disk /data: EIO; 8 chunks to be repaired" in texts(health)
    empty = judge(answers(status(servers=servers(disks=(but(failed, replicas=0),)))))
    assert found(empty) == [(SAFE, "EMPTY_DISK_FAILED")]


def test_a_disk_that_is_not_there_any_more_degrades_while_data_was_on_it() -> None:
    assert found(judge(answers(status(), said(disk="/gone")))) == [(DEGRADED, "DISK_FAILED")]
    assert judge(answers(status(), said(replicas=0, disk="/gone"))).state is SAFE


def test_damaged_blocks_degrade_and_quarantine_is_noted() -> None:
    health = judge(answers(status(servers=servers(disks=(but(DISK, damaged_blocks=1),)))))
    assert found(health) == [(DEGRADED, "DAMAGED_BLOCKS")]
    assert "disk /data: 1 damaged block to be mended" in texts(health)
    kept = judge(answers(status(servers=servers(disks=(but(DISK, quarantined_files=2),)))))
    assert found(kept) == [(SAFE, "QUARANTINE")]
    assert "2 files in quarantine" in texts(kept)


def test_a_nearly_full_disk_degrades() -> None:
    for free, state in ((4, DEGRADED), (5, SAFE)):
        full = but(DISK, free_bytes=free)
        health = judge(answers(status(servers=servers(disks=(full,)))))
        assert health.state is state
        assert ("disk /data: 96% full" in texts(health)) == (state is DEGRADED)


# -- all of it


def test_the_worst_finding_is_the_state_and_comes_first() -> None:
    pieces = {
        "unreadable": (but(IDLE, unreadable=1), ENDANGERED),
        "settling": (but(IDLE, classes=queue(settling=1)), DEGRADED),
        "drain": (said(ServerMode.DRAINING), SAFE),
    }
    for names in itertools.permutations(pieces, 2):
        repairs = [pieces[name] for name in names]
        both = but(
            IDLE,
            unreadable=max(r.unreadable for r, _ in repairs),
            classes=tuple(c for r, _ in repairs for c in r.classes),
            servers=tuple(s for r, _ in repairs for s in r.servers),
        )
        health = judge(answers(status(), both))
        assert health.state is max(state for _, state in repairs)
        assert [f.state for f in health.findings] == sorted((s for _, s in repairs), reverse=True)
        assert len(health.problems) + len(health.notes) == len(health.findings) == 2


def test_each_trouble_of_each_server_is_told() -> None:
    bad = (but(DISK, healthy=False), but(DISK, path="/other", free_bytes=1))
    all_bad = tuple(but(server, disks=bad) for server in SERVERS)
    assert len(judge(answers(status(servers=all_bad))).problems) == 6
