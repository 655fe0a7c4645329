"""What is printed of a run: one line of a good one; seed, rule, operations, timeline of a bad one.

All of it follows from the seed alone, so that two runs print the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.simulation.history import Op
from tests.simulation.run import Outcome
from tests.simulation.violations import Violation

OPS_SHOWN = 25
BEFORE_S = 15.0  # of the timeline, before the violation


def line(outcome: Outcome) -> str:
    """One run in a line."""
    plan = outcome.plan
    faults = _counted(outcome, "fault.")
    verdict = "FAILED" if outcome.failure else "ok"
    size = f"{plan.masters}+{plan.chunkservers}+{plan.clients}"
    ops = len(outcome.history.ops) if outcome.history else 0
    return (
        f"{plan.profile} {plan.seed} {verdict}: {size}, {outcome.virtual_s:.1f} s, {ops} operations"
        f", trace {outcome.trace_hash}; {faults or 'no faults'}"
    )


def _counted(outcome: Outcome, prefix: str) -> str:
    found = sorted(k for k in outcome.reach if k.startswith(prefix))
    return ", ".join(f"{k.removeprefix(prefix)} {outcome.reach[k]}" for k in found)


def failure(outcome: Outcome) -> list[str]:
    """The story of a failed run, for people."""
    plan, error = outcome.plan, outcome.failure
    shown = [f"seed {plan.seed} of profile {plan.profile} failed", f"  {describe(error)}"]
    if isinstance(error, Violation) and error.ops:
        shown += ["operations concerned:", *(f"  {op}" for op in error.ops[:OPS_SHOWN])]
    shown += ["timeline:", *(f"  {text}" for text in _timeline(outcome))]
    strikes = ", ".join(f"{s.kind} at {s.at_s:g}" for s in plan.strikes)
    shown.append(
        f"plan: {plan.masters} masters, {plan.chunkservers} chunkservers, {plan.clients} clients,"
        f" {plan.seconds:g} s, {plan.knobs}; strikes: {strikes or 'none'}"
    )
    shown.append(f"again: scripts/simulate --profile {plan.profile} --seed {plan.seed} --log")
    return shown


def describe(error: BaseException | None) -> str:
    """The error's own words; where it arose, unless it is a violation."""
    if isinstance(error, Violation):
        return str(error)
    text = f"{type(error).__name__}: {error}"
    trace = error.__traceback__ if error else None
    places: list[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return f"{text} ({' < '.join(reversed(places[-4:]))})"


def _timeline(outcome: Outcome) -> Iterator[str]:
    """Faults and operations of the last seconds, in the order of time."""
    since_s = outcome.virtual_s - BEFORE_S
    ops = outcome.history.ops if outcome.history else []
    events = [(at_s, f"{at_s:9.3f} *** {text}") for at_s, text in outcome.events if at_s >= since_s]
    recent = [op for op in ops if op.began_s >= since_s or _ended_late(op, since_s)]
    events += [(op.began_s, str(op)) for op in recent[-3 * OPS_SHOWN :]]
    for _, text in sorted(events, key=lambda event: event[0]):
        yield text


def _ended_late(op: Op, since_s: float) -> bool:
    return not op.is_open and op.ended_s >= since_s


def rule(outcome: Outcome) -> str:
    """The rule that was broken, for tables; the error's type where it is no violation."""
    error = outcome.failure
    if error is None:
        return ""
    return error.rule if isinstance(error, Violation) else type(error).__name__
