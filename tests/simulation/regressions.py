"""Plans that once found something, with what it was. They run with every test run.

What mends a bug is shown by a test of its own next to the code; a plan here shows that the way to
it stays open. They are kept whole, since what a seed draws changes with the kinds of faults there
are.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.cluster import Knobs
from tests.simulation.plan import Plan, Strike


@dataclass(frozen=True)
class Regression:
    """`name`: of the profile and the seed as they were. `found`: what it found when first run."""

    name: str
    found: str
    plan: Plan


def _strikes(*lines: str) -> tuple[Strike, ...]:
    """From "when chance" pairs behind each kind, in the order of time."""
    strikes = [
        Strike(float(at_s), kind, int(chance))
        for kind, *numbers in (line.split() for line in lines)
        for at_s, chance in zip(numbers[::2], numbers[1::2], strict=True)
    ]
    return tuple(sorted(strikes, key=lambda strike: strike.at_s))


REGRESSIONS: tuple[Regression, ...] = (
    Regression(
        "trees-300",
        "a server that had to leave a chunk was refused for two minutes, where there was no other",
        Plan(
            seed=300,
            profile="trees",
            masters=3,
            chunkservers=3,
            clients=3,
            seconds=60.0,
            knobs=Knobs(
                compact_entries=205,
                keep_entries=5,
                session_ttl_s=20.0,
                packet_bytes=65536,
                inline_flush_below_s=0.0,
                submits_in_flight=1,
            ),
            workloads=("trees",),
            strikes=_strikes(
                "pause_client 6.996 3866946266 10.081 2839570939 16.134 1086669238",
                "pause_client 17.049 1907788368 24.116 1430149304 30.632 2938070940",
                "pause_client 35.907 1385104225 46.143 3877440899 46.526 223367873",
                "pause_client 47.175 796626405 51.401 1476587052 57.513 4193697335",
                "kill_everything 12.249 3069141039 20.355 1012539627 27.695 2660577412",
                "kill_everything 34.086 804482543 39.208 2129908241 40.279 2782305141",
                "kill_everything 42.643 2143396070 50.166 272806639 51.79 3374481684",
                "kill_everything 53.5 3663599214 54.705 2100039543 57.984 1335182580",
                "kill_everything 59.652 531606840",
            ),
        ),
    ),
    Regression(
        "streams-1009",
        "a master whose disk refused changes at the start ended with a traceback",
        Plan(
            seed=1009,
            profile="streams",
            masters=3,
            chunkservers=4,
            clients=2,
            seconds=60.0,
            knobs=Knobs(
                compact_entries=15,
                keep_entries=5,
                session_ttl_s=20.0,
                packet_bytes=65536,
                submits_in_flight=1,
                write_window_bytes=262144,
                read_cache_bytes=0,
            ),
            workloads=("streams",),
            strikes=_strikes(
                "fail_master_disk 3.276 481358323 8.029 3077340821 15.353 4216603446",
                "fail_master_disk 16.949 3386063417 18.237 3730791426 21.688 1888955915",
                "fail_master_disk 22.773 322328237 25.79 3872278237 26.525 2184179657",
                "fail_master_disk 37.969 1771260466 39.052 2770954381 40.05 1837493144",
                "fail_master_disk 43.26 2840020112 46.591 1242669460 49.965 435642784",
                "fail_master_disk 55.667 129300208 57.696 537489225 58.351 299231574",
                "cut_chunkserver_from_client 4.387 619111688 10.026 3561263602",
                "cut_chunkserver_from_client 12.862 1434941046 17.716 1029677386",
                "cut_chunkserver_from_client 29.826 2039993920 32.319 2817097227",
                "cut_chunkserver_from_client 33.044 2672321308 34.988 38804119",
                "cut_chunkserver_from_client 36.469 792227948 44.676 989679096",
                "cut_chunkserver_from_client 45.767 630539108 50.843 2612162467",
                "cut_chunkserver_from_client 51.382 2812300109 52.878 1440696731",
                "cut_chunkserver_from_client 54.379 3050988649 56.443 2703034109",
            ),
        ),
    ),
    Regression(
        "turns-6",
        "wall clocks that were set back kept deletions and repair waiting until they had caught up",
        Plan(
            seed=6,
            profile="turns",
            masters=5,
            chunkservers=3,
            clients=2,
            seconds=30.0,
            knobs=Knobs(
                compact_entries=300,
                session_ttl_s=20.0,
                packet_bytes=65536,
                reap_batch=2,
                write_window_bytes=262144,
            ),
            workloads=("turns",),
            strikes=_strikes(
                "transfer_leadership 2.916 1724010736 18.85 3286880508 27.946 3616282609",
                "transfer_leadership 29.788 1890700921",
                "power_chunkserver_at_sync 4.63 2085574868",
                "slow_chunkserver_disk 6.625 2539092704 14.861 3435499154 19.362 2125427937",
                "jump_all_walls 9.391 936499695 11.774 4230957638 20.555 2326987675",
                "jump_all_walls 20.885 3746500851 24.7 4247652367",
            ),
        ),
    ),
    Regression(
        "trees-1",
        "a leader whose wall clock was set forward went round its deletions without a pause",
        Plan(
            seed=1,
            profile="trees",
            masters=3,
            chunkservers=4,
            clients=3,
            seconds=60.0,
            knobs=Knobs(
                compact_entries=140,
                session_ttl_s=20.0,
                packet_bytes=65536,
                reap_batch=2,
                batch_bytes=262144,
                inline_flush_below_s=0.0,
                write_window_bytes=262144,
            ),
            workloads=("trees",),
            strikes=_strikes(
                "reset_client 6.108 2170905977 20.01 1083613131 23.309 3185644817",
                "reset_client 27.786 2301628312 40.86 2044579461 46.369 1032275355",
                "reset_client 48.513 3829577707 56.09 2430389480 56.84 2687130721",
                "jump_wall 8.354 4147816292 26.181 3542098492 38.717 2184474847",
                "jump_wall 45.668 3087094255 47.371 4070997077 49.925 831834007",
                "switch_off_chunkserver 10.484 3742540738 11.655 929136009 15.574 144534102",
                "switch_off_chunkserver 16.249 2038225547 24.946 3210501570 30.373 1741169175",
                "switch_off_chunkserver 31.257 4249217068 34.911 104736156 41.972 1146368583",
                "switch_off_chunkserver 51.841 3068332593 55.815 3178917871",
            ),
        ),
    ),
    Regression(
        "blackout-146",
        "a block that a power loss tore while its replica joined passed for sound",
        Plan(
            seed=146,
            profile="blackout",
            masters=3,
            chunkservers=4,
            clients=3,
            seconds=60.0,
            knobs=Knobs(
                compact_entries=300,
                session_ttl_s=20.0,
                packet_bytes=65536,
                raft_pace=2.0,
                batch_bytes=262144,
                inline_flush_below_s=0.0,
                write_window_bytes=262144,
            ),
            workloads=("blocks", "logs"),
            strikes=_strikes(
                "blackout 3.718 3829092965 13.867 634367554 21.515 2263994269",
                "blackout 22.709 517898422 34.05 1383778891 35.853 877999358",
                "blackout 38.635 3976028634 41.909 698807264 47.007 874301501",
                "blackout 47.835 1831510456 50.131 2580792972 54.189 2220851213",
                "kill_chunkserver_at_operation 11.591 2609771155 28.875 1775637863",
                "kill_chunkserver_at_operation 42.461 2545631433 44.204 2574220739",
                "kill_chunkserver_at_operation 55.332 2490830047 59.162 3670773770",
            ),
        ),
    ),
    Regression(
        "losses-16",
        "calls waited for the silence of a lost leader one after the other",
        Plan(
            seed=16,
            profile="losses",
            masters=3,
            chunkservers=4,
            clients=3,
            seconds=60.0,
            knobs=Knobs(
                compact_entries=140,
                session_ttl_s=20.0,
                packet_bytes=65536,
                reap_batch=2,
                batch_bytes=262144,
                inline_flush_below_s=0.0,
            ),
            workloads=("trees",),
            strikes=_strikes(
                "lose_master 3.652 1449819705 9.198 2971746746 14.629 2409857442",
                "lose_master 15.268 1290967249 18.414 3003350681 19.657 548152291",
                "lose_master 20.226 2763945745 23.801 1625326608 24.101 1955811844",
                "lose_master 24.431 420029181 25.41 815960048 27.722 1109998130",
                "lose_master 28.845 353446894 32.88 3683568418 33.337 1310045734",
                "lose_master 39.431 1924995544 44.775 2238733417 47.24 2108896508",
                "lose_master 50.149 3518757094 51.904 3129731876 58.069 2472078785",
                "lose_master 59.359 2992832688",
                "power_chunkserver_at_sync 5.567 1949361984 9.8 3894369263 11.149 3113339721",
                "power_chunkserver_at_sync 25.675 318839491 27.301 4270756822",
                "power_chunkserver_at_sync 30.385 280256683 36.645 3446140525",
                "power_chunkserver_at_sync 43.216 2507097342 51.19 1849843766 54.1 3115988088",
            ),
            stall_max_s=3.0,
        ),
    ),
)
