"""The cluster that the user named, opened for one command.

`--config FILE`, else DFS_CONFIG, else the cluster that `dfs local up` keeps in its default place.
A command's work is an async function of a `Session`; `Target.run` reads the configuration, opens
a session and returns the exit code that the work returns.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click

from dfs import config
from dfs.errors import Code, Failure
from dfs.local.layout import default_root

if TYPE_CHECKING:
    from dfs.cli.tree import Tree
    from dfs.client import Client
    from dfs.messages.common import Credentials
    from dfs.runtime import Env

P = ParamSpec("P")
R = TypeVar("R")
PATIENCE_S = 15.0  # outlasts a failover many times; a person waits no longer than that


@dataclass(frozen=True)
class Session:
    """What a command works with: an open client, its world, and the user it acts for."""

    env: Env
    client: Client
    tree: Tree
    caller: Credentials
    umask: int
    settings: config.Client


@dataclass(frozen=True)
class Target:
    """Which cluster, and how long to try to reach it."""

    config_path: str | None
    timeout_s: float

    def settings(self) -> config.Client:
        """The cluster's client configuration. Raises Failure(CONFIG)."""
        found = config.load(config.Client, self.config_path or _default_config())
        limits = dataclasses.replace(found.limits, retry_for_s=self.timeout_s)
        return dataclasses.replace(found, limits=limits)

    def run(self, work: Callable[[Session], Awaitable[int]]) -> int:
        """Open the cluster, do the work, close; the work's exit code."""
        import trio

        from dfs.runtime.real import RealEnv

        settings = self.settings()
        _quiet_logs()
        return trio.run(_in_session, RealEnv("cli"), settings, work)


def _quiet_logs() -> None:
    """The library's log lines are for the operators of servers; here only --debug shows them."""
    import logging

    level = logging.DEBUG if os.environ.get("DFS_DEBUG") else logging.CRITICAL
    logging.basicConfig(level=level, format="%(name)s: %(message)s")


async def _in_session(
    env: Env, settings: config.Client, work: Callable[[Session], Awaitable[int]]
) -> int:
    from dfs.cli.access import acting_user, current_umask
    from dfs.cli.tree import Tree
    from dfs.client import open_client

    caller = acting_user()
    async with open_client(env, settings, f"dfs command line, pid {os.getpid()}") as client:
        tree = Tree(client, caller)
        return await work(Session(env, client, tree, caller, current_umask(), settings))


def _default_config() -> str:
    path = os.path.join(default_root(), "client.toml")
    if os.path.exists(path):
        return path
    text = "no cluster named: give --config FILE or DFS_CONFIG, or start one with `dfs local up`"
    raise Failure(Code.CONFIG, text)


def cluster_options(command: Callable[Concatenate[Target, P], R]) -> Callable[P, R]:
    """Decorator: the options that name the cluster; the function's first argument is a Target."""

    @click.pass_context
    def with_target(ctx: click.Context, /, *args: P.args, **kwargs: P.kwargs) -> R:
        target = Target(ctx.meta[_CONFIG], ctx.meta[_TIMEOUT])
        return command(target, *args, **kwargs)

    named = functools.update_wrapper(with_target, command)
    for option in (_timeout_option, _config_option):
        named = option(named)
    return named


_CONFIG, _TIMEOUT = "dfs.config", "dfs.timeout"  # keys of click's Context.meta


def _remember(key: str) -> Callable[[click.Context, click.Parameter, object], object]:
    def callback(ctx: click.Context, _parameter: click.Parameter, value: object) -> object:
        ctx.meta[key] = value
        return value

    return callback


_config_option = click.option(
    "--config",
    envvar=config.ENVIRONMENT_VARIABLE,
    metavar="FILE",
    expose_value=False,
    callback=_remember(_CONFIG),
    help="client.toml of the cluster (or DFS_CONFIG).",
)
_timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=PATIENCE_S,
    show_default=True,
    metavar="SECONDS",
    expose_value=False,
    callback=_remember(_TIMEOUT),
    help="How long to try to reach the cluster.",
)
