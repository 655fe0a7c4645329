"""Each monitor fires when its rule is broken, sees something to watch, and lets sound runs pass."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from chunkserver.service import Service
from chunkserver.store import Store
from chunkserver.syncing import Syncing
from dfs.runtime.current import current_env
from master.raft import RaftNode
from master.raft.election import Lease
from master.raft.proposals import Proposals
from master.raft.transport import PeerTransport
from master.state.machine import StateMachine
from master.tables import STATE_TABLES
from tests.conftest import ExpectedLogs
from tests.simulation.mutants import Mutant
from tests.simulation.profiles import draw
from tests.simulation.run import Outcome, run
from tests.simulation.taps import Taps
from tests.simulation.violations import Violation


def _run(directory: Path, plant: Callable[[Taps], None] | None = None) -> Outcome:
    """A short run without strikes, with something broken."""
    plan = dataclasses.replace(draw("trees", 3, seconds=6.0), strikes=())
    mutant = plant and Mutant("planted", "for this test", plant, "trees")
    return run(plan, directory, mutant=mutant or None)


def _acknowledge_early(taps: Taps) -> None:
    def send(original: Callable[..., bool], self: PeerTransport, *arguments: Any) -> bool:
        sent = original(self, *arguments)
        self.release()
        return sent

    taps.around(PeerTransport, "send", send)


def _answer_early(taps: Taps) -> None:
    async def propose(original: object, self: RaftNode, command: object) -> object:
        waiter = self.proposals.submit(command)
        waiter.answer(None)
        return await waiter.wait()

    taps.around(RaftNode, "propose", propose)


def _read_without_lease(taps: Taps) -> None:
    taps.around(RaftNode, "may_read", lambda original, self: self._core is not None)
    taps.around(Lease, "valid", lambda original, self, peers: True)


async def _nothing(*_: object, **__: object) -> None: ...


def _sync_nothing(taps: Taps) -> None:
    taps.around(Syncing, "sync", _nothing)


def _forward_nothing(taps: Taps) -> None:
    taps.around(Service, "_call", _nothing)


def _write_nothing(taps: Taps) -> None:
    taps.around(Store, "write", _nothing)


def _differ(taps: Taps) -> None:
    def apply(original: Callable[..., Any], self: StateMachine, command: bytes) -> Any:
        answers = original(self, command)
        tables: Any = self._tables
        tables.put(STATE_TABLES[0], b"one of its own", current_env.get().name.encode())
        return answers

    taps.around(StateMachine, "apply", apply)


def _queue_without_bound(taps: Taps) -> None:
    def begin(original: Callable[..., Any], self: Proposals, *arguments: Any) -> None:
        for index in range(-self._limits.max_batches_in_flight - 1, 0):
            self.expect(index, 0, [])
        original(self, *arguments)

    taps.around(Proposals, "begin", begin)


def _log_traceback(taps: Taps) -> None:
    async def sync(*_: object) -> None:
        raise KeyError("a mistake")

    taps.around(Service, "_sync_in_turn", sync)


def _warn(taps: Taps) -> None:
    def submit(original: Callable[..., Any], self: Proposals, command: object) -> Any:
        logging.getLogger("master.raft.proposals").warning("nobody has said that before")
        return original(self, command)

    taps.around(Proposals, "submit", submit)


async def _for_ever(*_: object) -> None:
    await trio.sleep_forever()


def _stop_never(taps: Taps) -> None:
    taps.around(RaftNode, "stop", _for_ever)


PLANTED = [
    (_stop_never, {"leaks.stop"}),
    (_log_traceback, {"logs.traceback"}),
    (_warn, {"logs.unexpected"}),
    (_differ, {"states", "masters are equal"}),
    (_queue_without_bound, {"bounds"}),
    (_sync_nothing, {"chunks.ack"}),
    (_forward_nothing, {"chunks.ack"}),
    (_write_nothing, {"chunks.ack"}),
    (_acknowledge_early, {"raft.ack", "raft.vote"}),
    (_answer_early, {"raft.answer"}),
    (_read_without_lease, {"raft.lease"}),
]


@pytest.mark.parametrize(("plant", "rules"), PLANTED)
def test_a_broken_rule_is_seen(
    plant: Callable[[Taps], None], rules: set[str], tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("")
    failure = _run(tmp_path, plant).failure
    assert isinstance(failure, Violation), failure
    assert failure.rule in rules


def test_a_sound_run_shows_the_monitors_what_they_watch(
    tmp_path: Path, expected_logs: ExpectedLogs
) -> None:
    expected_logs("")
    outcome = _run(tmp_path)
    assert outcome.failure is None, outcome.failure
    seen = {"append_ack", "vote", "elected", "match_index", "lease", "applied", "answer"}
    seen |= {"write_ack", "sync_ack", "chunk_read", "deletion", "durable_replica"}
    seen |= {"state_hash", "bounds", "orderly_stop"}
    assert not {name for name in seen if not outcome.reach[f"saw.{name}"]}
