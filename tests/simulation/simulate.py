"""`scripts/simulate`: run seeds of the whole cluster, as many processes at a time as one likes.

Standard output follows from the arguments alone; what depends on this machine (times, rates) goes
to standard error. Exit codes: 0 all held, 1 a property was violated or a kind of fault never struck
in many seeds (with --mutant: it was not found), 2 bad arguments.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, cycle, islice

from tests.simulation.faults import KINDS
from tests.simulation.mutants import CATALOGUE, Mutant
from tests.simulation.profiles import PROFILES
from tests.simulation.runner import Job, Result, run_all, run_here
from tests.simulation.shrink import shrink

SEEDS = 20
MANY = 300  # seeds of all profiles, among which every kind of fault is due


def main() -> int:
    arguments = _arguments()
    if arguments.list:
        return _list()
    if arguments.log:
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s: %(message)s")
        logging.getLogger("tests").setLevel(logging.DEBUG)
    jobs = _jobs(arguments)
    if arguments.seed is not None and arguments.seeds is None and arguments.minutes is None:
        results: Iterator[Result] = map(run_here, jobs)
    else:
        results = run_all(jobs, arguments.jobs, arguments.minutes)
    return _tell(results, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, metavar="N", help=f"how many ({SEEDS})")
    parser.add_argument("--seed", type=_seed, metavar="S", help="this one, or so many from it on")
    parser.add_argument("--minutes", type=float, metavar="M", help="new seeds for so long")
    parser.add_argument("--profile", choices=sorted(PROFILES), help="only this one (all in turn)")
    parser.add_argument("--mutant", choices=sorted(CATALOGUE), help="with this fault planted")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (2)")
    parser.add_argument("--seconds", type=float, help="virtual, of each seed's work (60)")
    parser.add_argument("--no-shrink", dest="shrink", action="store_false")
    parser.add_argument("--log", action="store_true", help="show the log (with --seed)")
    parser.add_argument("--list", action="store_true", help="profiles, kinds of faults, mutants")
    arguments = parser.parse_args()
    if arguments.jobs < 1 or (arguments.seeds is not None and arguments.seeds < 1):
        parser.error("--seeds and --jobs are 1 or more")
    return arguments


def _seed(text: str) -> int:
    """A number; `today` for the one of the date."""
    if text == "today":
        return int(f"{datetime.datetime.now(datetime.UTC):%Y%m%d}") * 1000
    return int(text)


def _jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    first = arguments.seed or 0
    mutant = CATALOGUE.get(arguments.mutant or "")
    names = [arguments.profile] if arguments.profile else sorted(PROFILES)
    if mutant is not None and not arguments.profile:
        names = [mutant.profile]
    seconds = arguments.seconds
    if mutant is not None and seconds is None:
        seconds = mutant.seconds
    jobs = (
        Job(name, first + number // len(names), seconds, arguments.mutant or "")
        for number, name in zip(count(), cycle(names), strict=False)
    )
    if arguments.minutes is not None:
        return jobs
    return islice(jobs, _seeds(arguments, mutant, len(names)))


def _seeds(arguments: argparse.Namespace, mutant: Mutant | None, profiles: int) -> int:
    if arguments.seeds is not None:
        return int(arguments.seeds)
    if arguments.seed is not None:
        return profiles  # that seed of each
    return SEEDS if mutant is None else mutant.seeds


def _tell(results: Iterator[Result], arguments: argparse.Namespace) -> int:
    began, reach, failed, done, virtual_s = time.monotonic(), Counter[str](), 0, 0, 0.0
    mutant, found = CATALOGUE.get(arguments.mutant or ""), 0
    for result in results:
        done, virtual_s = done + 1, virtual_s + result.virtual_s
        reach.update(result.reach)
        print(result.line, flush=True)
        if result.failure:
            failed += 1
            found += mutant is not None and mutant.is_found(result.rule)
            print("\n".join(f"    {text}" for text in result.failure), flush=True)
            if arguments.shrink and not arguments.mutant:
                print("\n".join(f"    {text}" for text in shrink(result.job)), flush=True)
        print(f"  {result.wall_s:.1f} s", file=sys.stderr)
    unreached = _tell_reach(reach, done)
    print(f"{done - failed} of {done} seeds passed")
    wall_s = time.monotonic() - began
    rate = f"{virtual_s / wall_s:.0f} x real time, {60 * done / wall_s:.1f} seeds a minute"
    print(f"{virtual_s / 3600:.2f} virtual hours in {wall_s:.0f} s: {rate}", file=sys.stderr)
    if mutant is not None:
        print(f"{mutant.name} was found by {found} seeds, as a breach of {mutant.found_by}")
        return int(found == 0)
    return int(failed > 0 or (unreached and not arguments.profile))


def _tell_reach(reach: Counter[str], done: int) -> bool:
    """What all runs together exercised; whether kinds of faults never struck that should have."""
    print("reached: " + ", ".join(f"{name} {reach[name]}" for name in sorted(reach)))
    never = [name for name in KINDS if not reach[f"fault.{name}"]]
    if never and done > 1:
        print("never struck: " + ", ".join(never))
    return bool(never) and done >= MANY


def _list() -> int:
    for profile in PROFILES.values():
        print(f"profile {profile.name}: {profile.about}")
    for kind in KINDS.values():
        print(f"fault {kind.name} ({kind.family})")
    for mutant in CATALOGUE.values():
        print(f"mutant {mutant.name}: {mutant.breaks} (in {mutant.profile}, {mutant.seeds} seeds)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
