"""The replicated state machine: namespace, chunk map, sessions, registry (see design C3, C7).

`machine` applies log entries, `queries` reads; `records` describes every table. The operations
are grouped by what they do: `creation`, `removal`, `renaming`, `attributes`, `xattrs`, `chunks`;
`sessions` makes each of them happen once, `orphans` frees what is left behind. All of it works on
`master.tables.Tables`, and nothing here knows of time, chance, disks or networks.
"""

from __future__ import annotations

from master.state.machine import StateMachine

__all__ = ["StateMachine"]
