"""Broken durability, to show that the crash test notices. Never part of the product.

Python imports a module of this name by itself at its start when it lies on PYTHONPATH, which is how
`tests.crash.faults` plants one of these in the processes of a test cluster and nowhere else: the
product has no switch for any of it. DFS_PLANTED_FAULT names the fault.

Faults that a kill shows:
- client-skips-fsync: the mount answers fsync and does nothing.
- chunkserver-answers-early: what is written to a replica stays in memory until it is read.
- master-answers-early: the Raft log is flushed every FLUSH_S, whatever was promised.

Faults that only a power cut shows:
- chunkserver-skips-fsync: fdatasync of replicas does nothing.
- master-skips-fsync: LMDB does not sync.
"""

from __future__ import annotations

import os
import sys
from typing import Any

FLUSH_S = 3.0


def client_skips_fsync() -> None:
    from dfs.client.open_file import OpenFile

    async def sync(self: Any) -> None:
        return

    OpenFile.sync = sync  # type: ignore[method-assign]


def chunkserver_answers_early() -> None:
    from dfs.runtime.real.disk import RealFile

    write = RealFile.pwrite
    late: dict[int, list[tuple[list[bytes], int]]] = {}

    def after_writing(access: Any) -> Any:
        def with_all_written(self: Any, *arguments: Any) -> Any:
            for buffers, offset in late.pop(self._fd, []):
                write(self, buffers, offset)
            return access(self, *arguments)

        return with_all_written

    def pwrite(self: Any, buffers: Any, offset: int) -> None:
        late.setdefault(self._fd, []).append(([bytes(buffer) for buffer in buffers], offset))

    for name in ("pread_into", "pread_cached", "truncate", "size", "close"):
        setattr(RealFile, name, after_writing(getattr(RealFile, name)))
    RealFile.pwrite = pwrite  # type: ignore[method-assign]


def master_answers_early() -> None:
    from master.raft.node import RaftNode

    honest = RaftNode._flush
    flushed_at = [0.0]

    async def flush(self: Any, core: Any) -> None:
        now = self._env.clock.monotonic()
        if self._flush_wanted or core is None or now - flushed_at[0] > FLUSH_S:
            flushed_at[0] = now
            await honest(self, core)
        elif core.journal.dirty:
            core.journal.dirty = False
            core.flushed(core.journal.last_index)

    RaftNode._flush = flush  # type: ignore[method-assign]


def chunkserver_skips_fsync() -> None:
    from dfs.runtime.real.disk import RealFile

    RealFile.datasync = lambda self: None  # type: ignore[method-assign]


def master_skips_fsync() -> None:
    import lmdb

    honest = lmdb.open

    def without_sync(*arguments: Any, **options: Any) -> Any:
        return honest(*arguments, **{**options, "sync": False, "metasync": False})

    setattr(lmdb, "open", without_sync)  # noqa: B010


_FAULTS = {
    "client-skips-fsync": ("mount", client_skips_fsync),
    "chunkserver-answers-early": ("chunkserver", chunkserver_answers_early),
    "master-answers-early": ("master", master_answers_early),
    "chunkserver-skips-fsync": ("chunkserver", chunkserver_skips_fsync),
    "master-skips-fsync": ("master", master_skips_fsync),
}

_role, _plant = _FAULTS[os.environ["DFS_PLANTED_FAULT"]]
# The arguments are not parsed yet when this runs: `python -m dfs.cli.main ROLE ...`.
if _role in sys.orig_argv[3:4]:
    try:
        _plant()
    except (ImportError, AttributeError) as error:  # of which Python would make a mere warning
        sys.exit(f"cannot plant {os.environ['DFS_PLANTED_FAULT']}: {error}")
