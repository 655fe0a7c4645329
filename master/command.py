"""`dfs master`: run one master, and administer the group of masters.

`run` is the process itself; the other verbs are clients of the leader.
"""

from __future__ import annotations

import sys

import click


@click.group()
def master() -> None:
    """Run a master, or change the group of masters."""


@master.command()
@click.option("--config", "config_path", required=True, help="This master's TOML file.")
@click.option("--verbose", is_flag=True, help="Log debug lines too.")
def run(config_path: str, verbose: bool) -> None:
    """Run one master in the foreground until SIGTERM."""
    from dfs.config import Master, load
    from dfs.errors import Failure
    from dfs.process import EXIT_CONFIG, log_to_stderr, run_process
    from dfs.runtime.real import RealEnv
    from master import server

    try:
        config = load(Master, config_path)
    except Failure as error:
        print(f"dfs: {error.message}", file=sys.stderr)
        sys.exit(EXIT_CONFIG)
    node = f"master-{config.id}"
    log_to_stderr(node, verbose=verbose)
    env = RealEnv(node, sync_delay_s=config.debug_sync_delay_ms / 1000)
    sys.exit(run_process(lambda stop: server.run(env, config, stop)))
