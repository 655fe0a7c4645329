"""Which node's `Env` the running task belongs to.

Only for code that cannot be handed an `Env`: a third-party library with clocks and random numbers
in its module globals. Everything else takes its `Env` as an argument. trio tasks and worker
threads inherit the variable from whoever started them; the simulator sets it for every task of a
node, a real process calls `activate` once before it starts its event loop.
"""

from __future__ import annotations

from contextvars import ContextVar

from dfs.runtime.env import Env

current_env: ContextVar[Env] = ContextVar("current_env")


def activate(env: Env) -> None:
    """Make `env` the current one for this context and all that it starts from now on."""
    current_env.set(env)
